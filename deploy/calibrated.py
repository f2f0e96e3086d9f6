"""Which calibration table an INT8 graph is made by: a given one, a method's, or the best."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.artifacts import sha256_file
from core.errors import InputError
from core.progress import Progress, silent

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx

    from core.int8 import Int8Array
    from deploy.held_out import TrialImages
    from exporter.calibration.counts.channels import ChannelCounts
    from exporter.quantization.activity import Activity
    from exporter.quantization.auto import MakeCodes
    from exporter.quantization.plan import QuantizationPlan
    from exporter.quantization.recipe import TableMaker
    from exporter.quantization.table import CalibrationTable

    _Image = npt.NDArray[np.float32]

__all__ = ["AUTO", "Chosen", "TableRequest", "choose_table"]

AUTO = "auto"
_HELD_OUT = 96  # images that auto tries its candidates on
_OTHERS = 64  # images that weights are rounded by


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
        compensate: Whether the weights of a layer are rounded together, by images of ``data``;
            None leaves it to ``auto``, and is no for a named method.
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
    compensate: bool | None = None
    data: str | None = None
    table: Path | None = None
    half: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """What to make the graph by.

    Attributes:
        table: The calibration table.
        channels: What to correct biases by; None for the biases as they are.
        codes: Of weights that are rounded together.
        tried: What ``auto`` measured: recipe in words → mean output SQNR in dB.
    """

    table: CalibrationTable
    channels: Mapping[str, ChannelCounts] | None = None
    codes: Mapping[str, Int8Array] = field(default_factory=dict)
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
    if request.compensate and not chosen.codes:
        images = _images(graph, request, (), others=_OTHERS).others
        codes = _codes(graph, plan, images, half=request.half)
        return replace(chosen, codes=codes(table, biases=chosen.channels is not None))
    return chosen


def _images(
    graph: onnx.ModelProto, request: TableRequest, seen: Collection[str], **counts: int
) -> TrialImages:
    """Return images of the request's data."""
    from deploy.held_out import FEWEST, trial_images
    from exporter.onnx_file import card_of

    if request.data is None:
        raise InputError(
            "weights are rounded together by what their layers read, and there are no images",
            hint="name some with --data, or leave it: --no-compensate-weights",
        )
    spec = card_of(graph, where=str(request.statistics)).preprocess
    images = trial_images(request.data, spec, seen, **counts)
    if request.compensate and len(images.others) < FEWEST:
        raise InputError(
            f"{request.data}: only {len(images.others)} images to round weights by",
            hint="name more, or leave it: --no-compensate-weights",
        )
    return images


def _codes(
    graph: onnx.ModelProto, plan: QuantizationPlan, images: Sequence[_Image], *, half: bool
) -> MakeCodes:
    """Return what rounds the weights of a table's graph together."""
    from exporter.quantization.rounding.compensate import compensated_codes
    from exporter.quantize import equalized_graph

    feeds = [{graph.graph.input[0].name: image} for image in images]

    def codes(table: CalibrationTable, *, biases: bool) -> Mapping[str, Int8Array]:
        equalized = equalized_graph(graph, table)
        return compensated_codes(equalized, plan, feeds, half=half, biases=biases)

    return codes


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
    from exporter.quantization.recipe import Recipe, TableMaker

    maker = TableMaker(graph, plan, activity, half=request.half)
    if request.method == AUTO and request.data is not None:
        return _by_trial(graph, plan, activity, maker, request, progress)
    if request.method == AUTO:  # what mostly wins
        known = maker.can_equalize
        strength = _strengths(request, maker)[-1]
        recipe = Recipe("mse", _reaches(request)[0], strength, biases=known, balance=known)
    else:
        recipe = Recipe(request.method, request.full_range or "off", request.equalize or 0.0)
    recipe = replace(
        recipe,
        biases=recipe.biases if request.biases is None else request.biases,
        balance=recipe.balance if request.balance is None else request.balance,
        compensate=bool(request.compensate),
    )
    return Chosen(maker.table(recipe), _channels(activity) if recipe.biases else None)


def _by_trial(
    graph: onnx.ModelProto,
    plan: QuantizationPlan,
    activity: Activity,
    maker: TableMaker,
    request: TableRequest,
    progress: Progress,
) -> Chosen:
    """Return what is best on images that were not calibrated with."""
    from deploy.held_out import FEWEST
    from exporter.quantization.auto import METHODS, Scope, choose_best

    seen = [image.digest for image in activity.statistics.images]
    wanted = 0 if request.compensate is False else _OTHERS
    images = _images(graph, request, seen, held_out=_HELD_OUT, others=wanted)
    scope = Scope(
        _strengths(request, maker),
        METHODS,
        _reaches(request),
        *(
            either if said is None else (said,)
            for either, said in (
                ((True, False), request.biases),
                ((False, True), request.balance),
                ((False, True), request.compensate),
            )
        ),
    )
    codes = _codes(graph, plan, images.others, half=request.half)
    channels = _channels(activity) if request.biases else activity.statistics.channels
    best = choose_best(
        graph,
        plan,
        maker.table,
        [{graph.graph.input[0].name: batch} for batch in images.held_out],
        scope,
        channels=channels,
        make_codes=codes if len(images.others) >= FEWEST else None,
        progress=progress,
    )
    corrected = channels if best.recipe.biases else None
    return Chosen(best.table, corrected, best.codes, best.sqnr_db)


def _strengths(request: TableRequest, maker: TableMaker) -> tuple[float, ...]:
    """Return how far ``auto`` may make channels alike."""
    from exporter.quantization.auto import STRENGTHS

    if request.equalize is not None:
        return (request.equalize,)
    return STRENGTHS if maker.can_equalize else (0.0,)


def _reaches(request: TableRequest) -> tuple[str, ...]:
    """Return where ``auto`` may move tensors by constants."""
    return ("on", "off") if request.full_range is None else (request.full_range,)
