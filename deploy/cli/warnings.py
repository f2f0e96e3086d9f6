"""Warnings on stderr: a sentence each."""

from __future__ import annotations

from collections.abc import Iterable

import click

__all__ = ["shown", "warn_of"]


def shown(text: str) -> str:
    """Return a text without control characters: a name in it could steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else "�" for c in text)


def warn_of(texts: Iterable[str]) -> None:
    """Print each text as a warning on stderr."""
    for text in texts:
        click.secho("warning: ", fg="yellow", bold=True, nl=False, err=True)
        click.echo(shown(text), err=True)
