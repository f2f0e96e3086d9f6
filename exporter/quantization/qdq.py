"""Put a plan and its scales into the graph: QuantizeLinear and DequantizeLinear.

An activation T, read by Conv c with weight W and bias b:

    before:  T ─────────────────────────────────────────────► c(T, W, b)
    after:   T ─► Q ─► T.quantized ─► DQ ─► T.dequantized ───► c(·, ·, b)
             W.quantized (int8) ─► DQ ─► W.dequantized ────────────┘

Every zero point is 0, scales are amax / 127: one for a tensor, one for each output channel
of a weight. The bias stays float: an int32 bias behind a DQ is an error to TensorRT's parser.
Source: ONNX QuantizeLinear and DequantizeLinear; TensorRT, "Explicit quantization".
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
import onnx_ir as ir

from core.errors import GraphError
from exporter.graph_file import to_proto
from exporter.passes.base import Array, add_constant, free_name, taken_names
from exporter.quantization.placement import named_graph
from exporter.quantization.plan import Activation, QuantizationPlan, Weight
from exporter.quantization.rounding.codes import WeightCodes
from exporter.quantization.rounding.scales import graph_scale

__all__ = ["insert_into", "insert_qdq"]

_OLDEST_OPSET = 13


def insert_qdq(
    model: onnx.ModelProto,
    plan: QuantizationPlan,
    amaxes: Mapping[str, float],
    *,
    half: bool = False,
) -> onnx.ModelProto:
    """Return the graph with Q/DQ pairs and INT8 weights.

    Args:
        model: The float32 graph that the plan is of; untouched.
        plan: Which tensors, read by which nodes.
        amaxes: Activation → magnitude that becomes code 127, real units, > 0.
        half: Take scales that float16 holds too, and quantize with those.

    Raises:
        GraphError: The plan does not fit the graph, a weight is not finite, or a scale is
            too large or small for float16.
        KeyError: An activation has no amax (a bug in the caller).
    """
    copied = named_graph(copy.deepcopy(model))  # editing writes to the tensors it wraps
    return insert_into(copied, plan, amaxes, half=half)


def insert_into(
    graph_model: ir.Model,
    plan: QuantizationPlan,
    amaxes: Mapping[str, float],
    *,
    half: bool = False,
    codes: WeightCodes | None = None,
) -> onnx.ModelProto:
    """Return the same of a graph of one's own, which is changed.

    Args:
        graph_model: As :func:`~exporter.quantization.placement.named_graph` gives it.
        plan: As for :func:`insert_qdq`.
        amaxes: Likewise.
        half: Likewise.
        codes: What the weights become; None for the nearest codes.

    Raises:
        GraphError, KeyError: Likewise.
    """
    opset = graph_model.opset_imports.get("", 0)
    if opset < _OLDEST_OPSET:
        raise GraphError(
            f"opset {opset}: scales for each channel need opset {_OLDEST_OPSET}",
            hint="export at opset 19, or convert with onnx.version_converter.convert_version",
        )
    codes = codes or WeightCodes(plan, half=half)
    editor = _Editor(graph_model.graph, codes, half=half)
    for activation in plan.activations:
        editor.quantize_activation(activation, amaxes[activation.tensor])
    for weight in plan.weights:
        editor.quantize_weight(weight)
    return to_proto(graph_model)


class _Editor:
    """Edits one graph."""

    def __init__(self, graph: ir.Graph, codes: WeightCodes, *, half: bool) -> None:
        self.graph = graph
        self.codes = codes
        self.half = half
        self.taken = taken_names(graph)
        self.nodes = {str(node.name): node for node in graph}
        self.values = {str(value.name): value for value in graph.inputs}
        self.values |= {str(v.name): v for node in graph for v in node.outputs}
        self.first = next(iter(graph))

    def quantize_activation(self, activation: Activation, amax: float) -> None:
        """Put a pair behind a tensor, for its readers."""
        value = self.values.get(activation.tensor)
        if value is None:
            raise GraphError(
                f"the plan quantizes {activation.tensor!r}, which the graph does not have",
                hint="plan again for this model: strata quantize MODEL --print-plan",
            )
        readers = self._readers(activation.readers, value)
        name = activation.tensor
        scale = graph_scale(amax, name, half=self.half)
        scale_value = self._constant(f"{name}.scale", scale)
        zero = self._constant(f"{name}.zero_point", np.zeros((), np.int8))
        quantized = self._node(
            "QuantizeLinear", f"{name}.quantize", [value, scale_value, zero], f"{name}.quantized"
        )
        pair = [
            quantized,
            self._node(
                "DequantizeLinear",
                f"{name}.dequantize",
                [quantized.outputs[0], scale_value, zero],
                f"{name}.dequantized",
            ),
        ]
        self._describe(pair[0].outputs[0], ir.DataType.INT8, value.shape)
        self._describe(pair[1].outputs[0], ir.DataType.FLOAT, value.shape)
        producer = value.producer()
        if producer is None:
            self.graph.insert_before(self.first, pair)
        else:
            self.graph.insert_after(producer, pair)
        _rewire(readers, value, pair[1].outputs[0])

    def quantize_weight(self, weight: Weight) -> None:
        """Make an initializer INT8, for its readers; the float one stays for others only."""
        value = self.graph.initializers.get(weight.tensor)
        if value is None or value.const_value is None:
            raise GraphError(
                f"the plan quantizes weight {weight.tensor!r}, which the graph does not have",
                hint="plan again for this model: strata quantize MODEL --print-plan",
            )
        readers = self._readers(weight.readers, value)
        array = value.const_value.numpy()
        scale, codes = self.codes.of(weight, array)
        name = weight.tensor
        channels = np.zeros(scale.shape, np.int8)
        node = self._node(
            "DequantizeLinear",
            f"{name}.dequantize",
            [
                self._constant(f"{name}.quantized", codes),
                self._constant(f"{name}.scale", scale),
                self._constant(f"{name}.zero_point", channels),
            ],
            f"{name}.dequantized",
            axis=weight.axis,
        )
        self._describe(node.outputs[0], ir.DataType.FLOAT, value.shape)
        earliest = next(node for node in self.graph if node in readers)
        self.graph.insert_before(earliest, node)
        _rewire(readers, value, node.outputs[0])
        if not value.uses() and not value.is_graph_output():
            del self.graph.initializers[weight.tensor]

    def _readers(self, names: Iterable[str], value: ir.Value) -> list[ir.Node]:
        """Return nodes by name, all of which read ``value``."""
        consumers = {str(node.name): node for node in value.consumers()}
        missing = [name for name in names if name not in consumers]
        if missing:
            raise GraphError(
                f"the plan says that node {missing[0]!r} reads {value.name!r}, which it does not",
                hint="plan again for this model: strata quantize MODEL --print-plan",
            )
        return [consumers[name] for name in names]

    def _node(
        self, op: str, name: str, inputs: list[ir.Value], output: str, axis: int | None = None
    ) -> ir.Node:
        attributes = [] if axis is None else [ir.AttrInt64("axis", axis)]
        node = ir.Node("", op, inputs, attributes, name=name)
        node.outputs[0].name = free_name(self.graph, output, self.taken)
        return node

    def _constant(self, name: str, array: Array) -> ir.Value:
        return add_constant(self.graph, name, array, self.taken)

    @staticmethod
    def _describe(value: ir.Value, dtype: ir.DataType, shape: ir.Shape | None) -> None:
        value.type, value.shape = ir.TensorType(dtype), shape


def _rewire(readers: Iterable[ir.Node], old: ir.Value, new: ir.Value) -> None:
    """Let nodes read one tensor in place of another, wherever they read it."""
    for node in readers:
        for index, value in enumerate(node.inputs):
            if value is old:
                node.replace_input_with(index, new)
