"""``strata summary``: what an output folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from deploy.summaries.summary import Summary

__all__ = ["command"]

_COLUMNS = 100


@click.command("summary")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(folder: Path, as_json: bool) -> None:
    """Sum up an output folder: accuracy, layers, files, times.

    Each file is held against the digests of those it was made from; a stale or foreign
    one is an error. Ends with 7 when the comparison found a layer at fault.
    """
    from deploy.summaries.summary import read_summary

    summary = read_summary(folder)
    if as_json:
        from deploy.summaries.to_json import summary_to_json

        click.echo(json.dumps(summary_to_json(summary), indent=2, ensure_ascii=False))
    else:
        _print(summary)
    if summary.layers is not None and not summary.layers.holds:
        from deploy.comparison.output.fault import fault_of

        raise fault_of(summary.layers)


def _print(summary: Summary) -> None:
    """Print the summary as a person wants to read it."""
    from rich.console import Console

    from deploy.summaries.to_text import summary_view

    console = Console(highlight=False)
    console.width = min(_COLUMNS, console.width) if console.is_terminal else _COLUMNS
    with console.capture() as captured:
        console.print(summary_view(summary))
    # rich fills cells with blanks up to the edge
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))
