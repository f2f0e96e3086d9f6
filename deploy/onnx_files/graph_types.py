"""The element type of each tensor of an ONNX graph, as far as it can be told."""

from __future__ import annotations

from collections.abc import Mapping

from deploy.onnx_files.reader import ELEMENT_TYPES, Graph, Node

__all__ = ["FLOATS", "tensor_types"]

FLOATS = frozenset({"float32", "float16", "bfloat16", "float64"})
_BOOLEAN = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "IsNaN", "Not"})
_INTEGER = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero"})


def tensor_types(graph: Graph) -> dict[str, str | None]:
    """Return tensor name → element type; None where it cannot be told.

    Operators of a convolutional network give their first input's type, except those named
    here.
    """
    types: dict[str, str | None] = {t.name: t.dtype for t in graph.inputs}
    types |= {name: constant.dtype for name, constant in graph.constants.items()}
    for node in graph.nodes:
        kind = _output_type(node, types)
        types |= {name: kind for name in node.outputs if name not in graph.constants}
    return types


def _output_type(node: Node, types: Mapping[str, str | None]) -> str | None:
    def of(index: int) -> str | None:
        return types.get(node.inputs[index]) if len(node.inputs) > index else None

    if node.op in _BOOLEAN:
        return "bool"
    if node.op in _INTEGER:
        return "int64"
    if node.op in {"DequantizeLinear", "Where"}:
        return of(1)  # the scale's type; the first choice's type
    if node.op == "QuantizeLinear":
        return of(2)
    if node.op == "Cast":
        return ELEMENT_TYPES.get(node.numbers.get("to", 0))
    return of(0)
