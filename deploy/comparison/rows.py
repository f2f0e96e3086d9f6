"""From what two networks made to the rows of a report: one for every tensor of either."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.metrics import Difference
from deploy.comparison.report import LayerDiff, Made, Measures, Status
from deploy.comparison.segments import Maker, Wiring

__all__ = ["Seen", "layers_of", "rows"]

_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_NUMBERS = "fiub"  # kinds of numpy types that can be subtracted

Shape = tuple[int | str, ...]
Sums = Mapping[str, Difference]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tensor was on both sides when it was made: types, shapes, and what follows."""

    status: Status
    dtypes: tuple[str, str]
    shapes: tuple[Shape, Shape]

    @classmethod
    def of(
        cls,
        dtypes: tuple[np.dtype[Any], np.dtype[Any]],
        shapes: tuple[tuple[int, ...], tuple[int, ...]],
    ) -> Seen:
        """Look at what was made of one batch, by the reference and by the candidate."""
        if shapes[0] != shapes[1]:
            status = Status.SHAPE_DIFFERS
        elif any(dtype.kind not in _NUMBERS for dtype in dtypes):
            status = Status.NOT_NUMBERS
        else:
            status = Status.COMPARED
        return cls(
            status,
            (str(dtypes[0]), str(dtypes[1])),
            (_any_batch(shapes[0]), _any_batch(shapes[1])),
        )


def _any_batch(shape: tuple[int, ...]) -> Shape:
    """Write "N" for the first dimension: the batch, in all that an image network makes."""
    return ("N", *shape[1:]) if shape else ()


def layers_of(wiring: Wiring) -> dict[str, Maker]:
    """Return the tensors that no Q or DQ node makes, in graph order."""
    return {name: m for name, m in wiring.makers.items() if m.op_type not in _QDQ}


def rows(
    wirings: tuple[Wiring, Wiring], seen: Mapping[str, Seen], inherited: Sums, own: Sums
) -> tuple[LayerDiff, ...]:
    """Return a row for every tensor of either network.

    Args:
        wirings: The reference's and the candidate's.
        seen: What was made on both sides.
        inherited: Differences of free runs, by tensor.
        own: Differences of fed runs, by tensor.

    Returns:
        Rows in the reference's order; what only the candidate has stands behind the tensor
        that it follows there.
    """
    reference, candidate = map(layers_of, wirings)
    followers: dict[str, list[str]] = {}
    last = ""
    for name in candidate:
        if name in reference:
            last = name
        else:
            followers.setdefault(last, []).append(name)
    table = [_only_in_candidate(name, candidate[name]) for name in followers.get("", ())]
    for name, maker in reference.items():
        if name in candidate:
            table.append(_both(name, (maker, candidate[name]), seen.get(name), inherited, own))
        else:
            into = _into(name, wirings[0], candidate)
            made = Made(maker.node, maker.op_type)
            table.append(LayerDiff(name, Status.ONLY_IN_REFERENCE, made, None, into))
        table += [_only_in_candidate(n, candidate[n]) for n in followers.get(name, ())]
    return tuple(table)


def _only_in_candidate(name: str, maker: Maker) -> LayerDiff:
    made = Made(maker.node, maker.op_type)
    return LayerDiff(name, Status.ONLY_IN_CANDIDATE, None, made)


def _both(
    name: str, makers: tuple[Maker, Maker], seen: Seen | None, inherited: Sums, own: Sums
) -> LayerDiff:
    """Return the row of a tensor that both networks have."""
    if seen is None:
        reference, candidate = (Made(maker.node, maker.op_type) for maker in makers)
        return LayerDiff(name, Status.ELSEWHERE, reference, candidate)
    reference, candidate = (
        Made(maker.node, maker.op_type, dtype, shape)
        for maker, dtype, shape in zip(makers, seen.dtypes, seen.shapes, strict=True)
    )
    return LayerDiff(
        tensor=name,
        status=seen.status,
        reference=reference,
        candidate=candidate,
        inherited=Measures.of(inherited[name]) if name in inherited else None,
        own=Measures.of(own[name]) if name in own else None,
    )


def _into(name: str, wiring: Wiring, candidate: Mapping[str, Maker]) -> str | None:
    """Return the one tensor of the candidate that all readers of ``name`` lead to first."""
    found: set[str] = set()
    todo, visited = [name], {name}
    while todo:
        for reader in wiring.readers.get(todo.pop(), ()):
            if reader in candidate:
                found.add(reader)
            elif reader not in visited:
                visited.add(reader)
                todo.append(reader)
    return found.pop() if len(found) == 1 else None
