"""``strata quantize``: an INT8 or FP16 graph from a float one."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.artifacts import sha256_file
from core.errors import MissingBackendError
from core.outputs import require_outputs
from deploy.calibrated import AUTO, Chosen, TableRequest, choose_table
from deploy.cli.layer_options import LayerRequest, layer_options
from deploy.cli.progress import progress_bar
from deploy.cli.stage import OUTPUT, Stage
from deploy.cli.warnings import shown

if TYPE_CHECKING:
    import onnx

__all__ = ["command"]

_WORST = 3  # tensors that the summary names


@click.command("quantize", cls=Stage)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    help="The ONNX file to write.  [default: int8.onnx or fp16.onnx beside MODEL]",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="int8: Q/DQ and INT8 weights; fp16: everything in float16.",
)
@click.option(
    "--float",
    "rest",
    type=click.Choice(["fp32", "fp16"]),
    default="fp32",
    show_default=True,
    help="What is not INT8 in an INT8 graph.",
)
@click.option(
    "--statistics",
    type=click.Path(path_type=Path),
    help="What strata calibrate wrote.  [default: statistics.npz beside MODEL]",
)
@click.option(
    "--method",
    default=AUTO,
    show_default=True,
    help="How amax is chosen: max, percentile[:99.99], mse, entropy, or auto: the best of "
    "them on held-out images of --data.",
)
@click.option(
    "--full-range",
    type=click.Choice(["off", "on", "all"]),
    help="Move tensors by constants, so that all 256 codes are used: on where it costs nothing, "
    "all also where it costs an addition behind a padded convolution.  [default: off; with "
    "auto, what is best]",
)
@click.option(
    "--equalize",
    type=click.FloatRange(0, 1),
    help="Make channels alike before quantizing, from 0 (not at all) to 1 (equal ranges); "
    "weights take it back.  [default: 0; with auto, what is best]",
)
@click.option(
    "--balance/--no-balance",
    default=None,
    help="With --equalize: let the tensors of a residual stream, which share their factors, reach "
    "as far as leaves least noise, not all equally far.  [default: no; with auto, what is best]",
)
@click.option(
    "--correct-biases/--no-correct-biases",
    "biases",
    default=None,
    help="Let biases take up the mean of what rounding adds, by the statistics.  [default: no; "
    "with auto, what is best]",
)
@click.option(
    "--compensate-weights/--no-compensate-weights",
    "compensate",
    default=None,
    help="Round the weights of a layer together, so that their errors make up for one another, by "
    "what it reads on images of --data.  [default: no; with auto and --data, what is best]",
)
@click.option(
    "--data",
    help="Images that auto tries on, other ones than those calibrated with, and that weights are "
    "rounded by.  [default: none: auto goes by the statistics alone]",
)
@click.option(
    "--table",
    type=click.Path(path_type=Path),
    help="A calibration.json to take the amaxes from, in place of statistics and method.",
)
@layer_options
@click.option("--print-plan", is_flag=True, help="Print what would be quantized, and stop.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    model: Path,
    output: Path | None,
    precision: str,
    rest: str,
    statistics: Path | None,
    layers: LayerRequest,
    print_plan: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Insert Q/DQ nodes, or convert to FP16, by the statistics.

    MODEL is the float graph that strata calibrate ran. Writes calibration.json beside the
    output: each tensor's amax, how it was chosen, the share clipped and the SQNR to expect.
    """
    try:
        from exporter.onnx_file import load
    except ImportError as err:
        raise MissingBackendError(
            f"quantizing needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err

    target = output or model.with_name(f"{precision}.onnx")
    require_outputs([target], [model])
    graph = load(model)
    if print_plan:
        click.echo(str(layers.plan_for(graph)))
        return
    if precision == "fp16":
        facts = _fp16(graph, model, target)
    else:
        request = TableRequest(
            statistics or model.with_name("statistics.npz"), half=rest == "fp16", **how
        )
        facts = _int8(graph, model, target, layers, request)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else shown(_text(facts)))


