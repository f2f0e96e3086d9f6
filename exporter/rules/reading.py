"""From an ONNX model to the graphs that rules look at."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import onnx
from onnx.inliner import inline_local_functions

from exporter.rules.graph import Facts, Graph
from exporter.rules.node import inner_graphs

__all__ = ["graphs_of"]

_SMALL = 1024  # elements: shapes, axes and scales are below


def graphs_of(model: onnx.ModelProto) -> tuple[Graph, ...]:
    """Return the main graph of a model and every graph inside it, outer ones first.

    Functions that the model defines are written out, types and shapes inferred, as far as
    that works; the model itself stays as it is.
    """
    functions = frozenset((f.domain, f.name) for f in model.functions)
    opsets = {item.domain: item.version for item in model.opset_import}
    facts = opsets.get("", opsets.get("ai.onnx", 0)), functions
    light = _without_weights(model)
    if functions:
        light = _attempt(inline_local_functions, light)
    proto = _attempt(onnx.shape_inference.infer_shapes, light).graph
    return tuple(_nested(Graph(proto, model.graph.initializer, facts), proto, facts))


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which large weights are inputs: types and shapes do not need them."""
    light = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    for part in ("node", "input", "output", "value_info"):
        getattr(graph, part).extend(getattr(model.graph, part))
    declared = {value.name for value in graph.input}
    for weight in model.graph.initializer:
        if math.prod(weight.dims) <= _SMALL:
            graph.initializer.append(weight)
        elif weight.name not in declared:
            graph.input.append(
                onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
            )
    return light


def _attempt(
    work: Callable[[onnx.ModelProto], onnx.ModelProto], model: onnx.ModelProto
) -> onnx.ModelProto:
    """Return what a function of the onnx package makes of a model; the model if it fails.

    What it raises on a broken file is not specified: errors of C++ of any kind.
    """
    try:
        return work(model)
    except Exception:  # noqa: BLE001 - the rules then see a little less
        return model


def _nested(graph: Graph, proto: onnx.GraphProto, facts: Facts) -> Iterator[Graph]:
    yield graph
    for node in proto.node:
        for inner in inner_graphs(node.attribute):
            yield from _nested(Graph(inner, inner.initializer, facts, graph), inner, facts)
