"""Where a graph is quantized: Q and DQ nodes, pairs, and the layers that read them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from exporter.rules.graph import Graph
from exporter.rules.node import Array, Node
from exporter.rules.quantizer import Quantizer, is_dq, is_q

__all__ = ["MOVES", "Layer", "View", "view_of"]

_LAYERS = ("Conv", "Gemm", "MatMul")
# Operators that move values and make none: INT8 goes through them.
MOVES = (
    *("MaxPool", "Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"),
    *("Transpose", "Slice", "Pad"),
)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A Conv, Gemm or MatMul with constant weights.

    Attributes:
        node: The node.
        weight: The DQ of its weight; None for a float weight.
        between: Nodes between that DQ and the layer, in order.
        int8_input: Whether its input holds dequantized values.
    """

    node: Node
    weight: Quantizer | None
    between: tuple[Node, ...]
    int8_input: bool

    @property
    def int8(self) -> bool:
        """Whether TensorRT can compute it in INT8."""
        return self.int8_input and self.weight is not None


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A graph, and what of it is quantized.

    Attributes:
        graph: The graph.
        quantizers: Every Q and DQ, by node, in order.
        int8: Tensors of dequantized values, moved or joined.
        layers: Every layer with constant weights, by node, in order.
        behind: Tensors with an INT8 layer before them.
        before: Tensors with an INT8 layer behind them.
    """

    graph: Graph
    quantizers: Mapping[Node, Quantizer]
    int8: frozenset[str] = field(repr=False)
    layers: Mapping[Node, Layer]
    behind: frozenset[str] = field(repr=False)
    before: frozenset[str] = field(repr=False)

    @property
    def activations(self) -> Iterator[Quantizer]:
        """Every Q, and every DQ without one, of what differs from run to run."""
        return (q for q in self.quantizers.values() if not q.constant and q.pair is None)

    def dequantizer(self, name: str) -> Quantizer | None:
        """Return the DQ that makes a tensor."""
        maker = self.graph.maker(name)
        return self.quantizers[maker] if maker is not None and is_dq(maker) else None

    def real(self, name: str) -> str:
        """Return the tensor that a pair quantized into ``name``; ``name`` where none did."""
        found = self.dequantizer(name)
        return found.pair.input(0) if found and found.pair else name

    def pairs_on(self, name: str) -> list[Quantizer]:
        """Return each Q that reads a tensor."""
        readers = (node for node in self.graph.readers(name) if node.input(0) == name)
        return [self.quantizers[node] for node in readers if is_q(node)]

    def origin(self, name: str) -> Quantizer | None:
        """Return the DQ that a tensor comes from by moves alone."""
        for _ in range(len(self.graph.nodes)):
            maker = self.graph.maker(name)
            if maker is None or is_dq(maker):
                return self.dequantizer(name)
            if not maker.is_op(*MOVES):
                return None
            name = maker.input(0)
        return None

    def ends(self, name: str) -> list[Quantizer]:
        """Return each Q that a tensor leads to by moves alone."""
        found: list[Quantizer] = []
        names = [name]
        for tensor in names:  # grows as it goes
            found += self.pairs_on(tensor)
            movers = (n for n in self.graph.readers(tensor) if n.is_op(*MOVES))
            moved = [n.outputs[:1] for n in movers if n.input(0) == tensor]
            names += [name for made in moved for name in made if name and name not in names]
        return found

    def fused_into(self, name: str, reader: Node) -> bool:
        """Tell whether ``reader`` can be computed in the kernel of the INT8 layer before it."""
        maker = self.graph.maker(name)
        layer = self.layers.get(maker) if maker is not None else None
        return layer is not None and layer.int8 and self.graph.sole_reader(name) is reader


def view_of(graph: Graph) -> View:
    """Find out what of a graph is quantized."""
    quantizers = {n: _quantizer(graph, n) for n in graph.nodes if is_q(n) or is_dq(n)}
    int8 = _int8(graph, quantizers)
    found = {n: _layer(graph, n, quantizers, int8) for n in graph.nodes if n.is_op(*_LAYERS)}
    layers = {node: layer for node, layer in found.items() if layer is not None}
    behind, before = _around(graph, {node for node, layer in layers.items() if layer.int8})
    return View(graph, quantizers, frozenset(int8), layers, behind, before)


def _quantizer(graph: Graph, node: Node) -> Quantizer:
    first, made = node.input(0), node.outputs[0]
    data, codes = (first, made) if is_q(node) else (made, first)
    maker = graph.maker(first)
    pair = maker if is_dq(node) and is_q(maker) else None
    zero = node.input(2)
    return Quantizer(
        node,
        data,
        codes,
        scale=_numbers(graph.constant(node.input(1))),
        zero=_numbers(graph.constant(zero)) if zero else np.zeros(0, np.int8),
        code_type=(graph.dtype(zero) if zero else None) or graph.dtype(codes),
        constant=_is_constant(graph, pair.input(0) if pair else first),
        pair=pair,
    )


def _numbers(array: Array | None) -> Array | None:
    """Return real numbers as they are, and None for text and the like."""
    return array if array is not None and array.dtype.kind not in "OSUMmc" else None


def _is_constant(graph: Graph, name: str) -> bool:
    """Tell whether a tensor is a constant, moved or cast perhaps."""
    for _ in range(len(graph.nodes)):
        maker = graph.maker(name)
        if maker is None or not maker.is_op("Cast", *MOVES):
            break
        name = maker.input(0)
    return graph.is_constant(name)


def _int8(graph: Graph, quantizers: Mapping[Node, Quantizer]) -> set[str]:
    found: set[str] = set()
    for node in graph.nodes:
        if node in quantizers:
            int8 = is_dq(node) and not quantizers[node].constant
        elif node.is_op("Concat"):
            varying = {name for name in node.inputs if not graph.is_constant(name)}
            int8 = bool(varying) and varying <= found
        else:
            int8 = node.is_op("Cast", *MOVES) and node.input(0) in found
        if int8:
            found.update(node.outputs[:1])
    return found


def _layer(
    graph: Graph, node: Node, quantizers: Mapping[Node, Quantizer], int8: set[str]
) -> Layer | None:
    """Return the layer of a node; None for a product of two activations."""
    between: list[Node] = []
    name = node.input(1)
    maker = graph.maker(name)
    while maker is not None and maker.is_op("Cast", *MOVES) and len(between) < len(graph.nodes):
        between.insert(0, maker)
        name = maker.input(0)
        maker = graph.maker(name)
    weight = quantizers[maker] if maker is not None and is_dq(maker) else None
    if not (graph.is_constant(name) if weight is None else weight.constant):
        return None
    return Layer(node, weight, tuple(between), node.input(0) in int8)


def _around(graph: Graph, layers: set[Node]) -> tuple[frozenset[str], frozenset[str]]:
    """Return the tensors with one of ``layers`` before them, and those with one behind."""
    behind: set[str] = set()
    for node in graph.nodes:
        if node in layers or not behind.isdisjoint(node.inputs):
            behind.update(filter(None, node.outputs))
    before: set[str] = set()
    for node in reversed(graph.nodes):
        if node in layers or not before.isdisjoint(node.outputs):
            before.update(filter(None, node.inputs))
    return frozenset(behind), frozenset(before)
