"""What TensorRT's parser made of an ONNX file: inputs, outputs, precision of its layers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from deploy.engines.manifest import Binding

__all__ = ["bindings", "layer_precisions", "onnx_name"]

# DataType of TensorRT → name of the element type in ONNX and numpy.
_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
    "FP8": "float8e4m3",
    "INT4": "int4",
    "FP4": "float4e2m1",
}
# Layers with weights, by TensorRT's layer type → the name that ONNX has for them.
_WEIGHTED = {"CONVOLUTION": "Conv", "DECONVOLUTION": "ConvTranspose", "MATRIX_MULTIPLY": "Gemm"}


def bindings(network: Any) -> tuple[tuple[Binding, ...], tuple[Binding, ...]]:
    """Return the inputs and the outputs of an ``INetworkDefinition``, in its order."""
    inputs = tuple(_binding(network.get_input(i)) for i in range(network.num_inputs))
    outputs = tuple(_binding(network.get_output(i)) for i in range(network.num_outputs))
    return inputs, outputs


def _binding(tensor: Any) -> Binding:
    return Binding(str(tensor.name), _type_name(tensor), tuple(int(d) for d in tensor.shape))


def _type_name(tensor: Any) -> str:
    name = str(tensor.dtype.name)
    return _TYPES.get(name, name.lower())


def layer_precisions(network: Any) -> dict[str, dict[str, tuple[str, ...]]]:
    """Return operator → precision → names of layers with weights.

    A layer is INT8 (or FP8, INT4) when its data and its weights both come from a
    Dequantize of that type: that is how a strongly typed network asks for it. Whether a
    kernel grants it is for the plan to say.
    """
    source: dict[str, Any] = {}
    found: dict[str, dict[str, list[str]]] = {}
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for at in range(layer.num_outputs):
            output = layer.get_output(at)
            if output is not None:
                source[output.name] = layer
        op = _WEIGHTED.get(layer.type.name)
        if op is not None:
            precision = _precision(layer, source)
            found.setdefault(op, {}).setdefault(precision, []).append(onnx_name(layer))
    return {op: {kind: tuple(names) for kind, names in by.items()} for op, by in found.items()}


def _precision(layer: Any, source: Mapping[str, Any]) -> str:
    data = layer.get_input(0)
    codes = {_code_type(layer.get_input(at), source) for at in range(min(2, layer.num_inputs))}
    quantized = len(codes) == 1 and layer.num_inputs > 1 and None not in codes
    return codes.pop() or "" if quantized else _type_name(data)


def _code_type(tensor: Any, source: Mapping[str, Any]) -> str | None:
    """Return the type that a tensor was dequantized from; None when it was not."""
    maker = source.get(tensor.name) if tensor is not None else None
    if maker is None or maker.type.name != "DEQUANTIZE":
        return None
    return _type_name(maker.get_input(0))


def onnx_name(layer: Any) -> str:
    """Return the ONNX node's name; the parser appends a number to a layer's own."""
    found = re.search(r"\[ONNX Layer: ([^\]]*)\]", layer.metadata or "")
    return found[1] if found and found[1] else str(layer.name)
