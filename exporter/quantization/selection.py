"""Which layers there are to quantize, chosen by name, by glob or by operator."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

import onnx_ir as ir

from core.errors import InputError
from exporter.passes.base import is_op
from exporter.quantization.plan import Selection

__all__ = ["LAYERS", "is_constant", "select", "weight_axis"]

LAYERS = ("Conv", "Gemm", "MatMul")
# Where placement has a rule too.
_OTHERS = ("Add", "Sum", "GlobalAveragePool", "AveragePool", "Concat")


def select(graph: ir.Graph, selection: Selection) -> set[ir.Node]:
    """Return the nodes at which the placement rules may apply.

    Args:
        graph: A graph whose nodes have names.
        selection: The user's patterns.

    Raises:
        InputError: A pattern that matches no node, which is a typing error more often than not.
    """
    layers = [node for node in graph if is_op(node, *LAYERS)]
    others = [node for node in graph if is_op(node, *_OTHERS)]
    included = _matching(layers, selection.include, "--include")
    excluded = _matching([*layers, *others], selection.exclude, "--exclude")
    return ({*(included if selection.include else layers), *others}) - excluded


def weight_axis(node: ir.Node) -> tuple[int, str]:
    """Return the output-channel axis of a layer's weight, and why it cannot be quantized."""
    weight = node.inputs[1]
    if weight is None or not is_constant(weight) or weight.const_value is None:
        return 0, "its weight is not constant"
    if weight.dtype != ir.DataType.FLOAT:
        return 0, f"its weight is {weight.dtype}, not float32"
    if is_op(node, "Conv"):
        return 0, ""
    if len(weight.const_value.shape) != 2:
        return 0, "its weight is not a matrix"
    if is_op(node, "MatMul"):
        return 1, ""
    if node.attributes.get_int("transA", 0):
        return 0, "its input is transposed"
    return (0 if node.attributes.get_int("transB", 0) else 1), ""


def is_constant(value: ir.Value) -> bool:
    """Tell whether a tensor is the same in every run."""
    return value.is_initializer() and not value.is_graph_input()


def _matching(nodes: Sequence[ir.Node], patterns: Iterable[str], option: str) -> set[ir.Node]:
    """Return the nodes that match any pattern; refuse a pattern that matches none."""
    found: set[ir.Node] = set()
    for pattern in patterns:
        hits = {node for node in nodes if any(fnmatchcase(n, pattern) for n in _names(node))}
        if not hits:
            known = sorted({name for node in nodes for name in _names(node)})
            near = difflib.get_close_matches(pattern, known, n=3) or known[:3]
            raise InputError(
                f"{option} {pattern!r} matches no layer",
                hint=f"give a node's name, a glob or an operator, such as {', '.join(near)}",
            )
        found |= hits
    return found


def _names(node: ir.Node) -> list[str]:
    """Return what a pattern may call a node."""
    names = [node.name, node.op_type, *(value.name for value in node.outputs)]
    return [name for name in names if name]
