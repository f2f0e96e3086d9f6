"""From a compiled graph in a TensorRT-RTX plan to its kernels."""

from __future__ import annotations

import re
from collections.abc import Mapping

from deploy.inspect.kernels import Kernel, KernelGraph, Tensor
from deploy.inspect.plan_graph import PlanGraph, PlanTensor, Statement
from deploy.inspect.shape_program import defined_names, input_name, solve

__all__ = ["kernels_of_plan"]

_TYPES: Mapping[str, str] = {
    "float": "float32",
    "half": "float16",
    "bf16": "bfloat16",
    "fp8_e4m3": "float8e4m3",
}
# Statement of the compiler → what it is called here; others keep their name.
_KINDS: Mapping[str, str] = {
    "corrltn": "convolution",
    "deconvolution": "deconvolution",
    "fully_connected": "gemm",
    "maxpool": "pooling",
    "avgpool": "pooling",
}
_FUSIONS: Mapping[str, str] = {"conv": "convolution", "gemm": "gemm"}  # by backbone
_GENERATED: Mapping[str, str] = {"1": "pointwise", "2": "reduction"}  # by kernel_kind
_FUSED: Mapping[str, str] = {
    "bias": "bias",
    "accu": "residual",
    "relu": "relu",
    "quantize": "quantize",
}
_INPUTS, _OUTPUTS = ("input", "input_args"), ("output", "output_args")
_LAYER = re.compile(r"\[ONNX Layer: (.*)\]", re.DOTALL)


def kernels_of_plan(graph: PlanGraph, shapes: Mapping[str, tuple[int, ...]]) -> KernelGraph:
    """Return the kernels of a compiled graph, with shapes for one batch.

    Args:
        graph: One optimization profile.
        shapes: Input of the network → its shape; what is missing leaves sizes unknown.
    """
    known = solve(graph, shapes)
    dimensions = defined_names(graph)
    kernels = []
    for step in graph.main:
        outputs = step.names(*_OUTPUTS)
        if outputs:  # a call of the shape program, or a check, has none
            kernels.append(_kernel(step, graph, known, dimensions))
    return KernelGraph(tuple(kernels), _batch(graph, shapes), graph.scratch_bytes)


def _batch(graph: PlanGraph, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the first dimension of the first input; 1 where that is free and not given."""
    for name in graph.inputs:
        tensor = graph.tensors.get(name)
        if tensor is not None and len(tensor.dims) > 1:
            given = shapes.get(input_name(name), ())
            first = tensor.dims[0] if isinstance(tensor.dims[0], int) else (*given, 1)[0]
            return max(1, first)
    return 1


def _kernel(
    step: Statement, graph: PlanGraph, known: Mapping[str, int], dimensions: frozenset[str]
) -> Kernel:
    read = [graph.tensors[name] for name in _unique(step.names(*_INPUTS)) if name in graph.tensors]
    written = [graph.tensors[n] for n in _unique(step.names(*_OUTPUTS)) if n in graph.tensors]
    return Kernel(
        name=step.fields.get("name", step.op),
        kind=_kind(step),
        layers=_layers(step.fields.get("layers", "")),
        inputs=tuple(
            _tensor(t, known) for t in read if t.constant_bytes is None and t.name not in dimensions
        ),
        outputs=tuple(_tensor(t, known) for t in written),
        constants={t.name: t.constant_bytes for t in read if t.constant_bytes is not None},
        fused=tuple(name for key, name in _FUSED.items() if step.fields.get(key) == "true"),
    )


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _kind(step: Statement) -> str:
    if step.op == "runtime_fusion":
        return _FUSIONS.get(step.fields.get("backbone", ""), "fusion")
    if step.op == "function":
        return _GENERATED.get(step.fields.get("kernel_kind", ""), "generated")
    return _KINDS.get(step.op, step.op)


def _layers(text: str) -> tuple[str, ...]:
    found = [_LAYER.match(part) for part in text.split("\x1f")]
    return _unique(tuple(match[1] for match in found if match))


def _tensor(tensor: PlanTensor, known: Mapping[str, int]) -> Tensor:
    shape = tuple(d if isinstance(d, int) else known.get(d) for d in tensor.dims)
    dtype = _TYPES.get(tensor.dtype, tensor.dtype)
    return Tensor(_plain_name(tensor.name), dtype, shape, tensor.base or tensor.name)


def _plain_name(name: str) -> str:
    """Return the name without the compiler's suffix: ``relu.1_13`` is ``relu``."""
    return re.sub(r"(\.1)?(_\d+)?$", "", name) if ".1" in name else name
