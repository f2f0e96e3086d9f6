"""What each layer of a graph computes, as far as its rounding can be told from it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from deploy.comparison.graph import Constants, Graph

__all__ = ["Kind", "LayerFacts", "LayerReader", "Source", "Weights", "Window", "strides_of"]

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
# Between a tensor that is compared and the layer that reads it, these change no value.
_THROUGH = {"Identity", "Cast", "Flatten", "Dropout"}


@dataclass(frozen=True, slots=True)
class Source:
    """A compared tensor that a layer reads, and whether as INT8 codes."""

    tensor: str
    quantized: bool


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution moves over its input, axis by axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]  # before each axis

    @classmethod
    def of(cls, node: onnx.NodeProto, kernel: tuple[int, ...]) -> Window:
        """Read a Conv; its padding by ``auto_pad`` counts as none."""
        axes = len(kernel)
        ones = [1] * axes
        return cls(
            kernel,
            tuple(_attribute(node, "strides", ones)),
            tuple(_attribute(node, "dilations", ones)),
            tuple(_attribute(node, "pads", [0] * 2 * axes))[:axes],
        )

    @property
    def skips(self) -> bool:
        """Whether it leaves out elements of its input."""
        return any(k < s for k, s in zip(self.kernel, self.strides, strict=True))

    def coverage(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        """Return, for each tap, the share of outputs for which it lies inside the input.

        Args:
            inputs: Spatial size of the input.
            outputs: Of the output.

        Returns:
            (taps,)
        """
        shares = np.ones(1)
        for axis, taps in enumerate(self.kernel):
            starts = np.arange(outputs[axis]) * self.strides[axis] - self.pads[axis]
            at = starts[None, :] + np.arange(taps)[:, None] * self.dilations[axis]
            inside = ((at >= 0) & (at < inputs[axis])).mean(axis=1)
            shares = np.multiply.outer(shares, inside).reshape(-1)
        return shares


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of a convolution or matrix product.

    Attributes:
        values: (outputs, inputs of a group, taps), real units, float32.
        step: Real units a code, (outputs,); None for weights in float.
        bias: (outputs,); None for none.
        groups: Of the convolution.
        window: How it moves over its input; None for a matrix product.
    """

    values: Array
    step: Array | None
    bias: Array | None
    groups: int = 1
    window: Window | None = None


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


@dataclass(slots=True, eq=False)
class _Layers:
    graph: Graph
    compared: Collection[str]
    constants: Constants = field(init=False)
    makers: dict[str, onnx.NodeProto] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = Constants(self.graph)
        self.makers = {name: n for n in self.graph.model.graph.node for name in n.output if name}

    def source(self, name: str) -> Source | None:
        """Return the compared tensor that a name leads back to."""
        quantized = False
        while name not in self.compared:
            node = self.makers.get(name)
            if node is None:
                return None
            if node.op_type == "DequantizeLinear":
                quantized = True
            elif node.op_type != "QuantizeLinear" and node.op_type not in _THROUGH:
                return None
            name = node.input[0]
        return Source(name, quantized)

    def real(self, name: str) -> str:
        """Return the tensor whose codes a name holds; the name itself if it holds none."""
        node = self.makers.get(name)
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            name = node.input[0]
            node = self.makers.get(name)
        return name

    def value(self, name: str) -> tuple[Array, Array | None, int] | None:
        """Return a constant in real units, its step where it is quantized, and the step's axis."""
        array = self.constants.get(name)
        if array is not None:
            return array, None, 0
        node = self.makers.get(name)
        if node is None or node.op_type not in (*_THROUGH, "DequantizeLinear", "Transpose"):
            return None
        inner = self.constants.get(node.input[0])
        if inner is None:
            return None
        if node.op_type == "Transpose":
            return np.transpose(inner, _attribute(node, "perm", None)), None, 0
        if node.op_type != "DequantizeLinear":
            return inner, None, 0
        scale = self.constants.get(node.input[1])
        if scale is None or scale.ndim > 1:
            return None
        axis = int(_attribute(node, "axis", 1)) % inner.ndim if scale.size > 1 else 0
        shape = [1] * inner.ndim
        if scale.size > 1:
            shape[axis] = -1
        zero = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        codes = inner.astype(np.float32)
        if zero is not None and zero.any():
            codes = codes - zero.astype(np.float32).reshape(shape if zero.size > 1 else ())
        return codes * scale.astype(np.float32).reshape(shape), scale.reshape(-1), axis


