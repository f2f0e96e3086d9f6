"""``strata compare``: two models or a chain of them, tensor by tensor."""

from __future__ import annotations

import gc
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import InputError, MissingBackendError
from deploy.cli.data_options import data_options
from deploy.cli.progress import progress_bar
from deploy.cli.stage import OUTPUT, Stage
from deploy.comparison.values.verdict import Bounds
from deploy.images import ImageRequest

if TYPE_CHECKING:
    from deploy.comparison.values.report import Report

__all__ = ["command"]

_RARELY = 100_000  # objects made between two searches for garbage


def _bounds_by_precision(
    context: click.Context, parameter: click.Parameter, given: tuple[str, ...]
) -> Mapping[str, float]:
    """Read ``--bound INT8=6``."""
    del context, parameter
    bounds = dict(Bounds().excess_db)
    for text in given:
        precision, _, value = text.partition("=")
        try:
            bound = float(value)
        except ValueError as err:
            raise InputError(
                f"--bound {text}: not PRECISION=dB", hint="such as --bound INT8=6"
            ) from err
        if precision.upper() not in bounds or not bound >= 0:
            raise InputError(
                f"--bound {text}: no such bound",
                hint=f"give one of {', '.join(bounds)} and decibels, such as INT8=6",
            )
        bounds[precision.upper()] = bound
    return bounds


@click.command("compare", cls=Stage)
@click.argument("models", metavar="REFERENCE CANDIDATE...", nargs=-1, required=True)
@data_options(images=32, batch=8)
@click.option(
    "--json",
    "json_path",
    type=OUTPUT,
    help="Write everything to this file; - prints it in place of the table.",
)
@click.option(
    "--html",
    "html_path",
    type=OUTPUT,
    help="Write a page to look at: plots, the worst layers, changed answers; one file.",
)
@click.option("--floor-db", type=float, help="Fail when a tensor's inherited SQNR is below.")
@click.option(
    "--bound",
    "excess_db",
    metavar="PRECISION=DB",
    multiple=True,
    callback=_bounds_by_precision,
    help="By how much a layer's own error may exceed what its precision and scales explain; "
    "INT8=6, FP16=12 and FP32=20 if not said.",
)
@click.option(
    "--top", type=click.IntRange(min=0), default=10, show_default=True, help="Rows to print."
)
@click.option(
    "--own/--no-own",
    default=True,
    show_default=True,
    help="Also run each layer of a candidate on the reference's tensors.",
)
@click.option("--until-first", is_flag=True, help="Stop at the first layer at fault.")
def command(models: tuple[str, ...], request: ImageRequest, top: int, **given: Any) -> None:
    """Compare two models layer by layer.

    A model is FILE.onnx, torch:DEPTH, torch:WEIGHTS, trt-network:FILE.onnx, or FILE.engine (on
    a GPU). With several candidates each is compared with the model before it.

    A tensor's inherited error is what the candidate makes of the image up to there; its own
    error is what its layer makes of the reference's tensors. Exit code 7 when a layer does
    worse than its precision and scales explain.
    """
    if len(models) < 2:
        raise InputError(
            f"one model ({models[0]}) cannot be compared", hint="give REFERENCE and CANDIDATE"
        )
    report = _compare(models, request, given)
    json_path: Path | None = given["json_path"]
    if json_path == Path("-"):
        from deploy.comparison.output.layers_json import report_to_json

        click.echo(json.dumps(report_to_json(report), indent=2, ensure_ascii=False))
    else:
        from deploy.comparison.output.layer_table import report_text
        from deploy.comparison.output.layers_json import write_report

        if json_path is not None:
            write_report(report, json_path)
        click.echo(report_text(report, top=top))
    if given["html_path"] is not None:
        from deploy.report_page.page import write_html

        write_html(report, given["html_path"], request, _folder(models[-1]))
    if not report.holds:
        from deploy.comparison.output.fault import fault_of

        raise fault_of(report)


def _compare(models: tuple[str, ...], request: ImageRequest, given: Mapping[str, Any]) -> Report:
    try:
        from deploy.comparison.run import CompareOptions, compare_models
    except ImportError as err:
        raise MissingBackendError(
            f"comparing needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    if given["until_first"] and not given["own"]:
        raise InputError(
            "--until-first with --no-own",
            hint="a layer is at fault by its own error: drop one",
        )
    bounds = Bounds(excess_db=given["excess_db"], floor_db=given["floor_db"])
    options = CompareOptions(given["own"], given["until_first"], bounds)
    with progress_bar("compare") as bar:
        # Libraries and graphs are no garbage, and to look through them over and over costs a
        # twentieth of the time.
        gc.freeze()
        gc.set_threshold(_RARELY)
        return compare_models(models, request, options, progress=bar)


def _folder(model: str) -> Path:
    """Return where a model lies: its accuracy and its engine lie there too."""
    prefix, _, file = model.partition(":")
    return Path(file if prefix in {"torch", "trt-network"} else model).parent
