"""Divide the channels of tensors by factors, without changing a result (equalization).

before:  x → Conv(W, b) → Relu → y → Conv(V, d) → z
after:   x → Conv(W / f, b / f) → Relu → y.equalized → Conv(V · f, d) → z

With y.equalized = y / f, channel by channel::

    max((W∗x + b) / f, 0)  =  max(W∗x + b, 0) / f          (f > 0)
    V∗y + d                =  (V · f)∗(y / f) + d

W and b are divided along their outputs, V is multiplied along its inputs. Whether factors
can pass is :mod:`exporter.quantization.channel_classes`'s to say; this only moves them. A
tensor that was divided gets a name of its own, ``<name>.equalized``: it has other values than
the tensor it stands for.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporter.passes.base import Array, constant, is_op, replace_constant
from exporter.quantization.held_names import EQUALIZED

__all__ = ["scale_channels"]

Factors = npt.NDArray[np.float64]


def scale_channels(graph: ir.Graph, factors: Mapping[str, Factors]) -> None:
    """Rewrite a graph in place so that each named tensor holds its value over its factors.

    Args:
        graph: Float, every tensor named.
        factors: Tensor → factor of each channel, (C,), > 0, complete and consistent, as
            :class:`exporter.quantization.channel_classes.ChannelClasses` asks for.

    Raises:
        ValueError: A weight does not have the channels of its factors.
    """
    for node in graph:
        source = node.inputs[0] if node.inputs else None
        taken = factors.get(str(source.name)) if source is not None else None
        given = factors.get(str(node.outputs[0].name))
        if taken is None and given is None:
            continue
        if is_op(node, "Conv"):
            _scale_conv(node, taken, given)
        elif is_op(node, "Gemm", "MatMul"):
            _scale_product(node, taken, given)
        elif is_op(node, "BatchNormalization"):
            _scale_norm(node, taken, given)
    for node in graph:
        for value in node.outputs:
            if value.name in factors:
                value.name = f"{value.name}{EQUALIZED}"


def _scale_conv(node: ir.Node, taken: Factors | None, given: Factors | None) -> None:
    """W[o, i] → W[o, i] · taken[i] / given[o]; in a group, i counts from its first input."""
    weight = _constant(node, 1)
    outputs, inner = weight.shape[:2]
    groups = node.attributes.get_int("group", 1) or 1
    ratio = np.ones((groups, outputs // groups, inner))
    if taken is not None:
        ratio *= _checked(taken, groups * inner).reshape(groups, 1, inner)
    if given is not None:
        ratio /= _checked(given, outputs).reshape(groups, -1, 1)
    ratio = ratio.reshape(outputs, inner, *[1] * (weight.ndim - 2))
    scaled = np.empty_like(weight)  # computed in float64 in small pieces, and rounded once
    np.multiply(weight, ratio, out=scaled, dtype=np.float64, casting="same_kind")
    replace_constant(node, 1, scaled, f"{node.name}.weight")
    _divide_bias(node, given)


def _scale_product(node: ir.Node, taken: Factors | None, given: Factors | None) -> None:
    """W[i, o] → W[i, o] · taken[i] / given[o], or the transpose of that."""
    weight = _value(node, 1)
    transposed = is_op(node, "Gemm") and bool(node.attributes.get_int("transB", 0))
    weight = weight.T if transposed else weight
    if taken is not None:
        weight = weight * _checked(taken, weight.shape[0])[:, None]
    if given is not None:
        weight = weight / _checked(given, weight.shape[1])
    _replace(node, 1, np.ascontiguousarray(weight.T if transposed else weight), "weight")
    _divide_bias(node, given)


def _divide_bias(node: ir.Node, given: Factors | None) -> None:
    if given is None or len(node.inputs) < 3 or node.inputs[2] is None:
        return
    bias = _value(node, 2)
    _replace(node, 2, np.broadcast_to(bias.reshape(-1), given.shape) / given, "bias")


def _scale_norm(node: ir.Node, taken: Factors | None, given: Factors | None) -> None:
    """γ·(x − μ)/σ + β: μ → μ / taken, γ → γ · taken / given, β → β / given."""
    scale = _value(node, 1)
    if taken is not None:
        _replace(node, 3, _value(node, 3) / taken, "mean")
        scale = scale * taken
    if given is not None:
        _replace(node, 2, _value(node, 2) / given, "bias")
        scale = scale / given
    _replace(node, 1, scale, "scale")


def _constant(node: ir.Node, index: int) -> Array:
    array = constant(node.inputs[index])
    if array is None:
        raise ValueError(f"input {index} of {node.name!r} is no constant")
    return array


def _value(node: ir.Node, index: int) -> Factors:
    return _constant(node, index).astype(np.float64)


def _replace(node: ir.Node, index: int, array: Factors, what: str) -> None:
    """Put a constant back in its old type, rounded once."""
    old = constant(node.inputs[index])
    dtype = np.dtype(np.float32) if old is None else old.dtype
    replace_constant(node, index, array.astype(dtype), f"{node.name}.{what}")


def _checked(factors: Factors, channels: int) -> Factors:
    if len(factors) != channels:
        raise ValueError(f"{len(factors)} factors for {channels} channels")
    return factors
