"""Warnings on stderr: a sentence each."""

from __future__ import annotations

from collections.abc import Iterable

import click

__all__ = ["warn_of"]


def warn_of(texts: Iterable[str]) -> None:
    """Print each text as a warning on stderr."""
    for text in texts:
        click.secho("warning: ", fg="yellow", bold=True, nl=False, err=True)
        click.echo(text, err=True)
