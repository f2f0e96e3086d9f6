"""From what the models made to the rows of a report: one for every tensor of any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deploy.comparison.graphs.wiring import Maker, Wiring
from deploy.comparison.values.measures import Status

__all__ = ["Seen", "folded_into", "layers_of", "order_of", "stages_of"]

_QDQ = {"QuantizeLinear", "DequantizeLinear"}
_NUMBERS = "fiub"  # kinds of numpy types that can be subtracted

Shape = tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """What a tensor was on both sides when it was made: types, shapes, and what follows."""

    status: Status
    dtypes: tuple[str, str]
    shapes: tuple[Shape, Shape]

    def again(self, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> Seen:
        """Look at what was made of another batch."""
        found = _any_batch(shapes[0]), _any_batch(shapes[1])
        if self.status is not Status.COMPARED or found == self.shapes:
            return self
        status = Status.SHAPE_VARIES if found[0] == found[1] else Status.SHAPE_DIFFERS
        return replace(self, status=status, shapes=found)

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

    @classmethod
    def apart(cls, reference: tuple[int, ...], candidate: tuple[int, ...]) -> Seen:
        """Return a tensor of two shapes that was not made; its types are not known."""
        shapes = _any_batch(reference), _any_batch(candidate)
        return cls(Status.SHAPE_DIFFERS, ("", ""), shapes)


def _any_batch(shape: tuple[int, ...]) -> Shape:
    """Write "N" for the first dimension: the batch, in all that an image network makes."""
    return ("N", *shape[1:]) if shape else ()


def layers_of(wiring: Wiring) -> dict[str, Maker]:
    """Return the tensors that no Q or DQ node makes, in graph order."""
    return {name: m for name, m in wiring.makers.items() if m.op_type not in _QDQ}


def order_of(models: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return all tensors in one order: the first model's.

    What only a later model has stands behind the tensor that it follows there.

    Args:
        models: The tensors of each model, in its order.
    """
    order = list(models[0])
    known = set(order)
    for model in models[1:]:
        followers: dict[str, list[str]] = {}
        last = ""
        for name in model:
            if name in known:
                last = name
            else:
                followers.setdefault(last, []).append(name)
        known |= {name for names in followers.values() for name in names}
        merged = followers.get("", [])
        for name in order:
            merged += [name, *followers.get(name, ())]
        order = merged
    return order


def stages_of(order: Sequence[str]) -> dict[str, str]:
    """Return the part of the network that each tensor belongs to.

    That is the first part of a dotted name, ``layer1``; what stands before the first of those
    is the ``stem``, what stands behind the last the ``head``.
    """
    parts = [name.partition(".")[0] if "." in name else "" for name in order]
    named = [at for at, part in enumerate(parts) if part]
    if not named:
        return dict.fromkeys(order, "")
    stages: dict[str, str] = {}
    stage = ""
    for at, name in enumerate(order):
        if at < named[0]:
            stages[name] = "stem"
        elif at > named[-1]:
            stages[name] = "head"
        else:
            stage = parts[at] or stage
            stages[name] = stage
    return stages


def folded_into(name: str, wiring: Wiring, candidate: Mapping[str, Maker]) -> str | None:
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
