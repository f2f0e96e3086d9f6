"""Fold constant factors and terms behind a Conv into it.

before:  x → Conv(W, b) → Mul(k) or Div(k) or Add(t) or Sub(t) → y
after:   x → Conv(W', b') → y

k and t are one number, or one for each output channel (shape (C, 1, 1) and the like)::

    k · (W∗x + b)  =  (k·W)∗x + k·b          (W∗x + b) / k  =  (W/k)∗x + b/k
    (W∗x + b) ± t  =  W∗x + (b ± t)

Caffe's Scale layer is written so, and the affine part of a normalization whose mean and
variance were folded. W' and b' are computed in float64 and rounded once. The tensor that
survives is y, so it keeps its name; the node keeps the Conv's.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporter.passes.base import (
    Array,
    PassResult,
    constant,
    is_op,
    outcome,
    replace_constant,
    sole_consumer,
    take_over,
)

__all__ = ["fold_scale"]

_Floats = npt.NDArray[np.float64]


def fold_scale(model: ir.Model) -> PassResult:
    """Fold every such node whose Conv nothing else reads."""
    done: list[str] = []
    left: list[str] = []
    for node in tuple(model.graph):
        if not is_op(node, "Mul", "Div", "Add", "Sub"):
            continue
        conv = _conv_before(node)
        if conv is None:
            continue
        why = _fold(conv, node)
        if why is None:
            done.append(str(node.name))
        else:
            left.append(f"{node.name} ({why})")
    return outcome("fold_scale", model, what="constants into Conv", done=done, left=left)


def _conv_before(node: ir.Node) -> ir.Node | None:
    """Return the Conv whose result meets a constant in ``node``."""
    for value, other in (node.inputs, node.inputs[::-1]):
        conv = None if value is None else value.producer()
        if conv is not None and is_op(conv, "Conv") and constant(other) is not None:
            return conv
    return None


def _fold(conv: ir.Node, node: ir.Node) -> str | None:
    """Fold ``node`` into ``conv``, or say why not."""
    if sole_consumer(conv.outputs[0]) is not node:
        return f"{conv.outputs[0].name!r} is read by others too"
    reversed_ = node.inputs[0] is not conv.outputs[0]
    if reversed_ and is_op(node, "Div", "Sub"):
        return "the Conv's result is what it divides by or subtracts"
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    weight, bias = constant(conv.inputs[1]), constant(conv.inputs[2]) if has_bias else None
    if weight is None or (has_bias and bias is None):
        return "the Conv's weights are not constant"
    number = constant(node.inputs[0 if reversed_ else 1])
    along = None if number is None else _by_channel(number, weight)
    if along is None:
        return "it is not one number, nor one for each channel"
    before = np.zeros(len(weight)) if bias is None else bias.astype(np.float64)
    new_weight, new_bias = _folded(node.op_type, weight, before, along)
    if not (np.isfinite(new_weight).all() and np.isfinite(new_bias).all()):
        return f"a folded weight is not finite in {weight.dtype}"
    if new_weight is not weight:
        replace_constant(conv, 1, new_weight, f"{conv.name}.weight")
    replace_constant(conv, 2, new_bias, f"{conv.name}.bias")
    take_over(conv.outputs[0], node.outputs[0])
    return None


def _by_channel(number: Array, weight: Array) -> _Floats | None:
    """Return one number for each output channel, (C,); None for another shape or type."""
    if number.dtype != weight.dtype or number.ndim > weight.ndim:
        return None
    shape = (1,) * (weight.ndim - number.ndim) + number.shape
    if shape[:1] + shape[2:] != (1,) * (weight.ndim - 1) or shape[1] not in (1, len(weight)):
        return None
    return np.broadcast_to(number.astype(np.float64).ravel(), (len(weight),))


def _folded(op: str, weight: Array, bias: _Floats, number: _Floats) -> tuple[Array, Array]:
    """Return W' and b' in the type of W; the very same W where it does not change."""
    with np.errstate(all="ignore"):
        if op in ("Add", "Sub"):
            return weight, (bias + number if op == "Add" else bias - number).astype(weight.dtype)
        factor = number if op == "Mul" else 1.0 / number
        # Axis 0 of a Conv's weight is the output channel, grouped or not.
        rows = factor.reshape(-1, *[1] * (weight.ndim - 1))
        scaled = (weight.astype(np.float64) * rows).astype(weight.dtype)
        return scaled, (bias * factor).astype(weight.dtype)
