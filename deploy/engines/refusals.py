"""What TensorRT cannot build, said before it is asked, in our words with the way out.

TensorRT would refuse most of it too, later and by an assertion of its source; some of it
(uint8 codes, an opset it does not know) it takes silently, and computes something else.
`strata lint` looks further; these are the rules a build cannot do without.

Source: TensorRT documentation, "Working with Quantized Types" and "ONNX Opset Guide";
tried on tensorrt-rtx 1.7.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

from core.errors import BuildError
from deploy.engines.target import NOT_FOR_RTX, ComputeCapability, describe
from deploy.onnx_files.graph_types import FLOATS, tensor_types
from deploy.onnx_files.reader import Graph, Node, Tensor

__all__ = ["refuse_graph", "refuse_target"]

_OPSETS = range(9, 26)  # that TensorRT 11 and TensorRT-RTX 1.7 document
_DOMAINS = frozenset({"", "ai.onnx", "trt.plugins"})
_INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_TURING = ComputeCapability(7, 5)


def refuse_target(
    flavour: str, wanted: Iterable[ComputeCapability], available: tuple[ComputeCapability, ...]
) -> None:
    """Refuse targets that the flavour cannot build for.

    Args:
        flavour: ``"rtx"`` or ``"tensorrt"``.
        wanted: What was asked for.
        available: For rtx, what it can name; for tensorrt, the GPUs of this machine.

    Raises:
        BuildError: One of them is out of its reach.
    """
    for capability in wanted:
        if capability in available:
            continue
        if flavour != "rtx":
            raise BuildError(
                f"--target {capability}: the flavour tensorrt builds for the GPU of this machine "
                f"({describe(available)})",
                hint="build on the machine that has that GPU, or with --flavour rtx",
            )
        known = NOT_FOR_RTX.get(capability)
        what = f"{capability} ({known})" if known else str(capability)
        if known and known.startswith("Jetson"):
            hint = "build on the Jetson itself with --flavour tensorrt, which JetPack brings"
        elif known:
            hint = "build with --flavour tensorrt on a machine that has that GPU"
        else:
            hint = f"it builds for {describe(available)}"
        raise BuildError(f"--target {what}: TensorRT-RTX does not serve this GPU", hint=hint)


def refuse_graph(graph: Graph, where: str, capabilities: Iterable[ComputeCapability]) -> None:
    """Refuse a graph that TensorRT cannot build as it is meant.

    Args:
        graph: The ONNX file's structure.
        where: The file, for the error text.
        capabilities: Targets that were asked for by name.

    Raises:
        BuildError: The first offence, with its node.
    """
    if graph.opset not in _OPSETS:
        raise BuildError(
            f"{where}: opset {graph.opset}; TensorRT's parser knows {_OPSETS[0]} to {_OPSETS[-1]}",
            hint="export it again with --opset 20",
        )
    types = tensor_types(graph)
    for node in graph.nodes:
        _refuse_foreign_operator(node, graph, where)
        if rule := _RULES.get(node.op):
            rule(node, graph, where)
        _refuse_mixed_types(node, types, where)
        if _TURING in capabilities and node.op in {"Gemm", "MatMul"}:
            _refuse_on_turing(node, types, where)


def _refuse_foreign_operator(node: Node, graph: Graph, where: str) -> None:
    """TensorRT's parser goes by the name alone: another domain's Relu becomes ONNX's."""
    if node.domain in _DOMAINS or (node.domain, node.op) in graph.functions:
        return
    if node.op in {"QuantizeLinear", "DequantizeLinear"}:  # ONNX Runtime's are the same
        return
    raise _at(
        node,
        where,
        f"an operator of {node.domain}, which TensorRT does not have",
        "export the network with standard ONNX operators (optimizations off, no fused ops)",
    )


