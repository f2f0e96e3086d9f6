"""Decide where Q/DQ goes, by the patterns of a float graph alone.

1. Conv, Gemm and MatMul with constant weights: the input gets a pair, once for each distinct
   tensor; the weight becomes INT8 along its output channels. The bias stays float.
2. Add of two tensors, one of them made by a quantized Conv or Gemm for this Add alone: that
   one is the main branch, computed inside its producer's kernel, and stays float. The other,
   the shortcut, gets a pair; where it is a Conv's input too (identity block) it has one
   already. If both could be the main branch, it is the one with more layers behind it.
3. GlobalAveragePool or AveragePool that leads to a quantized layer: its input gets a pair.
4. Concat whose result is quantized: so is every input, all with the scale of the result.
5. MaxPool, Reshape, Slice, Pad and their like move values and make none: nothing is added for
   them, and where both sides are quantized they share a scale.

All readers of a quantized tensor read it dequantized, except layers that are left in float;
graph outputs stay float. Source: NVIDIA, TensorRT documentation, "Explicit quantization".
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from core.errors import GraphError
from exporter.graph_file import from_proto
from exporter.passes.base import dims, is_op, sole_consumer
from exporter.passes.name_nodes import name_nodes
from exporter.quantization.plan import Activation, QuantizationPlan, Selection, Weight
from exporter.quantization.selection import LAYERS, is_constant, select, weight_axis

__all__ = ["named_graph", "plan_quantization"]

_MOVES = (
    *("MaxPool", "Identity", "Dropout", "Flatten", "Reshape", "Squeeze", "Unsqueeze"),
    *("Transpose", "Slice", "Pad"),
)
_MEANS = ("GlobalAveragePool", "AveragePool")
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul")


def named_graph(model: onnx.ModelProto) -> ir.Model:
    """Return the graph for editing, every node with the name that a plan calls it by."""
    graph = from_proto(model)
    name_nodes(graph)
    return graph


def plan_quantization(
    model: onnx.ModelProto, selection: Selection | None = None
) -> QuantizationPlan:
    """Return what of a float32 graph is to be quantized.

    Args:
        model: The graph after the passes (a foreign one as well as they make it); untouched.
        selection: Layers to take and to leave; None takes all.

    Raises:
        GraphError: It is quantized already, or there is nothing to quantize.
        InputError: A pattern of the selection matches nothing.
    """
    graph = named_graph(model).graph
    for node in graph:
        if is_op(node, *_QUANTIZED):
            raise GraphError(
                f"node {node.name!r} is a {node.op_type}: the graph is quantized already",
                hint="name the float model (optimized.onnx)",
            )
    draft = _Draft(graph, select(graph, selection or Selection()))
    if not draft.layers:
        raise GraphError(
            "no Conv, Gemm or MatMul with constant weights to quantize",
            hint="check --include and --exclude, or run strata optimize first",
        )
    draft.add_layers()
    draft.add_shortcuts()
    draft.add_means()
    draft.add_concats()
    return draft.plan()


class _Draft:
    """A plan in the making: the rules add to it one after the other."""

    def __init__(self, graph: ir.Graph, chosen: set[ir.Node]) -> None:
        self.graph = graph
        self.chosen = chosen
        self.left: dict[ir.Node, str] = {}
        self.layers = self._layers()
        self.reasons: dict[ir.Value, str] = {}  # a tensor that gets a pair → why
        self.scales: dict[ir.Value, ir.Value] = {}  # union-find: tensor → one of its group

    def _layers(self) -> dict[ir.Node, tuple[ir.Value, int]]:
        """Return layer → its weight and the weight's axis; note why others are left."""
        layers: dict[ir.Node, tuple[ir.Value, int]] = {}
        axes: dict[ir.Value, int] = {}
        for node in self.graph:
            if not is_op(node, *LAYERS):
                continue
            if node not in self.chosen:
                self.left[node] = "not selected"
                continue
            axis, why = weight_axis(node)
            weight = node.inputs[1]
            if why or weight is None:
                self.left[node] = why
            elif axes.setdefault(weight, axis) != axis:
                self.left[node] = "its weight is quantized along another axis elsewhere"
            else:
                layers[node] = weight, axis
        return layers

    def pair(self, value: ir.Value, reason: str) -> None:
        """Give a tensor its pair; the first reason stays."""
        self.reasons.setdefault(value, reason)

    def add_layers(self) -> None:
        """Rule 1."""
        for node in self.layers:
            source = node.inputs[0]
            if source is not None:
                self.pair(source, f"input of {node.op_type} {node.name}")

    def add_shortcuts(self) -> None:
        """Rule 2."""
        depths = _depths(self.graph)
        for node in self.graph:
            if node not in self.chosen or not is_op(node, "Add", "Sum"):
                continue
            inputs = [value for value in node.inputs if value is not None]
            if len(inputs) != 2 or any(map(is_constant, inputs)) or not _same_shape(*inputs):
                continue
            mains = [value for value in inputs if self._fuses_into(value, node)]
            if mains:
                main = max(mains, key=lambda value: depths[value])  # the first of equals
                shortcut = inputs[1] if main is inputs[0] else inputs[0]
                self.pair(shortcut, f"shortcut of {node.op_type} {node.name}")

    def _fuses_into(self, value: ir.Value, node: ir.Node) -> bool:
        """Tell whether ``node`` can be computed in the kernel of the layer that makes ``value``."""
        return value.producer() in self.layers and sole_consumer(value) is node

    def add_means(self) -> None:
        """Rule 3."""
        for node in self.graph:
            if node not in self.chosen or not is_op(node, *_MEANS):
                continue
            source = node.inputs[0]
            leads = any(value in self.reasons for value in _moved(node.outputs[0]))
            if leads and source is not None:
                self.pair(source, f"input of {node.op_type} {node.name}")

    def add_concats(self) -> None:
        """Rules 4 and 5; from the end, so that a Concat of Concats is met before its inputs."""
        for node in reversed(tuple(self.graph)):
            result = node.outputs[0]
            end = next((value for value in _moved(result) if value in self.reasons), None)
            if end is None:
                continue
            if is_op(node, *_MOVES) and node.inputs[0] in self.reasons:
                self._share(node.inputs[0], end)
            elif is_op(node, "Concat") and node in self.chosen:
                for value in node.inputs:
                    if value is not None and not is_constant(value):
                        self.pair(value, f"input of Concat {node.name}")
                        self._share(value, end)
                self.pair(result, f"result of Concat {node.name}")
                self._share(result, end)

    def _share(self, one: ir.Value, other: ir.Value) -> None:
        """Put two tensors into one scale group."""
        self.scales[self._group(one)] = self._group(other)

    def _group(self, value: ir.Value) -> ir.Value:
        while self.scales.get(value, value) is not value:
            value = self.scales[value]
        return value

    def plan(self) -> QuantizationPlan:
        """Return the finished plan, in the order of the graph."""
        order = [value for value in _tensors(self.graph) if value in self.reasons]
        first: dict[ir.Value, str] = {}
        for value in order:  # a group goes by its first tensor
            first.setdefault(self._group(value), str(value.name))
        activations = tuple(
            Activation(
                str(value.name),
                self.reasons[value],
                tuple(dict.fromkeys(str(n.name) for n in value.consumers() if n not in self.left)),
                first[self._group(value)],
                _passed(value),
            )
            for value in order
        )
        weights = {
            weight: (axis, [str(n.name) for n in self.layers if self.layers[n][0] is weight])
            for weight, axis in self.layers.values()
        }
        return QuantizationPlan(
            activations,
            tuple(Weight(str(w.name), axis, tuple(nodes)) for w, (axis, nodes) in weights.items()),
            {str(node.name): why for node, why in self.left.items()},
        )


