"""Which calibration table an INT8 graph is made by: a given one, a method's, or the best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from core.artifacts import sha256_file
from core.errors import InputError
from core.progress import Progress, silent

if TYPE_CHECKING:
    import onnx

    from exporter.calibration_table import CalibrationTable
    from exporter.plan import QuantizationPlan

__all__ = ["AUTO", "Chosen", "TableRequest", "choose_table"]

AUTO = "auto"
_HELD_OUT = 32  # images that auto tries its candidates on


@dataclass(frozen=True, slots=True)
class TableRequest:
    """What a user said of the amaxes.

    Attributes:
        statistics: ``statistics.npz``.
        method: ``auto``, or one of :class:`~exporter.thresholds.Method`.
        full_range: Where to move tensors by constants, one of ``auto.REACHES``; None
            leaves it to ``auto``, and is ``off`` for a named method.
        data: Where ``auto`` finds images to try on; None for no trial.
        table: A calibration table to take as it is, in place of all that.
        half: The graph's scales are float16.
    """

    statistics: Path
    method: str = AUTO
    full_range: str | None = None
    data: str | None = None
    table: Path | None = None
    half: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """The table, and what ``auto`` measured: candidate → median output SQNR in dB."""

    table: CalibrationTable
    tried: Mapping[str, float] = field(default_factory=dict)


def choose_table(
    graph: onnx.ModelProto,
    model: Path,
    plan: QuantizationPlan,
    request: TableRequest,
    progress: Progress = silent,
) -> Chosen:
    """Return the table of a plan, made for this very model.

    Args:
        graph: The float graph.
        model: Its file.
        plan: What is to be quantized.
        request: How amax is to be chosen.
        progress: Told of each candidate of ``auto``.

    Raises:
        CalibrationError: No scale can be taken of a tensor.
        InputError: Statistics or table of another model, or without a tensor of the plan;
            no such method or data.
    """
    from exporter.calibration_table import CalibrationTable

    if request.table is not None:
        chosen = Chosen(CalibrationTable.read(request.table))
    else:
        chosen = _from_statistics(graph, plan, request, progress)
    path, table, actual = request.table or request.statistics, chosen.table, sha256_file(model)
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
    return chosen


def _from_statistics(
    graph: onnx.ModelProto, plan: QuantizationPlan, request: TableRequest, progress: Progress
) -> Chosen:
    from exporter.auto import choose_best
    from exporter.calibration_table import choose_amaxes
    from exporter.onnx_file import card_of
    from exporter.quantize import movable_classes
    from exporter.statistics import read_statistics
    from exporter.thresholds import Method

    statistics, half = request.statistics, request.half
    classes = {
        "off": (),
        "on": movable_classes(graph),
        "all": movable_classes(graph, borders=True),
    }

    def make(method: str, reach: str) -> CalibrationTable:
        return choose_amaxes(plan, statistics, Method.parse(method), classes[reach], half=half)

    if request.method != AUTO:
        return Chosen(make(request.method, request.full_range or "off"))
    if request.data is None:
        return Chosen(make("mse", request.full_range or "on"))
    from deploy.held_out import held_out_batches

    seen = read_statistics(statistics)
    spec = card_of(graph, where=str(statistics)).preprocess
    images = held_out_batches(
        request.data, spec, [image.digest for image in seen.images], count=_HELD_OUT
    )
    name = graph.graph.input[0].name
    best = choose_best(
        graph, plan, make, [{name: batch} for batch in images], request.full_range, progress
    )
    return Chosen(best.table, best.sqnr_db)