def _refuse_zero_point(node: Node, graph: Graph, where: str) -> None:
    """Q and DQ: codes are int8 with zero point 0, scales are constant and positive."""
    if len(node.inputs) > 1 and _is_computed(node.inputs[1], graph):
        raise _at(
            node,
            where,
            f"its scale {node.inputs[1]} is not constant, on which TensorRT-RTX ends the process",
            "fix the scales at calibration (strata quantize does)",
        )
    scale, zero = (_constant(node, graph, at) for at in (1, 2))
    kind = _code_type(node, zero, graph)
    if kind in {"uint8", "uint16", "int16", "int32"}:
        raise _at(
            node,
            where,
            f"codes are {kind}; TensorRT has INT8 with zero point 0"
            + (", and would read these bytes as INT8" if kind == "uint8" else ""),
            "keep the bias a plain float, without DequantizeLinear"
            if kind == "int32"
            else "quantize symmetrically to int8 (strata quantize does)",
        )
    if zero and zero.values and any(zero.values):
        raise _at(
            node,
            where,
            f"zero point {next(filter(None, zero.values))}; TensorRT has zero point 0 only",
            "quantize symmetrically (strata quantize does)",
        )
    bad = [v for v in (scale and scale.values) or () if not (v > 0 and math.isfinite(v))]
    if bad:
        raise _at(
            node,
            where,
            f"scale {bad[0]}; TensorRT wants every scale finite and > 0",
            "quantize again with strata quantize, which gives an all-zero channel a safe scale",
        )


def _is_computed(name: str, graph: Graph) -> bool:
    """Tell whether a tensor may differ from run to run; a copy of a constant does not."""
    if name in graph.constants:
        return False
    makers = {output: node for node in graph.nodes for output in node.outputs}
    for _ in graph.nodes:
        maker = makers.get(name)
        if maker is None or maker.op != "Identity":
            return name not in graph.constants and (maker is None or maker.op != "Constant")
        name = maker.inputs[0]
    return True


def _code_type(node: Node, zero: Tensor | None, graph: Graph) -> str | None:
    """Return the type of the codes; None when it cannot be told."""
    if zero is not None:
        return zero.dtype
    if node.op == "QuantizeLinear":
        # Without a zero point the codes are uint8, unless output_dtype (opset 21) says more.
        return None if node.numbers.get("output_dtype") or len(node.inputs) > 2 else "uint8"
    codes = _constant(node, graph, 0)
    return codes.dtype if codes else None


def _refuse_integer_op(node: Node, graph: Graph, where: str) -> None:
    del graph
    raise _at(
        node,
        where,
        "TensorRT quantizes by Q/DQ nodes, not by integer operators",
        "quantize the float network in QDQ format (strata quantize does)",
    )


def _refuse_unsaid_half(node: Node, graph: Graph, where: str) -> None:
    """ONNX keeps the upper part where nothing is said, TensorRT's parser the lower one."""
    del graph
    if "upper" not in node.numbers:
        raise _at(
            node,
            where,
            "does not say which part it keeps; ONNX then keeps the upper one, TensorRT the lower",
            "give it the attribute upper=1",
        )


_RULES: Mapping[str, Callable[[Node, Graph, str], None]] = {
    "QuantizeLinear": _refuse_zero_point,
    "DequantizeLinear": _refuse_zero_point,
    "Trilu": _refuse_unsaid_half,
    **dict.fromkeys(_INTEGER_OPS, _refuse_integer_op),
}


def _refuse_mixed_types(node: Node, types: Mapping[str, str | None], where: str) -> None:
    """A strongly typed network computes in the type it is given: all inputs have one."""
    if node.op not in {"Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div"}:
        return
    seen = {name: kind for name in node.inputs if (kind := types.get(name)) in FLOATS}
    if len(set(seen.values())) > 1:
        inputs = ", ".join(f"{name} {kind}" for name, kind in seen.items())
        raise _at(
            node,
            where,
            f"mixes float types ({inputs})",
            "make the graph with strata quantize --precision fp16 or int8, which types it alike",
        )


def _refuse_on_turing(node: Node, types: Mapping[str, str | None], where: str) -> None:
    if types.get(node.inputs[0]) == "float32":
        raise _at(
            node,
            where,
            "computes in FP32, which TensorRT-RTX cannot build for sm75",
            "strata quantize --precision fp16 makes an FP16 graph; or leave sm75 out of --target",
        )


def _constant(node: Node, graph: Graph, at: int) -> Tensor | None:
    return graph.constants.get(node.inputs[at]) if len(node.inputs) > at else None


def _at(node: Node, where: str, problem: str, hint: str) -> BuildError:
    name = repr(node.name) if node.name else f"that makes {', '.join(node.outputs)}"
    return BuildError(f"{where}: node {name} ({node.op}): {problem}", hint=hint)
