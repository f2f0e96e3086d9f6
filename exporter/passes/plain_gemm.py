"""Write every product of a matrix with constant weights as Gemm(transB=1).

1. MatMul(x, W), x a matrix         → Gemm(x, Wᵀ, transB=1)
2. Gemm(x, W, b; α, β, transB = 0)  → Gemm(x, αWᵀ, βb; transB=1)

The weight is then (K, C), output channels first, as a Conv's is: one rule for the scales
of both. b becomes a vector (K,). α and β are multiplied in float64 and rounded once.
The node and its tensor keep their names.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.passes.base import (
    Array,
    PassResult,
    constant,
    dims,
    is_op,
    is_row,
    outcome,
    replace_constant,
)

__all__ = ["plain_gemm"]


def plain_gemm(model: ir.Model) -> PassResult:
    """Rewrite both cases."""
    done: list[str] = []
    left: list[str] = []
    for node in tuple(model.graph):
        if is_op(node, "MatMul"):
            why = _matmul(node)
        elif is_op(node, "Gemm"):
            why = _gemm(node)
        else:
            continue
        if why is None:
            done.append(str(node.name))
        elif why:
            left.append(f"{node.name} ({why})")
    return outcome("plain_gemm", model, what="Gemm(transB=1)", done=done, left=left)


def _matmul(node: ir.Node) -> str | None:
    """Rewrite case 1, or say why not."""
    weight = constant(node.inputs[1])
    if weight is None:
        return "its weight is not constant"
    rank = dims(node.inputs[0])
    if rank is None or len(rank) != 2 or weight.ndim != 2:
        return "its input is not known to be a matrix"
    node.op_type = "Gemm"
    node.attributes["transB"] = ir.AttrInt64("transB", 1)
    replace_constant(node, 1, weight.T, f"{node.name}.weight")
    return None


def _gemm(node: ir.Node) -> str | None:
    """Rewrite case 2, or say why not; ``""`` when it is in the wanted form already."""
    weight = constant(node.inputs[1])
    source = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant(source)
    if weight is None or (source is not None and bias is None):
        return "its weight or bias is not constant"
    if node.attributes.get_int("transA", 0):
        return "its input is transposed"
    plain = weight if node.attributes.get_int("transB", 0) else weight.T
    rows = plain.shape[0]
    if bias is not None and not is_row(bias, rows):
        return f"its bias of shape {list(bias.shape)} is not a vector of {rows}"
    new_weight = _scaled(plain, node.attributes.get_float("alpha", 1.0))
    replaced = new_weight is not weight
    if replaced:
        replace_constant(node, 1, new_weight, f"{node.name}.weight")
    if bias is not None:
        new_bias = _scaled(bias, node.attributes.get_float("beta", 1.0))
        if new_bias.shape != (rows,):
            new_bias = np.broadcast_to(new_bias.ravel(), (rows,))
        if new_bias is not bias:
            replace_constant(node, 2, new_bias, f"{node.name}.bias")
            replaced = True
    node.attributes.clear()
    node.attributes["transB"] = ir.AttrInt64("transB", 1)
    return None if replaced else ""


def _scaled(array: Array, factor: float) -> Array:
    """Multiply in float64 and round once; the very same array for a factor of 1."""
    if factor == 1.0:
        return array
    return (array.astype(np.float64) * factor).astype(array.dtype)
