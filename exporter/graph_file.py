"""From an ONNX model to the editable graph, and back, always in the same bytes."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from core.errors import GraphError

__all__ = ["from_proto", "to_proto"]

_PRODUCER = "strata"


def from_proto(model: onnx.ModelProto) -> ir.Model:
    """Return a model's graph for editing; it wraps the model's own tensors.

    Raises:
        GraphError: It contradicts itself: two nodes make one tensor, a type is none.
    """
    try:
        return ir.from_proto(model)
    except (RuntimeError, ValueError, TypeError, KeyError) as err:
        cause = err.__cause__  # onnx-ir tells of each layer that it went through; the last knows
        while cause is not None and cause.__cause__ is not None:
            cause = cause.__cause__
        raise GraphError(
            f"the graph cannot be read: {cause or err}", hint="export the model again"
        ) from err


def to_proto(model: ir.Model) -> onnx.ModelProto:
    """Return the ONNX model of a graph: no clutter of exporters, a fixed order.

    The model's own metadata stays; that of nodes and tensors, and doc strings, go.
    Initializers follow in the order in which the nodes read them.
    """
    kept = dict(model.metadata_props)
    ClearMetadataAndDocStringPass()(model)
    model.metadata_props.update(kept)
    model.producer_name, model.producer_version, model.domain = _PRODUCER, None, None
    model.doc_string, model.model_version = None, None
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.metadata_props.clear()
        value.doc_string = None
    _order_initializers(model.graph)
    proto = ir.to_proto(model)
    _drop_weight_infos(proto.graph)
    return proto


def _order_initializers(graph: ir.Graph) -> None:
    """Sort the initializers by first use; unused ones come last, by name."""
    order: dict[str, int] = {}
    for node in graph.all_nodes():
        for value in node.inputs:
            if value is not None and value.name:
                order.setdefault(value.name, len(order))
    values = sorted(
        graph.initializers.values(), key=lambda v: (order.get(str(v.name), len(order)), v.name)
    )
    for value in values:
        del graph.initializers[str(value.name)]
    for value in values:
        graph.register_initializer(value)


def _drop_weight_infos(graph: onnx.GraphProto) -> None:
    """Drop type and shape of what says them itself: a weight is written with both."""
    weights = {weight.name for weight in graph.initializer}
    infos = [info for info in graph.value_info if info.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(infos)
