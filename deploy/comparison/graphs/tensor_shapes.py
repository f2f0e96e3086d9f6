"""The shape of each tensor of a network, and the size of its weights, known before it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

__all__ = ["tensor_shapes", "unpacked_bytes"]

_SMALL_ELEMENTS = 64  # shapes and axes that shape inference reads are smaller


def tensor_shapes(
    model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor where it follows from the inputs' shapes.

    Args:
        model: A graph; it is left as it is.
        shapes: Shape of each input, by name.
    """
    skeleton = _skeleton(model, shapes)
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except onnx.shape_inference.InferenceError:
        return {}  # an operator it does not know; the shapes are a help, not a need
    known: dict[str, tuple[int, ...]] = {}
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        tensor = value.type.tensor_type
        shape = tuple(dim.dim_value for dim in tensor.shape.dim)
        if tensor.HasField("shape") and all(size > 0 for size in shape):
            known[value.name] = shape
    return known


def unpacked_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Return tensor → bytes of the weights that are dequantized to make it, as float32.

    ONNX Runtime may dequantize all the weights of a graph before it runs the first layer.
    """
    graph = model.graph
    elements = {initializer.name: math.prod(initializer.dims) for initializer in graph.initializer}
    unpacked = {
        node.output[0]: 4 * elements[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in elements
    }
    found = {n.output[0]: sum(unpacked.get(name, 0) for name in n.input) for n in graph.node}
    return {name: size for name, size in found.items() if size}


def _skeleton(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Return the graph without its weights, for inputs of given shapes.

    Weights become inputs of their shape: shape inference copies the whole model, twice.
    """
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    large = {}
    for initializer in model.graph.initializer:
        if math.prod(initializer.dims) <= _SMALL_ELEMENTS:
            graph.initializer.append(initializer)
        else:
            large[initializer.name] = onnx.helper.make_tensor_value_info(
                initializer.name, initializer.data_type, list(initializer.dims)
            )
    for value in model.graph.input:
        if value.name in shapes:
            elem_type = value.type.tensor_type.elem_type
            shape = list(shapes[value.name])
            graph.input.append(onnx.helper.make_tensor_value_info(value.name, elem_type, shape))
    graph.input.extend(large.values())
    # Only the names of the outputs: their declared shapes are of any batch.
    graph.output.extend(onnx.ValueInfoProto(name=output.name) for output in model.graph.output)
    return onnx.helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=max(model.ir_version, 4),
        functions=model.functions,
    )