def _fp16(graph: onnx.ModelProto, model: Path, target: Path) -> dict[str, Any]:
    """Convert, write, and return what there is to say."""
    from exporter.onnx_file import card_of, save
    from exporter.precision import to_float16

    half = to_float16(graph)
    card = card_of(graph, where=str(model))
    save(half, target, replace(card, stage="fp16", parents={"model": sha256_file(model)}))
    return _file_facts(target) | {"precision": "fp16"}


def _int8(
    graph: onnx.ModelProto,
    model: Path,
    target: Path,
    layers: LayerRequest,
    request: TableRequest,
) -> dict[str, Any]:
    """Plan, choose, insert, write both files, and return what there is to say."""
    from exporter.onnx_file import card_of, save
    from exporter.precision import require_float16_range, to_float16
    from exporter.quantize import quantize_graph

    plan, half = layers.plan_for(graph), request.half
    with progress_bar("try") as bar:
        choice = choose_table(graph, model, plan, request, bar)
    chosen = choice.table
    amaxes = {name: choice.amax for name, choice in chosen.tensors.items()}
    if half:
        require_float16_range(amaxes)
    quantized = quantize_graph(
        graph, plan, chosen, half=half, channels=choice.channels, codes=choice.codes
    )
    int8 = to_float16(quantized.model) if half else quantized.model
    written = target.with_name("calibration.json")
    if request.table is None or written.resolve() != request.table.resolve():
        chosen.write(written)
    card = replace(
        card_of(graph, where=str(model)),
        stage="int8",
        parents={
            "model": chosen.model,
            "statistics": chosen.statistics,
            "calibration": sha256_file(written),
        },
        shifts=quantized.shifts,
        equalized=quantized.equalized,
        synthetic=chosen.look.synthetic,
        caveats=chosen.look.warnings,
    )
    save(int8, target, card)
    facts = _file_facts(target) | _table_facts(choice)
    return facts | {
        "float": "fp16" if half else "fp32",
        "calibration": str(written),
        "shifted": len(quantized.shifts),
        "equalized": len(quantized.equalized),
        "corrected": len(quantized.corrected),
        "compensated": len(choice.codes),
        "layers": sum(len(weight.readers) for weight in plan.weights),
        "left": dict(plan.left),
    }


def _table_facts(choice: Chosen) -> dict[str, Any]:
    """Return what there is to say of how the tensors are quantized."""
    chosen = choice.table
    return {
        "precision": "int8",
        "method": chosen.method,
        "images": chosen.images,
        "tried": dict(choice.tried),
        "tensors": {
            name: {
                "amax": choice.amax,
                "clipped": choice.clipped,
                "sqnr_db": choice.sqnr_db if math.isfinite(choice.sqnr_db) else None,
            }
            for name, choice in chosen.tensors.items()
        },
    }


def _file_facts(path: Path) -> dict[str, Any]:
    return {"file": str(path), "bytes": path.stat().st_size, "sha256": sha256_file(path)}


def _text(facts: dict[str, Any]) -> str:
    head = f"{facts['file']}  {facts['bytes'] / 1e6:.1f} MB, {facts['precision'].upper()}"
    if facts["precision"] == "fp16":
        return head
    tensors = facts["tensors"]
    rated = sorted((t["sqnr_db"], name) for name, t in tensors.items() if t["sqnr_db"] is not None)
    worst = ", ".join(f"{name} {sqnr:.1f}" for sqnr, name in rated[:_WORST])
    left = ", ".join(f"{node} ({why})" for node, why in facts["left"].items()) or "none"
    rows = [
        ("layers", f"{facts['layers']} in INT8, the rest {facts['float'].upper()}; left: {left}"),
        ("tensors", f"{len(tensors)} quantized by {facts['method']} over {facts['images']} images"),
        *_trials(facts),
        ("SQNR", f"expected dB, lowest first: {worst}"),
        ("wrote", f"{facts['calibration']}"),
    ]
    return "\n".join([head, *(f"  {key:<7} {text}" for key, text in rows)])


def _trials(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a row for each recipe that was tried; the one taken is pointed at."""
    taken = facts["method"].removeprefix("auto: ")
    rows = [
        f"{decibels:5.1f} dB  {recipe}{'  <- taken' if recipe == taken else ''}"
        for recipe, decibels in facts["tried"].items()
    ]
    return list(zip(["tried", *[""] * len(rows)], rows, strict=False))
