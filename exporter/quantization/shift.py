"""Move tensors by constants, without moving a result (the algebra of full-range INT8).

before:  x → Conv(W, b) → Relu → y → Conv(V, d) → z
after:   x → Conv(W, b − c) → Clip(min = −c) → y.shifted → Conv(V, d + c·ΣV) → z

With y.shifted = y − c::

    max(W∗x + b, 0) − c  =  max(W∗x + b − c, −c)
    V∗y + d              =  V∗(y − c) + d + c·ΣV        (no zero padding)

ΣV is the sum over all but the output channel. Where V will be quantized, the sum of its
quantized values must be used, so that c cancels exactly in what is computed: hence the
``weights`` argument. Through an addition the constants add; the one that makes up the
difference goes into the bias of the branch (:mod:`exporter.quantization.shifts`).

A Conv with zero padding reads 0 beyond the border, which stands for c now. Where sizes are
known, an addition behind it takes back what c·ΣV counts of taps that lie outside::

    z(p) = V∗(y − c) + d + c·ΣV − c·Σ{V(t): tap t lies outside at position p}

The last term is a constant of z's own shape, zero but at the border.

A tensor that moved gets a name of its own, ``<name>.shifted``: it has other values than
the tensor it stands for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir

from exporter.passes.base import (
    Array,
    add_constant,
    constant,
    is_op,
    replace_constant,
    taken_names,
)
from exporter.quantization.held_names import SHIFTED
from exporter.quantization.rounding.padding import inside

__all__ = ["shift_tensors"]

Weights = Callable[[ir.Value], Array]


def shift_tensors(
    graph: ir.Graph, constants: Mapping[str, float], *, weights: Weights | None = None
) -> None:
    """Rewrite a graph in place so that each named tensor holds its value minus a constant.

    Args:
        graph: Float, every tensor named.
        constants: Tensor name → constant in real units, complete and consistent, as
            :meth:`exporter.quantization.shifts.Shifts.constants` returns it.
        weights: Weight initializer → the values it will be computed with; by default its own.
    """
    if not constants:
        return
    values = weights or _own_values
    names = taken_names(graph)
    for node in tuple(graph):
        taken = (
            constants.get(str(node.inputs[0].name), 0.0) if node.inputs and node.inputs[0] else 0.0
        )
        given = constants.get(str(node.outputs[0].name), 0.0)
        if not (taken or given):
            continue
        if is_op(node, "Conv", "Gemm"):
            _move_bias(node, taken, given, values)
            if taken and is_op(node, "Conv") and any(node.attributes.get_ints("pads", ())):
                _mend_border(graph, node, taken, values)
        elif is_op(node, "BatchNormalization"):
            _move_norm(node, taken, given)
        elif is_op(node, "Relu", "Clip"):
            _move_bounds(graph, node, given, names)
    for node in graph:
        for value in node.outputs:
            if value.name in constants:
                value.name = f"{value.name}{SHIFTED}"


def _own_values(value: ir.Value) -> Array:
    if value.const_value is None:
        raise ValueError(f"{value.name!r} is no constant")
    return value.const_value.numpy()


def _move_bias(node: ir.Node, taken: float, given: float, values: Weights) -> None:
    """B → b + taken·ΣW − given, in float64, rounded once."""
    weight = node.inputs[1]
    if weight is None:
        raise ValueError(f"{node.name!r} has no weight")
    array = values(weight)
    # Output channels lie on axis 0, but in a Gemm whose weight is not transposed.
    columns = is_op(node, "Gemm") and not node.attributes.get_int("transB", 0)
    rows = array.T if columns else array.reshape(len(array), -1)
    sums = rows.sum(axis=1, dtype=np.float64)
    old = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    bias = np.zeros(len(sums)) if old is None else old.astype(np.float64)
    dtype = _own_values(weight).dtype
    moved = (bias + taken * sums - given).astype(dtype)
    replace_constant(node, 2, moved, f"{node.name}.bias")


def _mend_border(graph: ir.Graph, node: ir.Node, taken: float, values: Weights) -> None:
    """Add −taken·Σ{taps outside} to a padded Conv's output, which keeps its name."""
    weight, output = node.inputs[1], node.outputs[0]
    if weight is None:
        raise ValueError(f"{node.name!r} has no weight")
    taps = values(weight).sum(axis=1, dtype=np.float64)  # (M, kH, kW)
    rows, columns = (inside(node, axis, taps.shape[1 + axis]) for axis in (0, 1))
    within = np.einsum("ph,mhw,qw->mpq", rows, taps, columns)
    lost = taken * (within - taps.sum(axis=(1, 2))[:, None, None])
    border = lost.astype(_own_values(weight).dtype)[None]
    name, kind, shape = output.name, output.type, output.shape
    constant_value = add_constant(graph, f"{name}.border", border)
    add = ir.Node("", "Add", [output, constant_value], num_outputs=1, name=f"{node.name}.border")
    ir.convenience.replace_all_uses_with(output, add.outputs[0], replace_graph_outputs=True)
    add.replace_input_with(0, output)
    graph.insert_after(node, add)
    output.name = f"{name}.inner"
    add.outputs[0].name, add.outputs[0].type, add.outputs[0].shape = name, kind, shape


def _move_norm(node: ir.Node, taken: float, given: float) -> None:
    """μ → μ − taken, β → β − given: γ·(x + taken − μ)/σ + β − given."""
    for index, shift, what in ((3, taken, "mean"), (2, given, "bias")):
        old = constant(node.inputs[index])
        if old is not None and shift:
            moved = (old.astype(np.float64) - shift).astype(old.dtype)
            replace_constant(node, index, moved, f"{node.name}.{what}")


def _move_bounds(graph: ir.Graph, node: ir.Node, shift: float, names: set[str]) -> None:
    """Relu → Clip(min = −shift); Clip(a, b) → Clip(a − shift, b − shift)."""
    bounds = [0.0, None] if is_op(node, "Relu") else [_scalar(v) for v in node.inputs[1:3]]
    source = node.inputs[0]
    dtype = np.float32 if source is None or source.dtype is None else source.dtype.numpy()
    inputs: list[ir.Value | None] = [source]
    for bound, side in zip(bounds, ("min", "max"), strict=False):
        name = f"{node.outputs[0].name}{SHIFTED}.{side}"
        moved = None if bound is None else np.asarray(bound - shift, dtype)
        inputs.append(None if moved is None else add_constant(graph, name, moved, names))
    while inputs[-1] is None:
        inputs.pop()
    output = node.outputs[0]
    clip = ir.Node("", "Clip", inputs, num_outputs=1, name=node.name)
    clip.outputs[0].type, clip.outputs[0].shape = output.type, output.shape
    kept = output.name
    graph.insert_before(node, clip)
    ir.convenience.replace_all_uses_with(output, clip.outputs[0])
    graph.remove(node, safe=True)
    clip.outputs[0].name = kept


def _scalar(value: ir.Value | None) -> float | None:
    array = constant(value)
    return None if array is None else float(array.reshape(()))
