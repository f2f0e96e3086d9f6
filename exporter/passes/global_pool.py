"""Write every mean over all of height and width as GlobalAveragePool.

1. ReduceMean(x, axes=(2, 3), keepdims=1)             → GlobalAveragePool(x)
2. ReduceMean(x, axes=(2, 3), keepdims=0)             → Flatten(GlobalAveragePool(x))
3. AveragePool(x, kernel = all of a static H×W, no padding) → GlobalAveragePool(x)
4. ReduceMean(Transpose(x, perm=(0, 2, 3, 1)), axes=(1, 2), keepdims=0): as 2, the Transpose
   (of TensorFlow's converters, to N×H×W×C) left to other readers

Each computes y[n, c] = 1/(H·W) · Σ x[n, c, h, w]. TensorRT parses the one form into one
Reduce layer, and Q/DQ placement then has one pattern to know. In case 2 the surviving
tensor is the Flatten's, which also takes the node's name; the pool is ``<name>.pool``.
The same holds for 1 and 3 spatial axes.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.passes.base import PassResult, constant, dims, free_name, is_op, outcome

__all__ = ["global_pool"]


def global_pool(model: ir.Model) -> PassResult:
    """Rewrite the four cases."""
    done: list[str] = []
    left: list[str] = []
    for node in tuple(model.graph):
        if is_op(node, "ReduceMean"):
            why = _reduce_mean(node)
        elif is_op(node, "AveragePool"):
            why = _average_pool(node)
        else:
            continue
        if why is None:
            done.append(str(node.name))
        else:
            left.append(f"{node.name} ({why})")
    return outcome("global_pool", model, what="GlobalAveragePool", done=done, left=left)


def _reduce_mean(node: ir.Node) -> str | None:
    """Rewrite cases 1, 2 and 4, or say why not."""
    shape = dims(node.inputs[0])
    if shape is None or len(shape) < 3:
        return f"its input has rank {'unknown' if shape is None else len(shape)}"
    axes = _axes(node)
    if axes is None:
        return "its axes are not constant"
    averaged = sorted(axis % len(shape) for axis in axes)
    keeps = bool(node.attributes.get_int("keepdims", 1))
    source = None if keeps else _before_transpose(node.inputs[0], averaged)
    if source is not None:
        node.replace_input_with(0, source)
    elif averaged != list(range(2, len(shape))):
        return f"it averages axes {list(axes)}, not all of height and width"
    if keeps:
        _to_global(node)
    else:
        _split(node)
    return None


def _before_transpose(value: ir.Value | None, averaged: list[int]) -> ir.Value | None:
    """Return what a Transpose reads, if all axes but the mean's are batch and channels of it."""
    transpose = None if value is None else value.producer()
    if transpose is None or not is_op(transpose, "Transpose"):
        return None
    order = transpose.attributes.get_ints("perm", ())
    kept = [axis for number, axis in enumerate(order) if number not in averaged]
    return transpose.inputs[0] if kept == [0, 1] else None


def _axes(node: ir.Node) -> tuple[int, ...] | None:
    """Return the axes, an attribute before opset 18 and an input since."""
    if "axes" in node.attributes:
        return tuple(node.attributes.get_ints("axes", ()))
    if len(node.inputs) < 2 or node.inputs[1] is None:
        return ()  # none given: all axes, or with noop_with_empty_axes no axis
    value = constant(node.inputs[1])
    return None if value is None else tuple(int(axis) for axis in value.ravel())


def _average_pool(node: ir.Node) -> str | None:
    """Rewrite case 3, or say why not."""
    shape = dims(node.inputs[0])
    kernel = tuple(node.attributes.get_ints("kernel_shape", ()))
    if shape is None or None in shape[2:]:
        return "its input's height and width are not static"
    if kernel != shape[2:]:
        return f"its kernel {list(kernel)} is not the whole {list(shape[2:])}"
    if any(node.attributes.get_ints("pads", ())) or set(
        node.attributes.get_ints("dilations", (1,))
    ) != {1}:
        return "it pads or dilates"
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return "it pads"
    _to_global(node)
    return None


def _to_global(node: ir.Node) -> None:
    """Make the node itself a GlobalAveragePool: names and consumers stay."""
    node.op_type = "GlobalAveragePool"
    node.attributes.clear()
    node.resize_inputs(1)


def _split(node: ir.Node) -> None:
    """Put a GlobalAveragePool before the node, and make the node its Flatten."""
    if node.graph is None:
        raise ValueError(f"{node.name!r} is not in a graph")
    pool = ir.Node("", "GlobalAveragePool", [node.inputs[0]], name=f"{node.name}.pool")
    pooled = pool.outputs[0]
    pooled.name = free_name(node.graph, f"{node.outputs[0].name}.pool")
    pooled.type = node.outputs[0].type
    node.graph.insert_before(node, pool)
    node.op_type = "Flatten"
    node.attributes.clear()
    node.attributes["axis"] = ir.AttrInt64("axis", 1)
    node.resize_inputs(1)
    node.replace_input_with(0, pooled)