def _passed(value: ir.Value) -> str:
    """Return what the ReLU behind an addition makes, where nothing else becomes of a tensor."""
    added = sole_consumer(value)
    if added is None or not is_op(added, "Add", "Sum"):
        return ""
    relu = sole_consumer(added.outputs[0])
    if relu is None or not is_op(relu, "Relu") or not _same_shape(value, relu.outputs[0]):
        return ""
    return str(relu.outputs[0].name)


def _same_shape(one: ir.Value, other: ir.Value) -> bool:
    """Tell whether two tensors can have the same shape: a broadcasting Add fuses with nothing."""
    a, b = dims(one), dims(other)
    if a is None or b is None:
        return True
    return len(a) == len(b) and all(m == n or None in (m, n) for m, n in zip(a, b, strict=True))


def _moved(value: ir.Value) -> Iterator[ir.Value]:
    """Yield a tensor and all that have the same values, moved: the first is ``value``."""
    yield value
    for node in value.consumers():
        if is_op(node, *_MOVES) and node.inputs[0] is value:
            yield from _moved(node.outputs[0])


def _depths(graph: ir.Graph) -> dict[ir.Value, int]:
    """Return for each tensor how many layers the longest path to it has."""
    depths = dict.fromkeys(_tensors(graph), 0)
    for node in graph:
        before = max(
            (depths.get(value, 0) for value in node.inputs if value is not None), default=0
        )
        for value in node.outputs:
            depths[value] = before + is_op(node, *LAYERS)
    return depths


def _tensors(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield the graph's inputs and every node's outputs, in order."""
    yield from graph.inputs
    for node in graph:
        yield from node.outputs
