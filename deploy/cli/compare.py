"""``strata compare``: two models, tensor by tensor."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.errors import AccuracyError, MissingBackendError
from deploy.cli.data_options import data_options
from deploy.cli.progress import progress_bar
from deploy.images import ImageRequest

if TYPE_CHECKING:
    from deploy.comparison.report import LayerDiff, Report

__all__ = ["command"]

_FILE = click.Path(path_type=Path)


@click.command("compare")
@click.argument("reference", type=_FILE)
@click.argument("candidate", type=_FILE)
@data_options(images=32, batch=8)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write all rows, in graph order, to this file; - prints them in place of the table.",
)
@click.option("--floor-db", type=float, help="Fail when a tensor's inherited SQNR is below.")
@click.option(
    "--top", type=click.IntRange(min=0), default=10, show_default=True, help="Rows to print."
)
@click.option(
    "--own/--no-own",
    default=True,
    show_default=True,
    help="Also run each layer of the candidate on the reference's tensors.",
)
def command(
    reference: Path,
    candidate: Path,
    request: ImageRequest,
    json_path: Path | None,
    floor_db: float | None,
    top: int,
    own: bool,
) -> None:
    """Compare two models layer by layer.

    Both run in ONNX Runtime, its optimizations off, on the same images. A tensor's
    inherited error is what the candidate makes of the image up to there; its own error is
    what its layer makes of the reference's tensors.
    """
    try:
        from deploy.comparison.run import compare
    except ImportError as err:
        raise MissingBackendError(
            f"comparing needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    from deploy.comparison.layer_table import report_text
    from deploy.comparison.layers_json import report_to_json, write_report

    with progress_bar("compare") as bar:
        report = compare(reference, candidate, request, own=own, progress=bar)
    if json_path == Path("-"):
        click.echo(json.dumps(report_to_json(report), indent=2, ensure_ascii=False))
    else:
        if json_path is not None:
            write_report(report, json_path)
        click.echo(report_text(report, top=top, floor_db=floor_db))
    first = report.first_below(floor_db) if floor_db is not None else None
    if first is not None:
        raise _too_far(report, first, floor_db or 0.0)


def _too_far(report: Report, first: LayerDiff, floor_db: float) -> AccuracyError:
    """Return the error that names the first tensor below the floor, and the layer at fault."""
    from deploy.comparison.layer_table import row_text

    until = replace(report, rows=report.rows[: report.rows.index(first) + 1])
    worst = next(iter(until.worst(1, own=True)), None)
    blame = f"largest own error up to there: {worst.tensor} ({row_text(worst)}); " if worst else ""
    return AccuracyError(
        f"{report.candidate.file}: {first.tensor}: {row_text(first)}; the floor is {floor_db:g} dB",
        hint=f"{blame}keep a layer in float, or calibrate it by another method",
    )
