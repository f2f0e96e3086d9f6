"""Give a Gemm the constant that is added behind it.

before:  x → Gemm(W, transB=1) → Add(b) → y
after:   x → Gemm(W, b, transB=1) → y

b may be a scalar, (K,) or (1, K), and on either side of the Add. The surviving tensor is
y and keeps its name; the node keeps the Gemm's.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from exporter.passes.base import (
    PassResult,
    constant,
    is_op,
    is_row,
    outcome,
    replace_constant,
    sole_consumer,
    take_over,
)

__all__ = ["gemm_bias"]


def gemm_bias(model: ir.Model) -> PassResult:
    """Move the bias into every Gemm that has none yet."""
    done: list[str] = []
    left: list[str] = []
    for node in tuple(model.graph):
        if not is_op(node, "Gemm") or (len(node.inputs) > 2 and node.inputs[2] is not None):
            continue
        add = sole_consumer(node.outputs[0])
        if add is None or not is_op(add, "Add"):
            continue
        why = _merge(node, add)
        if why is None:
            done.append(str(add.name))
        else:
            left.append(f"{add.name} ({why})")
    return outcome("gemm_bias", model, what="bias into Gemm", done=done, left=left)


def _merge(gemm: ir.Node, add: ir.Node) -> str | None:
    """Merge the pair, or say why not."""
    other = next((value for value in add.inputs if value is not gemm.outputs[0]), None)
    bias, weight = constant(other), constant(gemm.inputs[1])
    if bias is None or weight is None or not gemm.attributes.get_int("transB", 0):
        return "what it adds is not constant"
    rows = weight.shape[0]
    if not is_row(bias, rows):
        return f"what it adds, {list(bias.shape)}, is not a vector of {rows}"
    take_over(gemm.outputs[0], add.outputs[0])
    gemm.resize_inputs(3)
    gemm.replace_input_with(2, other)
    if bias.shape != (rows,):
        replace_constant(gemm, 2, np.broadcast_to(bias.ravel(), (rows,)), f"{gemm.name}.bias")
    return None
