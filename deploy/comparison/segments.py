"""Where a graph can be cut in two, and the pieces that such cuts leave.

A tensor is a cut when, once it is made, no other tensor made so far is read any more: the
block boundaries of a residual network. What lies between two cuts is a network of its own,
fed by one tensor, and only its tensors need be in memory.

::

    input ─ conv1 ─ relu ─┬─ conv1 ─ … ─ conv3 ─┬─ add ─ relu ─ …
                          └─────────────────────┘
            cut     cut        no cut             cut   cut
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from core.errors import InputError

__all__ = ["OWN", "Maker", "Wiring", "common_cuts", "merge_cuts", "piece", "wiring_of"]

OWN = "·own"  # suffix of an output whose inputs were given (see `piece`)
_FEWEST_PIECES = 16


@dataclass(frozen=True, slots=True)
class Maker:
    """The node that makes a tensor: its name and operator, and its place in the order."""

    node: str
    op_type: str
    position: int


@dataclass(frozen=True, slots=True, eq=False)
class Wiring:
    """What depends on what in a graph.

    Attributes:
        inputs: Names of what must be fed.
        makers: Each tensor that depends on an input → what makes it, in graph order.
        readers: Tensor → the tensors of ``makers`` that are made directly from it.
        cuts: Each tensor that alone is live once it is made, in graph order.
    """

    inputs: tuple[str, ...]
    makers: Mapping[str, Maker]
    readers: Mapping[str, tuple[str, ...]]
    cuts: tuple[str, ...]


def wiring_of(model: onnx.ModelProto) -> Wiring:
    """Read a graph's wiring.

    Raises:
        InputError: No tensor depends on an input.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = tuple(i.name for i in model.graph.input if i.name not in constants)
    makers: dict[str, Maker] = {}
    readers: dict[str, tuple[str, ...]] = {}
    last_read: dict[str, int] = {}
    for position, node in enumerate(model.graph.node):
        read = [name for name in _reads(node) if name in makers or name in inputs]
        if not read:
            continue
        made = tuple(filter(None, node.output))
        makers |= dict.fromkeys(made, Maker(node.name, node.op_type, position))
        for name in read:
            last_read[name] = position
            readers[name] = (*readers.get(name, ()), *made)
    if not makers:
        raise InputError(
            "the graph computes nothing from its inputs", hint="name a network with an input"
        )
    return Wiring(inputs, makers, readers, _cuts(inputs, makers, last_read))


def _cuts(
    inputs: Sequence[str], makers: Mapping[str, Maker], last_read: Mapping[str, int]
) -> tuple[str, ...]:
    """Return the tensors that alone are read by what comes after them."""
    live = {name for name in inputs if name in last_read}
    cuts: list[str] = []
    for position, group in groupby(makers, key=lambda name: makers[name].position):
        made = {name for name in group if last_read.get(name, -1) > position}
        live = {name for name in live if last_read[name] > position} | made
        if len(live) == 1 and live == made:
            cuts += made
    return tuple(cuts)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, the outer tensors that its subgraphs read included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)


def common_cuts(reference: Sequence[str], candidate: Sequence[str]) -> tuple[str, ...]:
    """Return the cuts that two graphs share, in their common order."""
    places = {name: place for place, name in enumerate(candidate)}
    common: list[str] = []
    last = -1
    for name in reference:
        if places.get(name, -1) > last:
            common.append(name)
            last = places[name]
    return tuple(common)


def merge_cuts(wiring: Wiring, cuts: Sequence[str], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Leave out cuts between pieces so small that memory gains nothing by them.

    Args:
        wiring: The graph.
        cuts: Some of its cuts.
        sizes: Tensor → bytes, where known; a tensor of unknown size counts as one byte.

    Returns:
        Those of ``cuts`` between pieces that together would be larger than the largest
        piece alone, and than 1/16 of the whole.
    """
    weights = _weights(wiring, cuts, sizes)
    most = max(*weights, sum(weights) // _FEWEST_PIECES) if len(weights) > 1 else 0
    kept: list[str] = []
    size = weights[0]
    for cut, following in zip(cuts, weights[1:], strict=True):
        if size + following > most:
            kept.append(cut)
            size = 0
        size += following
    return tuple(kept)


def _weights(wiring: Wiring, cuts: Sequence[str], sizes: Mapping[str, int]) -> list[int]:
    """Return the bytes of the tensors made in each piece; there is one more than cuts."""
    weights = [0]
    ends = iter(cuts)
    end = next(ends, None)
    for name in wiring.makers:
        weights[-1] += sizes.get(name, 1)
        if name == end:
            end = next(ends, None)
            weights.append(0)
    return weights


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
    read = {name for node in nodes for name in _reads(node)}
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
        for name in _reads(all_nodes[todo.pop()]):
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
    read = {name for node in nodes for name in _reads(node)}
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
