"""From a float graph, a plan and a calibration table to the INT8 graph.

Where the table moves tensors by constants (full-range INT8), the float graph is rewritten
first; each bias then makes up for what its quantized weights, not the float ones, make of
the constant, so that it cancels in what is really computed. Where it divides channels
(equalization), that comes before: constants and amaxes are of what is left. Last, biases can
take up the mean of what rounding adds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx
import onnx_ir as ir

from core.errors import GraphError
from core.int8 import Int8Array
from exporter.calibration.counts.channels import ChannelCounts
from exporter.quantization.channel_classes import find_channel_classes
from exporter.quantization.channel_steps import Steps, factors_of
from exporter.quantization.equalize import require_consistent
from exporter.quantization.held_names import EQUALIZED, SHIFTED
from exporter.quantization.placement import named_graph
from exporter.quantization.plan import QuantizationPlan
from exporter.quantization.qdq import insert_into
from exporter.quantization.rounding.channel_means import ChannelMeans, channel_means
from exporter.quantization.rounding.codes import WeightCodes
from exporter.quantization.rounding.correct_bias import correct_biases
from exporter.quantization.rounding.scales import graph_scale
from exporter.quantization.scale_channels import scale_channels
from exporter.quantization.shift import shift_tensors
from exporter.quantization.shifts import find_shifts
from exporter.quantization.table import CalibrationTable

__all__ = ["Quantized", "equalized_graph", "movable_classes", "quantize_graph"]


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """An INT8 graph.

    Attributes:
        model: With Q/DQ pairs and INT8 weights; all else float32.
        shifts: Tensor T → constant c of each that the graph holds as ``T.shifted`` = T − c.
        equalized: Tensor T → k of each channel: held as ``T.equalized`` = T / 2^(k/8), and with
            a constant as ``T.equalized.shifted`` = T / 2^(k/8) − c.
        corrected: Nodes whose biases make up for the mean of their rounding.
    """

    model: onnx.ModelProto
    shifts: Mapping[str, float] = field(default_factory=dict)
    equalized: Mapping[str, Steps] = field(default_factory=dict)
    corrected: tuple[str, ...] = ()


def movable_classes(
    model: onnx.ModelProto, *, borders: bool = False
) -> tuple[tuple[str, ...], ...]:
    """Return the tensors of a float graph that full-range INT8 can move, class by class.

    Args:
        model: The float graph.
        borders: Also those that cost an addition behind a zero-padded Conv.
    """
    return find_shifts(named_graph(model).graph, borders=borders).classes


def equalized_graph(model: onnx.ModelProto, table: CalibrationTable) -> ir.Model:
    """Return a copy of a float graph, its channels divided as a table says.

    Args:
        model: The graph that the table is of; untouched.
        table: Its factors count.

    Raises:
        GraphError: They do not fit the graph.
    """
    edited = named_graph(copy.deepcopy(model))  # editing writes to the tensors it wraps
    if not table.equalized:
        return edited
    try:
        require_consistent(find_channel_classes(edited.graph), table.equalized)
    except ValueError as err:
        raise GraphError(
            f"the calibration table divides channels that cannot be: {err}",
            hint="remove `equalized` from the table, or make the table again",
        ) from err
    factors = {name: factors_of(own) for name, own in table.equalized.items()}
    scale_channels(edited.graph, factors)
    return edited


def quantize_graph(
    model: onnx.ModelProto,
    plan: QuantizationPlan,
    table: CalibrationTable,
    *,
    half: bool = False,
    channels: Mapping[str, ChannelCounts] | None = None,
    codes: Mapping[str, Int8Array] | None = None,
) -> Quantized:
    """Return the INT8 graph.

    Args:
        model: The float32 graph that plan and table are of; untouched.
        plan: Which tensors, read by which nodes.
        table: Their amaxes and constants.
        half: Take scales that float16 holds too.
        channels: What the channels of its tensors held, to correct biases by, of all layers
            but those that read the images; None for the biases as they are.
        codes: Weight → its codes, where they are not the nearest ones.

    Raises:
        GraphError: Plan or table do not fit the graph.
    """
    chosen = {name: choice.shift for name, choice in table.tensors.items() if choice.shift}
    amaxes = {name: choice.amax for name, choice in table.tensors.items()}
    edited = equalized_graph(model, table)
    weights = WeightCodes(plan, half=half, given=codes)
    divided = {name: f"{name}{EQUALIZED}" for name in table.equalized}
    moved = _move(edited.graph, {divided.get(n, n): c for n, c in chosen.items()}, weights)
    own = {name: original for original, name in divided.items()}
    corrected: tuple[str, ...] = ()
    if channels is not None:
        constants = {own.get(name, name): constant for name, constant in moved.items()}
        # Pixels have 256 values, which no evenly filled cell stands for.
        images = {str(value.name) for value in edited.graph.inputs}
        inner = {name: counts for name, counts in channels.items() if name not in images}
        means = _means(plan, table, inner, constants, half=half)
        corrected = correct_biases(edited.graph, means, weights.as_computed)
    names = divided | {own.get(name, name): f"{name}{SHIFTED}" for name in moved}
    activations = tuple(
        replace(a, tensor=names.get(a.tensor, a.tensor), scale=names.get(a.scale, a.scale))
        for a in plan.activations
    )
    renamed = {names.get(name, name): amax for name, amax in amaxes.items()}
    return Quantized(
        insert_into(
            edited, replace(plan, activations=activations), renamed, half=half, codes=weights
        ),
        {own.get(name, name): constant for name, constant in moved.items()},
        table.equalized,
        corrected,
    )


def _means(
    plan: QuantizationPlan,
    table: CalibrationTable,
    channels: Mapping[str, ChannelCounts],
    constants: Mapping[str, float],
    *,
    half: bool,
) -> dict[str, ChannelMeans]:
    """Return, of each node that reads codes, the means of what it reads."""
    found: dict[str, ChannelMeans] = {}
    for activation in plan.activations:
        name = activation.tensor
        counts, steps = channels.get(name), table.equalized.get(name)
        if counts is None or not len(counts):
            continue
        scale = float(graph_scale(table.tensors[name].amax, name, half=half))
        factors = None if steps is None else factors_of(steps)
        means = channel_means(counts, factors, scale, constants.get(name, 0.0))
        found |= dict.fromkeys(activation.readers, means)
    return found


def _move(graph: ir.Graph, chosen: Mapping[str, float], weights: WeightCodes) -> dict[str, float]:
    """Move tensors by constants; return those of all that moved."""
    if not chosen:
        return {}
    try:
        shifts = find_shifts(graph, borders=True).constants(chosen)
    except ValueError as err:
        raise GraphError(
            f"the calibration table moves what cannot be moved: {err}",
            hint="remove that shift from the table, or make the table again",
        ) from err
    shift_tensors(graph, shifts, weights=weights.as_computed)
    return shifts
