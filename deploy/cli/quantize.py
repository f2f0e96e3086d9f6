"""``strata quantize``: an INT8 or FP16 graph from a float one."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.artifacts import sha256_file
from core.errors import InputError, MissingBackendError
from deploy.cli.layer_options import LayerRequest, layer_options

if TYPE_CHECKING:
    import onnx

    from exporter.calibration_table import CalibrationTable
    from exporter.plan import QuantizationPlan

__all__ = ["command"]

_WORST = 3  # tensors that the summary names


@dataclass(frozen=True, slots=True)
class _Source:
    """Where amax comes from.

    Attributes:
        statistics: ``statistics.npz``.
        method: How to choose from it.
        table: A table to take as it is, in place of both.
    """

    statistics: Path
    method: str
    table: Path | None


@click.command("quantize")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
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
    default="mse",
    show_default=True,
    help="How amax is chosen: max, percentile[:99.99], mse or entropy.",
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
    method: str,
    table: Path | None,
    layers: LayerRequest,
    print_plan: bool,
    as_json: bool,
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

    graph = load(model)
    target = output or model.with_name(f"{precision}.onnx")
    if print_plan:
        click.echo(str(layers.plan_for(graph)))
        return
    if precision == "fp16":
        facts = _fp16(graph, model, target)
    else:
        source = _Source(statistics or model.with_name("statistics.npz"), method, table)
        facts = _int8(graph, model, target, layers, source, half=rest == "fp16")
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _text(facts))


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
    source: _Source,
    *,
    half: bool,
) -> dict[str, Any]:
    """Plan, choose, insert, write both files, and return what there is to say."""
    from exporter.onnx_file import card_of, save
    from exporter.precision import require_float16_range, to_float16
    from exporter.qdq import insert_qdq

    plan = layers.plan_for(graph)
    chosen = _table(plan, model, source)
    amaxes = {name: choice.amax for name, choice in chosen.tensors.items()}
    if half:
        require_float16_range(amaxes)
    quantized = insert_qdq(graph, plan, amaxes, half=half)
    if half:
        quantized = to_float16(quantized)
    written = target.with_name("calibration.json")
    if source.table is None or written.resolve() != source.table.resolve():
        chosen.write(written)
    card = card_of(graph, where=str(model))
    parents = {
        "model": chosen.model,
        "statistics": chosen.statistics,
        "calibration": sha256_file(written),
    }
    save(quantized, target, replace(card, stage="int8", parents=parents))
    return _file_facts(target) | {
        "precision": "int8",
        "float": "fp16" if half else "fp32",
        "calibration": str(written),
        "method": chosen.method,
        "images": chosen.images,
        "layers": sum(len(weight.readers) for weight in plan.weights),
        "left": dict(plan.left),
        "tensors": {
            name: {
                "amax": choice.amax,
                "clipped": choice.clipped,
                "sqnr_db": choice.sqnr_db if math.isfinite(choice.sqnr_db) else None,
            }
            for name, choice in chosen.tensors.items()
        },
    }


def _table(plan: QuantizationPlan, model: Path, source: _Source) -> CalibrationTable:
    """Return the amaxes of a plan, made for this very model."""
    from exporter.calibration_table import CalibrationTable, choose_amaxes
    from exporter.thresholds import Method

    if source.table is None:
        method = Method.parse(source.method)
        path, table = source.statistics, choose_amaxes(plan, source.statistics, method)
    else:
        path, table = source.table, CalibrationTable.read(source.table)
    actual = sha256_file(model)
    if table.model != actual:
        raise InputError(
            f"{path}: made from another model (sha256 {table.model[:12]}…; {model} is "
            f"{actual[:12]}…)",
            hint=f"calibrate again: strata calibrate {model}",
        )
    missing = [a.tensor for a in plan.activations if a.tensor not in table.tensors]
    if missing:
        raise InputError(
            f"{path}: no amax of {len(missing)} tensors to quantize, such as {missing[0]!r}",
            hint="add them to the table, or leave the layers that read them in float: --exclude",
        )
    return table


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
        ("SQNR", f"expected dB, lowest first: {worst}"),
        ("wrote", f"{facts['calibration']}"),
    ]
    return "\n".join([head, *(f"  {key:<7} {text}" for key, text in rows)])
