"""Remove nodes whose output is their input.

1. y = Identity(x)
2. y = Dropout(x) outside training, its mask unused
3. y = Cast(x, to=the type of x)
4. y = Pad(x) by zero on every side
5. y = Concat(x), Sum(x), Max(x), Min(x) or Mean(x) of a single tensor
6. y = Flatten(x, axis=1) of a matrix
7. y = AveragePool(x) or MaxPool(x) with a 1×1 kernel, stride 1 and no padding
8. y = Slice(x) from 0 to the end by steps of 1, on every axis it names

before:  x → op → y → consumers
after:   x → consumers;  a graph output y keeps its name, then x is renamed to y

The main graph alone: onnx-ir's IdentityEliminationPass also makes a tensor from outside the
output of an If's branch, which ONNX Runtime refuses.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.passes.base import PassResult, constant, dims, is_op, outcome, take_over

__all__ = ["remove_noops"]

_FAR = (1 << 31) - 1  # exporters write "to the end" as the largest int32 or int64


def remove_noops(model: ir.Model) -> PassResult:
    """Turn every node of the list into an Identity, and take those out."""
    left: list[str] = []
    for node in tuple(model.graph):
        why = _obstacle(node)
        if why is None:
            _to_identity(node)
        elif why:
            left.append(f"{node.name} ({why})")
    done: list[str] = []
    for node in tuple(model.graph):
        if not is_op(node, "Identity") or node.inputs[0] is None:
            continue
        if _bypass(node, node.inputs[0]):
            done.append(str(node.name))
        else:
            left.append(f"{node.name} (what it reads has a name of its own to keep)")
    return outcome("remove_noops", model, what="removed", done=done, left=left)


def _bypass(node: ir.Node, source: ir.Value) -> bool:
    """Take an Identity out; False where its output must stay a tensor of its own."""
    copy = node.outputs[0]
    if copy.is_graph_output():
        if source.producer() is None or source.is_graph_output():
            return False
        take_over(source, copy)
        return True
    if source.shape is None:
        source.shape = copy.shape
    copy.replace_all_uses_with(source)
    if node.graph is not None:
        node.graph.remove(node, safe=True)
    return True


def _obstacle(node: ir.Node) -> str | None:
    """Return None for a no-op, a reason for what only looks like one, ``""`` for the rest."""
    if not node.inputs or node.inputs[0] is None or node.domain not in ("", "ai.onnx"):
        return ""
    if node.op_type == "Dropout":
        return _trains(node)
    source = node.inputs[0]
    idle = {
        "Cast": lambda: source.dtype == node.attributes.get_int("to", 0),
        "Pad": lambda: _is_zero(node),
        "Flatten": lambda: node.attributes.get_int("axis", 1) == 1 and _rank(source) == 2,
        "Slice": lambda: _keeps_all(node),
        "AveragePool": lambda: _is_one_by_one(node),
        "MaxPool": lambda: _is_one_by_one(node),
        **dict.fromkeys(("Concat", "Sum", "Max", "Min", "Mean"), lambda: len(node.inputs) == 1),
    }.get(node.op_type)
    return None if idle is not None and idle() else ""


def _trains(node: ir.Node) -> str | None:
    """Return why a Dropout may drop something."""
    mode = node.inputs[2] if len(node.inputs) > 2 else None
    value = constant(mode)
    if mode is not None and (value is None or value.any()):
        return "in training mode, or it may be"
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:]):
        return "its mask is used"
    return None


def _is_zero(node: ir.Node) -> bool:
    pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    return pads is not None and not pads.any()


def _keeps_all(node: ir.Node) -> bool:
    """Tell whether a Slice cuts nothing off."""
    shape = dims(node.inputs[0])
    starts, ends, axes = (constant(value) for value in (*node.inputs[1:4], None, None)[:3])
    steps = constant(node.inputs[4]) if len(node.inputs) > 4 else None
    if starts is None or ends is None or starts.any() or (len(node.inputs) > 4 and steps is None):
        return False
    if steps is not None and (steps != 1).any():
        return False
    for number, end in enumerate(ends.tolist()):
        size = None
        if shape is not None and (axes is not None or len(node.inputs) <= 3):
            size = shape[number if axes is None else int(axes[number])]
        if end < (_FAR if size is None else size):
            return False
    return True


def _rank(value: ir.Value) -> int | None:
    shape = dims(value)
    return None if shape is None else len(shape)


def _is_one_by_one(node: ir.Node) -> bool:
    kernel = node.attributes.get_ints("kernel_shape", ())
    return (
        bool(kernel)
        and set(kernel) == {1}
        and set(node.attributes.get_ints("strides", (1,))) == {1}
        and not any(node.attributes.get_ints("pads", (0,)))
        and len(node.outputs) == 1
    )


def _to_identity(node: ir.Node) -> None:
    """Make an Identity of a no-op: one input, one output, no attributes."""
    if node.op_type == "Identity":
        return
    node.op_type = "Identity"
    node.attributes.clear()
    node.resize_inputs(1)
    node.resize_outputs(1)
