"""Write every reshape of N×C×1×1 (or N×C×H×W) to N×(C·H·W) as Flatten(axis=1).

1. Reshape(x, shape) to N×P with P the product of x's static dimensions behind the batch:
   the element count then fixes the first dimension, however ``shape`` says it. Or to
   (the batch of x, −1), where the batch is 0, its number, or computed from a Shape.
2. Squeeze(x, axes) of the last axes of an N×C×1×1.
3. Flatten(x, axis = 1 − rank), the same axis counted from the end.

after:   Flatten(x, axis=1), with the names of the node and of its tensor
"""

from __future__ import annotations

import math

import onnx_ir as ir

from exporter.passes.base import PassResult, constant, dims, is_op, outcome
from exporter.passes.shape_values import named_dims, shape_value

__all__ = ["plain_flatten"]


def plain_flatten(model: ir.Model) -> PassResult:
    """Rewrite the three cases."""
    done: list[str] = []
    left: list[str] = []
    rewrites = {"Reshape": _reshape, "Squeeze": _squeeze, "Flatten": _flatten}
    for node in tuple(model.graph):
        if not is_op(node, *rewrites):
            continue
        why = rewrites[node.op_type](node)
        if why is None:
            _to_flatten(node)
            done.append(str(node.name))
        elif why:
            left.append(f"{node.name} ({why})")
    return outcome("plain_flatten", model, what="Flatten(axis=1)", done=done, left=left)


def _reshape(node: ir.Node) -> str | None:
    """Return why a Reshape is not provably case 1."""
    source, target = named_dims(node.inputs[0]), dims(node.outputs[0])
    asked = shape_value(node.inputs[1])
    if not source or (asked is not None and len(asked) != 2):
        return ""
    zero_copies = not node.attributes.get_int("allowzero", 0)
    if asked is not None and asked[1] == -1 and zero_copies and asked[0] in {0, source[0]} - {None}:
        return None
    inner = [dim for dim in source[1:] if isinstance(dim, int)]
    rows = asked[1] if asked is not None and asked[1] not in (-1, 0, None) else None
    rows = rows if target is None or len(target) != 2 or target[1] is None else target[1]
    if rows is None or len(inner) < len(source) - 1:
        return "the dimensions behind the batch are not static"
    return None if rows == math.prod(inner) else f"it makes rows of {rows} of {inner}"


def _squeeze(node: ir.Node) -> str | None:
    """Return why a Squeeze is not provably case 2."""
    source = dims(node.inputs[0])
    if source is None or len(source) < 3:
        return "its input's rank is not known" if source is None else ""
    axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if axes is None:
        return "its axes are not given: a batch of one would be squeezed too"
    squeezed = sorted(int(axis) % len(source) for axis in axes.ravel())
    if squeezed != list(range(2, len(source))):
        return f"it squeezes axes {squeezed}"
    return None


def _flatten(node: ir.Node) -> str | None:
    """Return why a Flatten is not case 3 (``""`` when it is in the wanted form already)."""
    axis = node.attributes.get_int("axis", 1)
    source = dims(node.inputs[0])
    if axis == 1:
        return ""
    if source is None or axis % len(source) != 1:
        return f"its axis is {axis}"
    return None


def _to_flatten(node: ir.Node) -> None:
    """Make the node itself a Flatten: names and consumers stay."""
    node.op_type = "Flatten"
    node.attributes.clear()
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    node.resize_inputs(1)
