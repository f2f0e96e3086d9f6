"""What each layer of a graph computes, as far as its rounding can be told from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy.typing as npt
import onnx

from deploy.comparison.graphs.graph import Graph
from deploy.comparison.graphs.holding import AS_IT_IS, Holdings
from deploy.comparison.graphs.layer_weights import Weights, Window, weights_of
from deploy.comparison.graphs.lineage import THROUGH, Lineage, Source, attribute

__all__ = ["Kind", "LayerFacts", "LayerReader", "strides_of"]

Array = npt.NDArray[Any]


class Kind(StrEnum):
    """How a layer passes on the noise of its inputs."""

    PRODUCT = "product"  # a convolution or matrix product with constant weights
    SUM = "sum"
    EXACT = "exact"  # picks or moves values, or is monotonous with a slope of at most 1
    MEAN = "mean"
    CONCAT = "concat"
    UNKNOWN = "unknown"


_KINDS = {
    "Add": Kind.SUM,
    "Sub": Kind.SUM,
    "Sum": Kind.SUM,
    "Concat": Kind.CONCAT,
    "GlobalAveragePool": Kind.MEAN,
    "AveragePool": Kind.MEAN,
    "ReduceMean": Kind.MEAN,
    **dict.fromkeys(
        ("Relu", "Clip", "MaxPool", "Flatten", "Identity", "Dropout", "Cast", "Squeeze", "Pad"),
        Kind.EXACT,
    ),
    **dict.fromkeys(("Conv", "Gemm", "MatMul"), Kind.PRODUCT),
}


@dataclass(frozen=True, slots=True, eq=False)
class LayerFacts:
    """One layer.

    Attributes:
        tensor: What it makes.
        node: Its name.
        kind: How it passes noise on.
        sources: What it reads of the compared tensors, in order; empty for one that cannot
            be told.
        precision: What it computes in.
        weights: Of a product.
    """

    tensor: str
    node: str
    kind: Kind
    sources: tuple[Source, ...]
    precision: str
    weights: Weights | None = None


class LayerReader:
    """Reads the layers of a graph, one when it is asked for: their weights are not kept.

    Args:
        graph: Its tensors go by their own names.
        compared: Tensors that are compared, and that layers can be fed.
        holdings: How the graph holds those that it does not hold as they are.
        types: Gives their types in this graph.
    """

    def __init__(
        self,
        graph: Graph,
        compared: Collection[str],
        holdings: Holdings,
        types: Callable[[str], str],
    ) -> None:
        self._layers = Lineage(graph, compared)
        self._holdings = holdings
        self._types = types

    def layer(self, tensor: str) -> LayerFacts | None:
        """Return the layer that makes a compared tensor; None when none does."""
        node = self._layers.makers.get(tensor)
        if node is None:
            return None
        facts = _facts(self._layers, node, tensor, self._types(tensor))
        if facts.weights is None:
            return facts
        read, made = (self._holdings.get(n, AS_IT_IS) for n in (facts.sources[0].tensor, tensor))
        return replace(facts, weights=facts.weights.in_units(read, made))


def _facts(graph: Lineage, made: onnx.NodeProto, tensor: str, dtype: str) -> LayerFacts:
    node = made
    while node.op_type in THROUGH and node.input[0] not in graph.compared:
        before = graph.makers.get(node.input[0])
        if before is None or before.op_type == "DequantizeLinear":
            break
        node = before
    kind = _KINDS.get(node.op_type, Kind.UNKNOWN)
    data = [name for name in node.input if name and graph.value(name) is None]
    if kind is Kind.PRODUCT:
        data = data[:1] if len(data) == 1 else []
    found = [graph.source(name) for name in data]
    sources = tuple(source for source in found if source is not None)
    if len(sources) != len(data) or (kind is Kind.EXACT and len(sources) != 1):
        sources = ()
    weights = weights_of(graph, node) if kind is Kind.PRODUCT and sources else None
    if kind is Kind.PRODUCT and weights is None:
        kind = Kind.UNKNOWN
    codes = weights is not None and weights.step is not None and sources[0].quantized
    codes = codes or (kind is not Kind.PRODUCT and any(source.quantized for source in sources))
    if weights is not None and not codes:
        dtype = str(weights.values.dtype)
    precision = "INT8" if codes else _PRECISIONS.get(dtype, dtype)
    return LayerFacts(tensor, node.name or tensor, kind, sources, precision, weights)


_PRECISIONS = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "float64": "FP64"}


def strides_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a convolution reads only every so many elements of, and how many."""
    layers = Lineage(graph, ())
    found: dict[str, tuple[int, ...]] = {}
    for node in graph.model.graph.node:
        if node.op_type != "Conv":
            continue
        kernel = tuple(attribute(node, "kernel_shape", ()))
        window = Window.of(node, kernel)
        source = layers.real(node.input[0])
        if kernel and window.skips and not any(window.pads):
            found.setdefault(source, window.strides)
    return found
