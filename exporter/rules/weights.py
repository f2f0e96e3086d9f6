"""Rules of the weights: along which axis, with how many scales, over which range."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from core.int8 import QMAX
from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.quantizer import Quantizer, is_dq, is_q
from exporter.rules.view import Layer, View

__all__ = ["RULES"]

_CHANNELS = "quantize weights per output channel; strata quantize does"
_HALF = 64  # codes: below, one of the eight bits is never used
_TWICE = 2.0 * QMAX  # codes: no choice of scale that minimizes an error clips this much


@rule("weight-axis", Severity.ERROR, way_out=_CHANNELS)
def weight_axis(view: View) -> Iterator[Fault]:
    """Scales of a weight lie along its output channels.

    Axis 0 of a Conv's weight and of Gemm(transB=1); axis 1 of a plain Gemm and of MatMul.
    Along another axis TensorRT dequantizes first and computes the layer in float. Source:
    NVIDIA, TensorRT documentation, "Explicit quantization"; tried on tensorrt-rtx 1.7.1.
    """
    for layer, weight in _weights(view):
        rank = len(view.graph.shape(weight.codes) or ())
        expected = _axis(layer, rank)
        if weight.per_tensor or not rank or expected is None:
            continue
        axis = weight.axis
        if not -rank <= axis < rank:
            yield Fault(
                weight.node, weight.stored, f"scales along axis {axis} of a rank-{rank} weight"
            )
        elif axis % rank != expected:
            said = f"scales along axis {axis}; output channels lie on axis {expected}"
            yield Fault(weight.node, weight.stored, said)


@rule("scale-count", Severity.ERROR, way_out=_CHANNELS)
def scale_count(view: View) -> Iterator[Fault]:
    """There are as many scales as channels, or one.

    TensorRT refuses the file otherwise ("the number of scales is not equal to the number of
    output channels"). Source: ONNX DequantizeLinear; tried on tensorrt-rtx 1.7.1.
    """
    for q in view.quantizers.values():
        shape = view.graph.shape(q.codes) or view.graph.shape(q.data) or ()
        if q.scale is None or q.per_tensor or q.scale.ndim != 1 or q.follows:
            continue
        size = shape[q.axis] if -len(shape) <= q.axis < len(shape) else None
        if size is not None and size != q.scale.size:
            said = f"{q.scale.size} scales for {size} channels along axis {q.axis}"
            yield Fault(q.node, q.stored if is_dq(q.node) else q.data, said)


@rule("weight-per-tensor", Severity.WARNING, way_out=_CHANNELS)
def weight_per_tensor(view: View) -> Iterator[Fault]:
    """A weight has one scale for each output channel.

    One scale for all wastes most codes of the channels with small weights. Source: NVIDIA,
    TensorRT documentation, "Explicit quantization"; Wu et al. 2020, arXiv 2004.09602.
    """
    for layer, weight in _weights(view):
        shape = view.graph.shape(weight.codes) or ()
        axis = _axis(layer, len(shape))
        channels = shape[axis] if axis is not None and axis < len(shape) else None
        if weight.scale is not None and weight.per_tensor and channels not in (None, 1):
            yield Fault(weight.node, weight.stored, f"1 scale for {channels} output channels")


@rule(
    "weight-range",
    Severity.WARNING,
    way_out="take the scales from the weights as they are now (BatchNormalization folded): "
    "the largest magnitude of each channel / 127",
)
def weight_range(view: View) -> Iterator[Fault]:
    """The largest weight of a channel is about code 127.

    Scales that were taken before BatchNormalization was folded, or from another checkpoint,
    leave codes unused or clip weights; both cost accuracy and nothing else shows it. Source:
    arithmetic; NVIDIA, TensorRT documentation, "Explicit quantization" (fold first).
    """
    for _, weight in _weights(view):
        largest = _largest_codes(view, weight)
        low = largest[(largest > 0) & (largest < _HALF)]
        high = largest[largest > _TWICE]
        channels = f" in {max(low.size, high.size)} of {largest.size} channels"
        where = channels if largest.size > 1 else ""
        if high.size:
            said = f"weights up to {high.max():.0f} steps are clipped at {QMAX}{where}"
            yield Fault(weight.node, weight.stored, said)
        elif low.size:
            said = f"the largest code is {low.min():.0f} of {QMAX}{where}"
            yield Fault(weight.node, weight.stored, said)


RULES: tuple[Rule, ...] = (weight_axis, scale_count, weight_per_tensor, weight_range)


def _weights(view: View) -> Iterator[tuple[Layer, Quantizer]]:
    """Yield each quantized weight once, with the first layer that reads it."""
    seen = set()
    for layer in view.layers.values():
        if layer.weight is not None and layer.weight.node not in seen:
            seen.add(layer.weight.node)
            yield layer, layer.weight


def _axis(layer: Layer, rank: int) -> int | None:
    """Return the output-channel axis of the codes; None when it cannot be told."""
    node = layer.node
    if node.is_op("Conv"):
        axis = 0
    elif node.is_op("Gemm"):
        axis = 0 if node.integer("transB", 0) else 1
    else:
        axis = rank - 1
    for moved in reversed(layer.between):
        if moved.is_op("Transpose"):
            order = moved.integers("perm") or tuple(reversed(range(rank)))
            if sorted(order) != list(range(rank)) or not 0 <= axis < rank:
                return None
            axis = order[axis]
        elif not moved.is_op("Cast", "Identity", "Dropout"):
            return None
    return axis


def _largest_codes(view: View, weight: Quantizer) -> npt.NDArray[np.float64]:
    """Return the magnitude of the largest weight in steps, before clipping, of each channel.

    0 for a channel of zeros; nothing when codes or scales cannot be read.
    """
    nothing = np.zeros(0)
    scale = weight.scale
    maker = view.graph.maker(weight.codes)
    array = view.graph.constant(weight.stored)
    if array is None or scale is None or array.size == 0 or weight.code_type != "int8":
        return nothing
    if array.dtype != np.int8 and not is_q(maker):
        return nothing  # the file contradicts itself
    if not weight.per_tensor:
        if scale.ndim != 1 or not -array.ndim <= weight.axis < array.ndim:
            return nothing
        array = np.moveaxis(array, weight.axis, 0)
        if len(array) != scale.size:
            return nothing
    rows = array.reshape(scale.size, -1)
    high, low = (f(axis=1).astype(np.float64) for f in (rows.max, rows.min))
    largest = np.maximum(high, -low)
    steps = scale.astype(np.float64).reshape(-1)
    if not is_q(maker):
        # A scale that its type can hardly tell from 0 says nothing of the weights.
        usable = steps > (2.0**-20 if scale.dtype == np.float16 else 2.0**-126)
        return np.where(usable, largest, 0.0)
    usable = np.isfinite(steps) & (steps > 0) & np.isfinite(largest)
    return np.where(usable, largest, 0.0) / np.where(usable, steps, 1.0)
