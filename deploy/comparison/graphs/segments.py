"""What lies between two cuts of a graph, as a graph of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from deploy.comparison.graphs.wiring import Wiring, reads_of

__all__ = ["OWN", "piece"]

OWN = "·own"  # suffix of an output whose inputs were given (see `piece`)


def piece(
    model: onnx.ModelProto,
    wiring: Wiring,
    ends: tuple[str | None, str | None],
    *,
    outputs: Collection[str],
    feeds: Mapping[str, npt.NDArray[Any]],
    given: Collection[str] = (),
) -> onnx.ModelProto:
    """Return what lies between two cuts as a model of its own.

    A tensor of ``given`` is fed, not passed on: whatever reads it reads the fed array, and
    what the graph itself makes in its place comes out under its name + :data:`OWN`. So each
    layer can be run on another network's tensors, all layers in one run.

    Args:
        model: The graph; it is left as it is.
        wiring: Its wiring.
        ends: The cut it begins at, None for the graph's inputs; and the cut it ends with,
            None for all the rest.
        outputs: Tensors to return; those that this piece does not make are ignored.
        feeds: What it will be fed, for names, types and ranks; more than it reads is fine.
        given: Tensors to feed in place of its own.
    """
    begin, end = ends
    first = -1 if begin is None else wiring.makers[begin].position
    last = len(model.graph.node) if end is None else wiring.makers[end].position
    inside = [name for name, m in wiring.makers.items() if first < m.position <= last]
    positions = {wiring.makers[name].position for name in inside}
    nodes = _with_constants(model, wiring, positions)
    read = {name for node in nodes for name in reads_of(node)}
    renamed = {name: name + OWN for name in inside if name in given}
    result = [renamed.get(name, name) for name in inside if name in outputs]
    made = {name for name in inside if name not in renamed}
    return _assemble(
        model,
        [_rename(node, renamed) for node in nodes],
        {name: array for name, array in feeds.items() if name in read and name not in made},
        result,
    )


def _with_constants(
    model: onnx.ModelProto, wiring: Wiring, positions: set[int]
) -> list[onnx.NodeProto]:
    """Return nodes in graph order, with those that make the constants they read."""
    all_nodes = model.graph.node
    makers = {name: at for at, node in enumerate(all_nodes) for name in node.output if name}
    wanted, todo = set(positions), list(positions)
    while todo:
        for name in reads_of(all_nodes[todo.pop()]):
            at = makers.get(name)
            if at is not None and name not in wiring.makers and at not in wanted:
                wanted.add(at)
                todo.append(at)
    return [all_nodes[at] for at in sorted(wanted)]


def _rename(node: onnx.NodeProto, renamed: Mapping[str, str]) -> onnx.NodeProto:
    """Return the node with some of its outputs renamed."""
    if not renamed.keys() & set(node.output):
        return node
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    copy.output[:] = [renamed.get(name, name) for name in node.output]
    return copy


def _assemble(
    model: onnx.ModelProto,
    nodes: Sequence[onnx.NodeProto],
    feeds: Mapping[str, npt.NDArray[Any]],
    outputs: Sequence[str],
) -> onnx.ModelProto:
    """Build a model of some nodes of another, with the initializers that they read."""
    read = {name for node in nodes for name in reads_of(node)}
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(np.dtype(array.dtype)), [None] * array.ndim
        )
        for name, array in feeds.items()
    ]
    constants = [i for i in model.graph.initializer if i.name in read]
    # ONNX Runtime infers the types of outputs that come without one.
    untyped = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(nodes, "piece", inputs, untyped, constants)
    return helper.make_model(
        graph,
        opset_imports=model.opset_import,
        ir_version=max(model.ir_version, 4),  # before, constants had to be inputs as well
        functions=model.functions,
    )
