"""What is known of a shape that the graph computes: ``x.view(x.size(0), -1)`` and its kin.

A dimension is a number, or the name of a free one; two free dimensions of one name are
equal. Anything else is None.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.passes.base import constant, is_op

__all__ = ["Dims", "named_dims", "shape_value"]

Dims = tuple[int | str | None, ...]

_MAX_DEPTH = 32  # nodes between a shape and where it is used; more is no shape arithmetic


def named_dims(value: ir.Value | None) -> Dims | None:
    """Return a tensor's shape; None for an unknown rank."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)


def shape_value(value: ir.Value | None, depth: int = 0) -> Dims | None:
    """Return what a tensor of whole numbers (a list or one number) holds; None if unknown."""
    array = constant(value)
    if array is not None:
        return tuple(int(number) for number in array.ravel()) if array.ndim <= 1 else None
    node = None if value is None else value.producer()
    if node is None or depth > _MAX_DEPTH:
        return None
    if is_op(node, "Shape"):
        dims = named_dims(node.inputs[0])
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", 1 << 31)
        return None if dims is None else dims[start:end]
    parts = [shape_value(source, depth + 1) for source in node.inputs]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts) or not parts:
        return None
    if is_op(node, "Concat"):
        return tuple(dim for part in known for dim in part)
    if is_op(node, "Unsqueeze", "Squeeze", "Identity", "Cast"):
        return known[0]
    if is_op(node, "Gather"):
        return _pick(known[0], known[1])
    if is_op(node, "Slice"):
        return _cut(known)
    return None


def _pick(dims: Dims, indices: Dims) -> Dims | None:
    """Return the dimensions at ``indices``."""
    if not all(isinstance(i, int) and -len(dims) <= i < len(dims) for i in indices):
        return None
    return tuple(dims[i] for i in indices if isinstance(i, int))


def _cut(parts: list[Dims]) -> Dims | None:
    """Return a Slice's result: data, starts, ends, then maybe axes and steps."""
    bounds = [part[0] if len(part) == 1 else None for part in parts[1:]]
    start, end, step = bounds[0], bounds[1], bounds[3] if len(bounds) > 3 else 1
    if not (isinstance(start, int) and isinstance(end, int) and isinstance(step, int)) or step < 1:
        return None
    return parts[0][start:end:step]
