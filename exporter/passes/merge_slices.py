"""Make one Slice of two that cut different axes.

before:  x → Slice(axes A) → Slice(axes B) → y,  A ∩ B = ∅
after:   x → Slice(axes A ∪ B) → y

Cuts along different axes do not touch each other, so their order is free. The surviving
tensor is y; the node keeps the name of the last Slice.
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
    outcome,
    replace_constant,
    sole_consumer,
)

__all__ = ["merge_slices"]

_ROLES = ("starts", "ends", "axes", "steps")


def merge_slices(model: ir.Model) -> PassResult:
    """Merge every pair of neighbours, first to last."""
    done: list[str] = []
    left: list[str] = []
    for node in tuple(model.graph):
        if not is_op(node, "Slice") or node.inputs[0] is None:
            continue
        before = node.inputs[0].producer()
        if before is None or not is_op(before, "Slice"):
            continue
        if sole_consumer(node.inputs[0]) is not node:
            left.append(f"{node.name} (others read {node.inputs[0].name!r} too)")
            continue
        shape = dims(before.inputs[0])
        first, second = _cuts(before, shape), _cuts(node, shape)
        if first is None or second is None:
            left.append(f"{node.name} (what it cuts is not constant)")
        elif set(first[2].tolist()) & set(second[2].tolist()):
            left.append(f"{node.name} (both cut one axis)")
        else:
            _merge(before, node, np.concatenate([first, second], axis=1))
            done.append(str(node.name))
    return outcome("merge_slices", model, what="merged into the next Slice", done=done, left=left)


def _cuts(node: ir.Node, shape: tuple[int | None, ...] | None) -> Array | None:
    """Return starts, ends, axes ≥ 0 and steps as four rows; None when one is not known."""
    values = [constant(value) for value in node.inputs[1:5]]
    if shape is None or len(values) < 2 or values[0] is None or values[1] is None:
        return None
    count = values[0].size
    optional = (np.arange(count), np.ones(count, np.int64))
    for index, default in enumerate(optional, start=2):
        given = len(node.inputs) > index + 1 and node.inputs[index + 1] is not None
        if not given:
            values[index:] = [default, *values[index + 1 :]]
        elif values[index] is None:
            return None
    rows = np.array([np.asarray(value, np.int64) for value in values])
    rows[2] %= len(shape)
    return rows


def _merge(before: ir.Node, node: ir.Node, cuts: Array) -> None:
    """Let ``node`` cut what both cut, from what ``before`` reads."""
    order = np.argsort(cuts[2])
    node.replace_input_with(0, before.inputs[0])
    for index, (role, row) in enumerate(zip(_ROLES, cuts[:, order], strict=True), start=1):
        replace_constant(node, index, row, f"{node.name}.{role}")
    if before.graph is not None:
        before.graph.remove(before, safe=True)
