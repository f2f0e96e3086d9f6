"""Fold a BatchNormalization into the Conv before it.

before:  x → Conv(W, b) → BatchNormalization(γ, β, μ, σ²) → y
after:   x → Conv(W', b') → y

Per output channel, with s = γ / √(σ² + ε)::

    γ · (W∗x + b − μ) / √(σ² + ε) + β  =  (s·W)∗x  +  (s·(b − μ) + β)

W' and b' are computed in float64 and rounded once. Where the pair becomes one node, the
tensor that survives is y, so it keeps its name; the node keeps the Conv's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
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

__all__ = ["fold_batchnorm"]

_EPSILON = 1e-5  # the attribute's default. Source: ONNX BatchNormalization, opset 15


@dataclass(frozen=True, slots=True)
class _Pair:
    """A Conv and the BatchNormalization that alone reads it, with their constants."""

    conv: ir.Node
    norm: ir.Node
    weight: Array  # (M, C/group, kH, kW)
    bias: Array  # (M,), as the next four
    gamma: Array
    beta: Array
    mean: Array
    variance: Array


def fold_batchnorm(model: ir.Model) -> PassResult:
    """Fold every BatchNormalization that reads a Conv of its own."""
    done: list[str] = []
    left: list[str] = []
    for node in tuple(model.graph):
        if not is_op(node, "BatchNormalization"):
            continue
        pair = _match(node)
        why = pair if isinstance(pair, str) else _fold(pair)
        if why is None:
            done.append(str(node.name))
        else:
            left.append(f"{node.name} ({why})")
    return outcome(
        "fold_batchnorm", model, what="BatchNormalization into Conv", done=done, left=left
    )


def _match(norm: ir.Node) -> _Pair | str:
    """Return the pair that ``norm`` ends, or why it ends none."""
    source = norm.inputs[0]
    conv = None if source is None else source.producer()
    if source is None or conv is None:
        return "its input is a graph input"
    if not is_op(conv, "Conv"):
        return f"its input comes from {conv.op_type} {conv.name!r}, not from a Conv"
    if sole_consumer(source) is not norm:
        return f"{source.name!r} is read by others too"
    if norm.attributes.get_int("training_mode", 0) or any(
        value.uses() or value.is_graph_output() for value in norm.outputs[1:]
    ):
        return "it is in training mode"
    weight = constant(conv.inputs[1])
    factors = [constant(value) for value in norm.inputs[1:5]]
    known = [array for array in (weight, *factors) if array is not None]
    has_bias = len(conv.inputs) > 2 and conv.inputs[2] is not None
    bias = constant(conv.inputs[2]) if has_bias else np.zeros_like(known[-1] if known else 0)
    if weight is None or bias is None or len(known) < 5:
        return "its weights or the Conv's are not constant"
    if len({array.dtype for array in (bias, *known)}) != 1:
        return "its weights and the Conv's differ in type"
    return _Pair(conv, norm, weight, bias, *known[1:])


def _fold(pair: _Pair) -> str | None:
    """Make one Conv of the pair; return why not when a value would not be finite."""
    bias, gamma, beta, mean, variance = (
        array.astype(np.float64)
        for array in (pair.bias, pair.gamma, pair.beta, pair.mean, pair.variance)
    )
    epsilon = pair.norm.attributes.get_float("epsilon", _EPSILON)
    dtype = pair.weight.dtype
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + epsilon)
        # Axis 0 of a Conv's weight is the output channel, grouped or not.
        along = scale.reshape(-1, *[1] * (pair.weight.ndim - 1))
        weight = (pair.weight.astype(np.float64) * along).astype(dtype)
        bias = (scale * (bias - mean) + beta).astype(dtype)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        return f"a folded weight is not finite in {dtype}"
    replace_constant(pair.conv, 1, weight, f"{pair.conv.name}.weight")
    replace_constant(pair.conv, 2, bias, f"{pair.conv.name}.bias")
    take_over(pair.conv.outputs[0], pair.norm.outputs[0])
    return None
