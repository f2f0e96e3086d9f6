"""Turn a float32 graph, with Q/DQ or without, into a strongly typed float16 one.

before:  input (f32) ─► … f32 … ─► logits (f32)
after:   input (f32) ─► Cast ─► … f16 … ─► Cast ─► logits (f32)

Weights, biases, constants and scales become float16 (rounded to nearest, ties to even); INT8
weights stay. The graph's inputs and outputs stay float32, so that the same images go in and
the same arrays come out. What float16 cannot hold is an error that names it, since an Inf
that appears here becomes a NaN three layers on.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from core.errors import GraphError
from exporter.graph_file import to_proto
from exporter.passes.base import add_constant, free_name, is_op
from exporter.quantization.placement import named_graph

__all__ = ["FLOAT16_MAX", "require_float16_range", "to_float16"]

FLOAT16_MAX = 65504.0

# The first opset whose QuantizeLinear and DequantizeLinear take float16.
_OPSET = 19
# Inputs that ONNX wants float32 whatever the data's type: operator → index.
_ALWAYS_FLOAT32 = {"Resize": 2, "Upsample": 1}
# Operators that make values of a type of their own.
_MAKERS = ("Constant", "ConstantOfShape", "RandomNormal", "RandomUniform")


def to_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph in float16.

    Args:
        model: A float32 graph; untouched. Scales of Q/DQ must be values float16 holds.

    Raises:
        GraphError: A weight beyond ±65504, NaN or Inf (named); or an operator that makes
            float32 whatever it is given.
    """
    if max(item.version for item in model.opset_import if item.domain in ("", "ai.onnx")) < _OPSET:
        model = onnx.version_converter.convert_version(model, _OPSET)
    half = named_graph(copy.deepcopy(model))
    graph = half.graph
    _retype_nodes(graph)
    _round_constants(graph)
    for node in graph:
        for value in node.outputs:
            if value.dtype == ir.DataType.FLOAT:
                value.type = ir.TensorType(ir.DataType.FLOAT16)
    _cast_inputs(graph)
    _cast_outputs(graph)
    return to_proto(half)


def require_float16_range(amaxes: Mapping[str, float]) -> None:
    """Refuse activations that float16 cannot hold.

    Args:
        amaxes: Tensor → largest magnitude seen, real units.

    Raises:
        GraphError: One of them is beyond 65504.
    """
    for name, amax in amaxes.items():
        if amax > FLOAT16_MAX:
            raise GraphError(
                f"tensor {name!r} reaches {amax:g}; float16 ends at {FLOAT16_MAX:g}",
                hint="keep the graph in float32 (--precision fp32, or --float fp32 with int8)",
            )


def _retype_nodes(graph: ir.Graph) -> None:
    """Change the types that nodes spell out in attributes."""
    for node in graph:
        if node.attributes.get_int("to", 0) == ir.DataType.FLOAT and is_op(node, "Cast"):
            node.attributes["to"] = ir.AttrInt64("to", ir.DataType.FLOAT16)
        elif is_op(node, *_MAKERS) and node.outputs[0].dtype in (ir.DataType.FLOAT, None):
            raise GraphError(
                f"node {node.name!r} ({node.op_type}) makes float32",
                hint="run strata optimize first: it folds constants",
            )


def _round_constants(graph: ir.Graph) -> None:
    """Round float32 initializers to float16, but for readers that want float32."""
    for name, value in tuple(graph.initializers.items()):
        if value.dtype != ir.DataType.FLOAT or value.const_value is None:
            continue
        uses = tuple(value.uses())
        keep = [use for use in uses if _ALWAYS_FLOAT32.get(use.node.op_type) == use.idx]
        if len(keep) == len(uses) and uses:
            continue
        array = value.const_value.numpy()
        with np.errstate(over="ignore"):
            rounded = array.astype(np.float16)
        if not np.isfinite(rounded).all():
            at = np.argmax(np.where(np.isnan(array), np.inf, np.abs(array)))
            raise GraphError(
                f"{name!r} holds {array.ravel()[at]:g}, which float16 cannot (±{FLOAT16_MAX:g})",
                hint="keep the graph in float32, or look at how these weights came about",
            )
        half = add_constant(graph, f"{name}.float16", rounded)
        for use in uses:
            if use not in keep:
                use.node.replace_input_with(use.idx, half)
        if not keep and not value.is_graph_output():
            del graph.initializers[name]
            half.name = name


def _cast_inputs(graph: ir.Graph) -> None:
    """Let readers of a float32 input read its float16 copy."""
    for value in graph.inputs:
        if value.dtype != ir.DataType.FLOAT:
            continue
        uses = tuple(value.uses())
        cast = _cast(value, f"{value.name}.float16", ir.DataType.FLOAT16)
        graph.insert_before(next(iter(graph)), cast)
        for use in uses:
            use.node.replace_input_with(use.idx, cast.outputs[0])


def _cast_outputs(graph: ir.Graph) -> None:
    """Give each output its name back as float32; inside it is ``<name>.float16``."""
    for index, value in enumerate(tuple(graph.outputs)):
        producer = value.producer()
        if value.dtype != ir.DataType.FLOAT16 or producer is None:
            continue
        name = str(value.name)
        value.name = free_name(graph, f"{name}.float16")
        cast = _cast(value, name, ir.DataType.FLOAT)
        graph.insert_after(producer, cast)
        graph.outputs[index] = cast.outputs[0]


def _cast(source: ir.Value, name: str, dtype: ir.DataType) -> ir.Node:
    node = ir.Node("", "Cast", [source], [ir.AttrInt64("to", dtype)])
    node.outputs[0].name = name
    node.outputs[0].type, node.outputs[0].shape = ir.TensorType(dtype), source.shape
    node.name = f"{name}.cast" if dtype == ir.DataType.FLOAT else f"{source.name}.cast"
    return node
