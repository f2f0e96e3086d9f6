"""Rules of residual additions: Q/DQ on the shortcut, and only there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.graph import Graph
from exporter.rules.node import Node, named
from exporter.rules.view import View

__all__ = ["RULES"]


@rule(
    "main-branch",
    Severity.WARNING,
    way_out="remove that pair: an addition wants Q/DQ on its shortcut only",
)
def main_branch(view: View) -> Iterator[Fault]:
    """Where a Conv's result goes into an addition, it is not quantized before.

    The addition is computed in the Conv's kernel; a Q between them takes it out. Source:
    NVIDIA, TensorRT documentation, "Explicit quantization"; ModelOpt pull request 425.
    """
    for addition in _additions(view):
        if addition.mains and all(main in view.int8 for main in addition.mains):
            tensor = view.real(addition.mains[0])
            pair = view.pairs_on(tensor)[0]
            yield Fault(pair.node, tensor, f"quantized before {named(addition.node)}")


@rule(
    "shortcut",
    Severity.WARNING,
    way_out="quantize the shortcut: an identity with the pair of the block's input, a projection "
    "with a scale of its own",
)
def shortcut(view: View) -> Iterator[Fault]:
    """Where a Conv's result goes into an addition, the other branch is quantized.

    The addition gives float otherwise, and the Q behind it cannot be computed in the Conv's
    kernel. Source: NVIDIA, TensorRT documentation, "Explicit quantization"; TensorRT issue
    1992; tried on tensorrt-rtx 1.7.1 (the float tensor is written and read again).
    """
    for addition in _additions(view):
        floats = [main for main in addition.mains if main not in view.int8]
        main = (floats or addition.mains or [""])[0]
        others = [name for name in addition.inputs if name != main]
        if main and others and others[0] not in view.int8:
            yield Fault(addition.node, others[0], "the shortcut is not quantized")


@rule("broadcast-add", Severity.WARNING, way_out="quantize no input of an Add that broadcasts")
def broadcast_add(view: View) -> Iterator[Fault]:
    """An addition that broadcasts has no Q/DQ pair of its own.

    It fuses with nothing, so the pair only costs accuracy. Source: NVIDIA, TensorRT
    documentation, "Explicit quantization" (residual additions).
    """
    for node in view.graph.nodes:
        if not node.is_op("Add", "Sum") or _same_shape(view.graph, node.inputs):
            continue
        for name in node.inputs:
            found = view.dequantizer(name)
            if found and found.pair and not found.constant and view.graph.sole_reader(name):
                tensor = view.real(name)
                yield Fault(found.pair, tensor, f"a pair for {named(node)}, which broadcasts")


RULES: tuple[Rule, ...] = (main_branch, shortcut, broadcast_add)


@dataclass(frozen=True, slots=True)
class _Addition:
    """A residual addition: of ``inputs``, ``mains`` come from an INT8 layer for it alone."""

    node: Node
    inputs: tuple[str, str]
    mains: tuple[str, ...]  # the one with most layers behind it first


def _additions(view: View) -> Iterator[_Addition]:
    depths: dict[str, int] = {}
    for node in view.graph.nodes:
        depth = max((depths.get(name, 0) for name in node.inputs if name), default=0)
        depths |= dict.fromkeys(filter(None, node.outputs), depth + (node in view.layers))
        if not node.is_op("Add", "Sum") or len(node.inputs) != 2:
            continue
        one, other = node.inputs
        if one == other or not _same_shape(view.graph, node.inputs):
            continue
        if any(map(view.graph.is_constant, node.inputs)):
            continue
        mains = [name for name in (one, other) if _ends_in(view, name, node)]
        mains.sort(key=lambda name: -depths.get(name, 0))
        yield _Addition(node, (one, other), tuple(mains))


def _ends_in(view: View, name: str, add: Node) -> bool:
    """Tell whether an INT8 layer makes a tensor for ``add`` alone, through a pair or without."""
    tensor = view.real(name)
    if tensor == name:
        return view.fused_into(name, add)
    pair = view.pairs_on(tensor)[0].node
    alone = view.graph.sole_reader(name) is add and view.graph.sole_reader(pair.outputs[0])
    return bool(alone) and view.fused_into(tensor, pair)


def _same_shape(graph: Graph, names: tuple[str, ...]) -> bool:
    """Tell whether tensors can have one shape."""
    shapes = [shape for name in names if (shape := graph.shape(name)) is not None]
    if len({len(shape) for shape in shapes}) > 1:
        return False
    return all(len(set(sizes) - {None}) < 2 for sizes in zip(*shapes, strict=True))
