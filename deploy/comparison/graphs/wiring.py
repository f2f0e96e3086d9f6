"""What depends on what in a network, and where it can be cut in two.

A tensor is a cut when, once it is made, no other tensor made so far is read any more: the
block boundaries of a residual network. What lies between two cuts is a network of its own,
fed by one tensor, and only its tensors need be in memory.

::

    input ─ conv1 ─ relu ─┬─ conv1 ─ … ─ conv3 ─┬─ add ─ relu ─ …
                          └─────────────────────┘
            cut     cut        no cut             cut   cut
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import onnx

from core.errors import InputError

__all__ = [
    "Maker",
    "Step",
    "Wiring",
    "common_cuts",
    "merge_cuts",
    "passed_by",
    "reads_of",
    "weigh_pieces",
    "wire",
    "wiring_of",
]

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


@dataclass(frozen=True, slots=True)
class Step:
    """One operation of a network, in the order they run: what it reads and what it makes."""

    node: str
    op_type: str
    reads: tuple[str, ...]
    made: tuple[str, ...]


def wire(inputs: Sequence[str], steps: Iterable[Step]) -> Wiring:
    """Connect operations.

    Args:
        inputs: What must be fed.
        steps: The operations in an order that can run; what reads no input is left out.

    Raises:
        InputError: No tensor depends on an input.
    """
    makers: dict[str, Maker] = {}
    readers: dict[str, tuple[str, ...]] = {}
    last_read: dict[str, int] = {}
    for position, step in enumerate(steps):
        read = [name for name in step.reads if name in makers or name in inputs]
        if not read:
            continue
        makers |= dict.fromkeys(step.made, Maker(step.node, step.op_type, position))
        for name in read:
            last_read[name] = position
            readers[name] = (*readers.get(name, ()), *step.made)
    if not makers:
        raise InputError(
            "the graph computes nothing from its inputs", hint="name a network with an input"
        )
    return Wiring(tuple(inputs), makers, readers, _cuts(inputs, makers, last_read))


def wiring_of(model: onnx.ModelProto) -> Wiring:
    """Read a graph's wiring.

    Raises:
        InputError: No tensor depends on an input.
    """
    constants = {initializer.name for initializer in model.graph.initializer}
    inputs = tuple(i.name for i in model.graph.input if i.name not in constants)
    return wire(
        inputs,
        (
            Step(n.name, n.op_type, tuple(reads_of(n)), tuple(filter(None, n.output)))
            for n in model.graph.node
        ),
    )


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


def passed_by(wiring: Wiring, outputs: Collection[str]) -> dict[str, str]:
    """Return the tensors of which an addition and a ReLU are all that becomes.

    Args:
        wiring: Of a float graph.
        outputs: Its outputs.

    Returns:
        Each of them → what the addition makes.
    """

    def only(name: str, kinds: Collection[str]) -> str:
        readers = wiring.readers.get(name, ())
        alone = len(readers) == 1 and name not in outputs
        return readers[0] if alone and wiring.makers[readers[0]].op_type in kinds else ""

    sums = {name: only(name, ("Add", "Sum")) for name in wiring.readers}
    return {name: added for name, added in sums.items() if added and only(added, ("Relu",))}


def reads_of(node: onnx.NodeProto) -> Iterator[str]:
    """Yield what a node reads, the outer tensors that its subgraphs read included."""
    yield from filter(None, node.input)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads_of(inner)


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


def merge_cuts(wiring: Wiring, cuts: Sequence[str], *sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Leave out cuts between pieces so small that memory gains nothing by them.

    Args:
        wiring: The graph.
        cuts: Some of its cuts.
        sizes: Tensor → bytes, once or for several kinds of memory; see :func:`weigh_pieces`.

    Returns:
        Those of ``cuts`` between pieces that together would be larger than the largest
        piece alone, and than 1/16 of the whole, in any kind of memory.
    """
    kinds = [weigh_pieces(wiring, cuts, each) for each in sizes]
    most = [max(*weights, sum(weights) // _FEWEST_PIECES, 0) for weights in kinds]
    kept: list[str] = []
    held = [0] * len(kinds)
    for at, weights in enumerate(zip(*kinds, strict=True)):
        together = [size + following for size, following in zip(held, weights, strict=True)]
        if at and any(size > limit for size, limit in zip(together, most, strict=True)):
            kept.append(cuts[at - 1])
            together = list(weights)
        held = together
    return tuple(kept)


def weigh_pieces(wiring: Wiring, cuts: Sequence[str], sizes: Mapping[str, int]) -> list[int]:
    """Return the bytes of the tensors made in each piece; there is one more than cuts.

    Args:
        wiring: The graph.
        cuts: Some of its cuts.
        sizes: Tensor → bytes; one that is missing counts as one byte.
    """
    weights = [0]
    ends = iter(cuts)
    end = next(ends, None)
    for name in wiring.makers:
        weights[-1] += sizes.get(name, 1)
        if name == end:
            end = next(ends, None)
            weights.append(0)
    return weights
