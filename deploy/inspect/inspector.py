"""Kernels from the JSON of TensorRT's EngineInspector, as 10.x and as 11.x write it.

========= ============================================ ======================================
part      10.x                                         11.x
========= ============================================ ======================================
network   ``"Bindings": ["input", "logits"]``          ``"I/O Tensors": [{"Name": …}]``
tensor    ``"Format/Datatype": "Row major … FP16 …"``  ``"Format": "…", "Datatype": "Half"``
========= ============================================ ======================================

``trtexec --exportLayerInfo=FILE`` writes the same.

Source: TensorRT documentation, "Engine Inspector" and "Migrating IEngineInspector Usage
from TensorRT 10.x to 11.x". No engine was inspected for these tests: none was at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from deploy.inspect.kernels import SIZES, Kernel, KernelGraph, Tensor

__all__ = ["kernels_of_inspector"]

_TYPES: Mapping[str, str] = {
    "fp32": "float32",
    "float": "float32",
    "fp16": "float16",
    "half": "float16",
    "bf16": "bfloat16",
    "bfloat16": "bfloat16",
    "int8": "int8",
    "uint8": "uint8",
    "fp8": "float8e4m3",
    "int4": "int4",
    "fp4": "float4e2m1",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}
_TYPE = re.compile(rf"\b({'|'.join(_TYPES)})\b", re.IGNORECASE)
# Part of a layer's type → kind; the first that fits.
_KINDS = (
    ("deconv", "deconvolution"),
    ("conv", "convolution"),
    ("gemm", "gemm"),
    ("matrix", "gemm"),
    ("fullyconnected", "gemm"),
    ("pool", "pooling"),
    ("reduce", "reduction"),
    ("pointwise", "pointwise"),
    ("elementwise", "pointwise"),
    ("activation", "pointwise"),
    ("scale", "pointwise"),
    ("kgen", "generated"),
)
_NOTHING_RUNS = frozenset({"noop", "constant", "signal", "wait", "shape_call"})
_LAYER = re.compile(r"\[ONNX Layer: (.*)\]", re.DOTALL)


def kernels_of_inspector(text: str, *, batch: int = 1) -> KernelGraph:
    """Return the kernels that an EngineInspector's JSON tells of.

    Args:
        text: JSON of the whole engine.
        batch: Images that its shapes are for.

    Raises:
        ValueError: Not such JSON, or one that names the layers and says nothing of them.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise ValueError(f"not JSON: {err}") from err
    layers = value.get("Layers") if isinstance(value, dict) else None
    if not isinstance(layers, list):
        raise ValueError("no list of Layers")
    if any(isinstance(layer, str) for layer in layers):
        raise ValueError("the engine was not built with detailed profiling verbosity")
    kernels = [_kernel(layer) for layer in layers if isinstance(layer, dict) and _runs(layer)]
    return KernelGraph(tuple(kernels), batch)


def _text(layer: Mapping[str, Any], key: str) -> str:
    value = layer.get(key)
    return value if isinstance(value, str) else ""


def _runs(layer: Mapping[str, Any]) -> bool:
    return _text(layer, "LayerType").lower() not in _NOTHING_RUNS


def _kernel(layer: Mapping[str, Any]) -> Kernel:
    inputs = _tensors(layer, "Inputs")
    kind = _kind(layer)
    flags = {
        "bias": layer.get("HasBias") == 1,
        "residual": kind == "convolution" and len(inputs) > 1,
        "relu": layer.get("HasReLU") == 1 or _text(layer, "Activation") == "RELU",
    }
    return Kernel(
        name=_text(layer, "Name"),
        kind=kind,
        layers=_layers(layer),
        inputs=inputs,
        outputs=_tensors(layer, "Outputs"),
        constants=_constants(layer),
        fused=tuple(name for name, there in flags.items() if there),
    )


def _kind(layer: Mapping[str, Any]) -> str:
    told = _text(layer, "LayerType") or _text(layer, "ParameterType")
    return next((kind for part, kind in _KINDS if part in told.lower()), told.lower() or "unknown")


def _layers(layer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the ONNX nodes: from the metadata, else from the layer's own name."""
    found = [_LAYER.match(part) for part in re.split("[\x1e\x1f]", _text(layer, "Metadata"))]
    names = [match[1] for match in found if match] or _text(layer, "Name").split(" + ")
    return tuple(dict.fromkeys(names))


def _tensors(layer: Mapping[str, Any], key: str) -> tuple[Tensor, ...]:
    listed = layer.get(key)
    tensors = [t for t in listed if isinstance(t, dict)] if isinstance(listed, list) else []
    unique = {_text(tensor, "Name"): tensor for tensor in tensors}
    return tuple(Tensor(name, _dtype(t), _shape(t), name) for name, t in unique.items())


def _dtype(tensor: Mapping[str, Any]) -> str:
    """Return the element type; its own field in 11.x, the end of a sentence in 10.x."""
    for key in ("Datatype", "DataType", "Format/Datatype", "Format"):
        found = _TYPE.findall(_text(tensor, key))
        if found:
            return _TYPES[found[-1].lower()]
    return ""


def _shape(tensor: Mapping[str, Any]) -> tuple[int | None, ...]:
    dims = tensor.get("Dimensions")
    sizes = dims if isinstance(dims, list) else [None]
    return tuple(n if isinstance(n, int) and n >= 0 else None for n in sizes)


def _constants(layer: Mapping[str, Any]) -> dict[str, int]:
    found = {}
    for key in ("Weights", "Bias"):
        told = layer.get(key)
        count = told.get("Count") if isinstance(told, dict) else None
        kind = _dtype({"Datatype": told.get("Type")}) if isinstance(told, dict) else ""
        if isinstance(count, int) and kind in SIZES:
            found[f"{_text(layer, 'Name')}.{key.lower()}"] = max(0, count) * SIZES[kind] // 8
    return found
