"""Rules of the file as a whole: operators, types and versions that TensorRT takes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.node import FLOATS, ONNX, Node
from exporter.rules.quantizer import is_dq, is_q
from exporter.rules.view import View

__all__ = ["RULES"]

_OPSETS = range(9, 26)  # that TensorRT 11 and TensorRT-RTX 1.7 document
_PLUGINS = "trt.plugins"
_INTEGER = (
    *("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"),
)
_TYPED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div")


@rule(
    "integer-operator",
    Severity.ERROR,
    way_out="quantize in QDQ format; ONNX Runtime: quant_format=QuantFormat.QDQ",
)
def integer_operator(view: View) -> Iterator[Fault]:
    """INT8 is said with Q/DQ nodes, not with integer operators.

    TensorRT has neither QLinearConv nor any other operator on codes ("this operator is not
    supported"), and no scales computed at run time. Source: tried on tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        if node.is_op(*_INTEGER):
            yield Fault(node, _made(node), f"{node.op} computes on codes")


@rule(
    "foreign-operator",
    Severity.ERROR,
    way_out="export with standard ONNX operators (optimizations and fused operators off)",
)
def foreign_operator(view: View) -> Iterator[Fault]:
    """Every operator is ONNX's own, a function of the file, or a plugin.

    TensorRT's parser goes by the name alone: what it does not know it refuses, and another
    domain's Relu becomes ONNX's Relu. Source: tried on tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        if (node.domain, node.op) in view.graph.functions or node.domain == _PLUGINS:
            continue
        if node.domain not in ONNX:
            if not (is_q(node) or is_dq(node)):
                yield Fault(node, _made(node), f"{node.op} of the domain {node.domain}")
        elif not onnx.defs.has(node.op) and not node.op.endswith("_TRT"):  # as plugins are called
            yield Fault(node, _made(node), f"{node.op!r} is not an operator of ONNX")


@rule(
    "float64", Severity.ERROR, way_out="export in float32: model.float() before torch.onnx.export"
)
def float64(view: View) -> Iterator[Fault]:
    """Nothing is float64.

    TensorRT computes it in float32, without a word. Source: tried on tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        named = [*node.inputs, *node.outputs]
        found = next((name for name in named if view.graph.dtype(name) == "float64"), None)
        # One finding where it begins: at what makes it, or reads it from outside.
        maker = view.graph.maker(found) if found else None
        if found and (maker is None or maker is node):
            yield Fault(node, found, "float64")


@rule(
    "mixed-types",
    Severity.ERROR,
    way_out="give all inputs one type, as strata quantize does; or insert a Cast",
)
def mixed_types(view: View) -> Iterator[Fault]:
    """The float inputs of an operator have one type.

    A strongly typed network never casts by itself: "input and bias must be of same type".
    Source: NVIDIA, TensorRT documentation, "Strongly Typed Networks"; tried on
    tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        if not node.is_op(*_TYPED):
            continue
        kinds = {name: view.graph.dtype(name) for name in node.inputs if name}
        floats = {name: kind for name, kind in kinds.items() if kind in FLOATS}
        if len(set(floats.values())) > 1:
            *_, last = floats
            said = ", ".join(f"{name} {kind}" for name, kind in floats.items())
            yield Fault(node, last, f"mixes {said}")


@rule("unsaid-part", Severity.ERROR, way_out="give it the attribute upper, 1 or 0")
def unsaid_part(view: View) -> Iterator[Fault]:
    """A Trilu says which part it keeps.

    Where nothing is said ONNX keeps the upper part, and TensorRT's parser the lower one, without
    a word. Source: ONNX, Operators; tried on tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        if node.is_op("Trilu") and "upper" not in node.attributes:
            yield Fault(node, _made(node), "upper in ONNX, lower in TensorRT")


@rule(
    "opset",
    Severity.ERROR,
    way_out="export at opset 19 or newer, or use onnx.version_converter.convert_version",
)
def opset(view: View) -> Iterator[Fault]:
    """The file's opset has what the file uses, and TensorRT's parser knows it.

    Q and DQ came with opset 10, scales for each channel with 13, float16 and bfloat16 scales
    with 19, blocks and output_dtype with 21. TensorRT may build an older file, ONNX Runtime
    refuses it: nothing can check it. The parser documents opsets 9 to 25. Source: ONNX,
    Changelog; NVIDIA, onnx-tensorrt, operators.md.
    """
    graph = view.graph
    version = graph.opset
    if version and version not in _OPSETS and graph.nodes:
        known = f"TensorRT's parser knows {_OPSETS[0]} to {_OPSETS[-1]}"
        yield Fault(graph.nodes[0], _made(graph.nodes[0]), f"opset {version}; {known}")
        return
    for q in view.quantizers.values():
        if q.follows or q.node.domain not in ONNX:
            continue
        needs = {
            10: "QuantizeLinear" if is_q(q.node) else "DequantizeLinear",
            13: "" if q.per_tensor else "a scale for each channel",
            19: _half(graph.dtype(q.node.input(1))),
            21: " and ".join({"block_size", "output_dtype"} & set(q.node.attributes)),
        }
        oldest, what = max((number, text) for number, text in needs.items() if text)
        if 0 < version < oldest:
            yield Fault(q.node, q.data, f"opset {version}; {what} needs {oldest}")


RULES: tuple[Rule, ...] = (
    *(integer_operator, foreign_operator, float64, mixed_types, unsaid_part, opset),
)


def _made(node: Node) -> str:
    return next(filter(None, node.outputs), "")


def _half(kind: str | None) -> str:
    return f"a {kind} scale" if kind in ("float16", "bfloat16") else ""