class LayerReader:
    """Reads the layers of a graph, one when it is asked for: their weights are not kept.

    Args:
        graph: Shifted tensors go by their own names in it.
        compared: Tensors that are compared, and that layers can be fed.
        types: Gives their types in this graph.
    """

    def __init__(
        self, graph: Graph, compared: Collection[str], types: Callable[[str], str]
    ) -> None:
        self._layers = _Layers(graph, compared)
        self._types = types

    def layer(self, tensor: str) -> LayerFacts | None:
        """Return the layer that makes a compared tensor; None when none does."""
        node = self._layers.makers.get(tensor)
        if node is None:
            return None
        return _facts(self._layers, node, tensor, self._types(tensor))


def _facts(graph: _Layers, made: onnx.NodeProto, tensor: str, dtype: str) -> LayerFacts:
    node = made
    while node.op_type in _THROUGH and node.input[0] not in graph.compared:
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
    weights = _weights(graph, node) if kind is Kind.PRODUCT and sources else None
    if kind is Kind.PRODUCT and weights is None:
        kind = Kind.UNKNOWN
    codes = weights is not None and weights.step is not None and sources[0].quantized
    codes = codes or (kind is not Kind.PRODUCT and any(source.quantized for source in sources))
    if weights is not None and not codes:
        dtype = str(weights.values.dtype)
    precision = "INT8" if codes else _PRECISIONS.get(dtype, dtype)
    return LayerFacts(tensor, node.name or tensor, kind, sources, precision, weights)


_PRECISIONS = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16", "float64": "FP64"}


def _weights(graph: _Layers, node: onnx.NodeProto) -> Weights | None:
    """Return the weights of a Conv, Gemm or MatMul, with the output first."""
    found = graph.value(node.input[1])
    if found is None or found[0].ndim < 2:
        return None
    values, step, axis = found
    groups = int(_attribute(node, "group", 1))
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not _attribute(node, "transB", 0)):
        values, axis = np.swapaxes(values, 0, 1), 1 - axis
    if _attribute(node, "transA", 0):
        return None
    if step is not None and (step.size == 1 or axis == 0):
        step = np.broadcast_to(step, len(values))
    elif step is not None:  # along the inputs: the largest bounds them all
        step = np.full(len(values), step.max())
    bias = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    alpha = float(_attribute(node, "alpha", 1.0))
    flat = values.reshape(len(values), values.shape[1], -1)
    return Weights(
        values=flat * np.float32(alpha) if alpha != 1.0 else flat,
        step=step,
        bias=None if bias is None else np.broadcast_to(bias[0].reshape(-1), len(values)),
        groups=groups,
        window=Window.of(node, values.shape[2:]) if node.op_type == "Conv" else None,
    )


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default


def strides_of(graph: Graph) -> dict[str, tuple[int, ...]]:
    """Return the tensors that a convolution reads only every so many elements of, and how many."""
    layers = _Layers(graph, ())
    found: dict[str, tuple[int, ...]] = {}
    for node in graph.model.graph.node:
        if node.op_type != "Conv":
            continue
        kernel = tuple(_attribute(node, "kernel_shape", ()))
        window = Window.of(node, kernel)
        source = layers.real(node.input[0])
        if kernel and window.skips and not any(window.pads):
            found.setdefault(source, window.strides)
    return found
