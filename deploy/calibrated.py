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

    from exporter.calibration.channels import ChannelCounts
    from exporter.quantization.activity import Activity
    from exporter.quantization.plan import QuantizationPlan
    from exporter.quantization.table import CalibrationTable

__all__ = ["AUTO", "Chosen", "TableRequest", "choose_table"]

AUTO = "auto"
_HELD_OUT = 96  # images that auto tries its candidates on


@dataclass(frozen=True, slots=True)
class TableRequest:
    """What a user said of the amaxes.

    Attributes:
        statistics: ``statistics.npz``.
        method: ``auto``, or one of :class:`~exporter.quantization.thresholds.Method`.
        full_range: Where to move tensors by constants, one of ``recipe.REACHES``; None
            leaves it to ``auto``, and is ``off`` for a named method.
        equalize: How far to make channels alike, 0 to 1; None leaves it to ``auto``, and is 0
            for a named method.
        balance: Whether tensors that share their channels' factors reach as far as leaves least
            noise; None leaves it to ``auto``, and is no for a named method.
        biases: Whether biases take up the mean of what rounding adds; None leaves it to
            ``auto``, and is no for a named method.
        data: Where ``auto`` finds images to try on; None for no trial.
        table: A calibration table to take as it is, in place of all that.
        half: The graph's scales are float16.
    """

    statistics: Path
    method: str = AUTO
    full_range: str | None = None
    equalize: float | None = None
    balance: bool | None = None
    biases: bool | None = None
    data: str | None = None
    table: Path | None = None
    half: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to make the graph by.

    Attributes:
        table: The calibration table.
        channels: What to correct biases by; None for the biases as they are.
        tried: What ``auto`` measured: recipe in words → mean output SQNR in dB.
    """

    table: CalibrationTable
    channels: Mapping[str, ChannelCounts] | None = None
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
    from exporter.quantization.activity import Activity

    if request.table is not None:
        chosen = _from_table(request)
    else:
        activity = Activity.read(request.statistics)
        _require_made_from(request.statistics, activity.statistics.model, model)
        chosen = _from_statistics(graph, plan, activity, request, progress)
    path, table = request.table or request.statistics, chosen.table
    _require_made_from(path, table.model, model)
    missing = [a.tensor for a in plan.activations if a.tensor not in table.tensors]
    if missing:
        raise InputError(
            f"{path}: no amax of {len(missing)} tensors to quantize, such as {missing[0]!r}",
            hint="add them to the table, or leave the layers that read them in float: --exclude",
        )
    return chosen


def _from_table(request: TableRequest) -> Chosen:
    """Return a given table, and where biases are to be corrected the statistics it was made of."""
    from exporter.quantization.activity import Activity
    from exporter.quantization.table import CalibrationTable

    path = request.table or Path()
    table = CalibrationTable.read(path)
    if not request.biases:
        return Chosen(table)
    activity = Activity.read(request.statistics)
    if activity.sha256 != table.statistics:
        raise InputError(
            f"{path}: made from other statistics than {request.statistics}",
            hint="name those with --statistics, or leave the biases: --no-correct-biases",
        )
    return Chosen(table, _channels(activity))


def _channels(activity: Activity) -> Mapping[str, ChannelCounts]:
    """Return what to correct biases by.

    Raises:
        InputError: The file says nothing of channels.
    """
    if not activity.statistics.channels:
        raise InputError(
            f"{activity.where}: these statistics do not tell channels apart",
            hint="collect them again with strata calibrate, or leave the biases: "
            "--no-correct-biases",
        )
    return activity.statistics.channels


def _require_made_from(path: Path, recorded: str, model: Path) -> None:
    actual = sha256_file(model)
    if recorded != actual:
        raise InputError(
            f"{path}: made from another model (sha256 {recorded[:12]}…; {model} is {actual[:12]}…)",
            hint=f"calibrate again: strata calibrate {model}",
        )


def _from_statistics(
    graph: onnx.ModelProto,
    plan: QuantizationPlan,
    activity: Activity,
    request: TableRequest,
    progress: Progress,
) -> Chosen:
    from exporter.onnx_file import card_of
    from exporter.quantization.auto import METHODS, STRENGTHS, Scope, choose_best
    from exporter.quantization.recipe import Recipe, TableMaker

    maker = TableMaker(graph, plan, activity, half=request.half)
    strengths = STRENGTHS if maker.can_equalize else (0.0,)
    if request.equalize is not None:
        strengths = (request.equalize,)
    reaches = ("on", "off") if request.full_range is None else (request.full_range,)
    if request.method != AUTO or request.data is None:
        if request.method != AUTO:
            reach, strength = request.full_range or "off", request.equalize or 0.0
            recipe = Recipe(
                *(request.method, reach, strength, bool(request.biases)),
                balance=bool(request.balance),
            )
        else:  # what mostly wins
            known = maker.can_equalize
            recipe = Recipe(
                *("mse", reaches[0], strengths[-1]),
                biases=known if request.biases is None else request.biases,
                balance=known if request.balance is None else request.balance,
            )
        return Chosen(maker.table(recipe), _channels(activity) if recipe.biases else None)
    from deploy.held_out import held_out_batches

    seen = [image.digest for image in activity.statistics.images]
    spec = card_of(graph, where=str(request.statistics)).preprocess
    images = held_out_batches(request.data, spec, seen, count=_HELD_OUT)
    name = graph.graph.input[0].name
    feeds = [{name: batch} for batch in images]
    biases = (True, False) if request.biases is None else (request.biases,)
    balances = (False, True) if request.balance is None else (request.balance,)
    scope = Scope(strengths, METHODS, reaches, biases, balances)
    channels = _channels(activity) if request.biases else activity.statistics.channels
    best = choose_best(graph, plan, maker.table, feeds, scope, channels=channels, progress=progress)
    return Chosen(best.table, channels if best.recipe.biases else None, best.sqnr_db)
