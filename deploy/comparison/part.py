"""A few images on their way through all models of a comparison, piece by piece.

What a piece makes is folded into sums and dropped before the next one runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from deploy.comparison.answers import Answers
from deploy.comparison.graphs.holding import Made, whole_of
from deploy.comparison.sides.side import Side, Walker
from deploy.comparison.sums.pair_sums import SideSums
from deploy.comparison.sums.step_sums import Batch, StepSums
from deploy.comparison.turns import Turns
from exporter.session import Tensors

__all__ = ["Models", "Part", "Stop"]


_FREE, _FED = 0, 1  # what is added of a model's piece, in this order


@dataclass(frozen=True, slots=True, eq=False)
class Models:
    """The models of a chain, open, and the sums over what they make.

    Attributes:
        sides: The models, the reference first.
        walkers: Each of them, open.
        ends: The tensor that each piece ends with; None for the last.
        together: How many images run together, at most.
        made: Sums of what each model makes, by tensor.
        steps: Sums of each candidate against the model before it.
        answers: What each answers.
        turns: Who may add to all of these.
    """

    sides: tuple[Side, ...]
    walkers: tuple[Walker, ...]
    ends: tuple[str | None, ...]
    together: int
    made: tuple[dict[str, SideSums], ...]
    steps: tuple[StepSums, ...]
    answers: Answers
    turns: Turns


Stop = Callable[[Models, Sequence[Sequence[str]]], bool]  # and what a piece made, for each step


@dataclass(slots=True, eq=False)
class Part:
    """Images that run together.

    Attributes:
        number: Of the part, from 0.
        indices: Of the images in the data, (n,).
        feeds: What each model is fed.
        models: What they run through.
    """

    number: int
    indices: Any
    feeds: Sequence[Tensors]
    models: Models
    _held: list[Tensors] = field(init=False)  # what each model's next piece begins with
    _entries: list[Tensors] = field(init=False)  # the reference's, as each candidate holds them
    _feeding: list[bool] = field(init=False)  # no cut so far had two shapes

    def run(self, stop: Stop | None = None) -> bool:
        """Run all pieces of all models.

        Args:
            stop: Asked after each piece whether to leave it at that.

        Returns:
            Whether it was not stopped.

        Raises:
            GraphError: A model cannot be run.
            GivenUp: Another part failed.
        """
        self._held = [dict(feed) for feed in self.feeds]
        self._entries = [{} for _ in self.models.steps]
        self._feeding = [step.feeds for step in self.models.steps]
        self._inputs()
        for at in range(len(self.models.ends)):
            fresh = self._piece(at)
            if stop is not None and stop(self.models, fresh):
                return False
        self.models.turns.end(self.number)
        return True

    @property
    def _batch(self) -> Batch:
        return Batch(np.asarray(self.indices), first=not self.number)

    def _turn(self, at: int, k: int, what: int) -> AbstractContextManager[None]:
        return self.models.turns.at(self.number, (at, k, what))

    def _inputs(self) -> None:
        """Fold the images themselves: the first tensor that a candidate quantizes."""
        with self._turn(-1, 0, _FREE):
            self.models.answers.images.extend(map(int, self.indices))
            for made, feed in zip(self.models.made, self.feeds, strict=True):
                for name, sums in _sums_of(made, feed).items():
                    sums.add(feed[name])
            for k, step in enumerate(self.models.steps):
                r, c = self.feeds[k : k + 2]
                names = step.meet(r, c, partial(_dtypes, r, c))
                self._entries[k] = step.free(names, r, c, self._batch)
                if k:
                    step.against_first(self.feeds[0], c, self._batch)

    def _piece(self, at: int) -> list[list[str]]:
        """Run one piece of every model; return for each step what both sides made."""
        models = self.models
        last, end = len(models.walkers) - 1, models.ends[at]
        fresh: list[list[str]] = []
        first: Tensors = {}
        r: Tensors = {}
        for k, walker in enumerate(models.walkers):
            c, self._held[k] = walker.free(at, self._held[k])
            # What another model is held against is needed as it is; the last one's is summed up.
            whole = {name: whole_of(tensor) for name, tensor in c.items()} if k < last else {}
            c = whole or c
            with self._turn(at, k, _FREE):
                self._answer(k, c)
                inside = self._free(k, r, c) if k else {}
                if k > 1:
                    models.steps[k - 1].against_first(first, c, self._batch)
            if k == 0 and last > 1:
                first = whole
            c = {}  # summed up; what it is fed takes as much
            if k:
                fresh.append([name for name in r if name in models.steps[k - 1].seen])
                self._fed(k, at, r, inside)
                # What this piece began with is not needed again.
                self._entries[k - 1] = {end: inside[end]} if end in inside else {}
            r = whole
        return fresh

    def _free(self, k: int, r: Tensors, c: Made) -> Tensors:
        """Fold what a candidate made freely; return what it can be fed, as it holds that."""
        step, walkers = self.models.steps[k - 1], self.models.walkers
        theirs, ours = walkers[k - 1].dtype, walkers[k].dtype
        names = step.meet(r, c, lambda name: (theirs(name), ours(name)))
        # Of each model once; of the first one while the second is summed up.
        made = self.models.made
        first = _sums_of(made[0], r) if k == 1 else {}
        bounds = first, _sums_of(made[k], c)
        self._feeding[k - 1] &= step.feeds
        inside = step.free(names, r, c, self._batch, bounds)
        made_by: tuple[Made, Made] = (r, c)
        for sums, tensors in zip(bounds, made_by, strict=True):
            for name in sums.keys() - set(names):
                sums[name].add(whole_of(tensors[name]))
        return inside

    def _fed(self, k: int, at: int, r: Tensors, inside: Tensors) -> None:
        """Fold what a candidate makes of the reference's tensors."""
        step = self.models.steps[k - 1]
        if self._feeding[k - 1] and inside:
            made = self.models.walkers[k].fed(at, self._entries[k - 1], inside)
            with self._turn(at, k, _FED):
                step.fed(r, made, self._batch)
        # A cut of two shapes: the candidate's next piece cannot be fed the reference's tensor.
        self._feeding[k - 1] &= self.models.ends[at] in (None, *inside)

    def _answer(self, k: int, made: Made) -> None:
        """Note the answers, where a piece makes the only output of a classifier."""
        outputs = self.models.sides[k].outputs
        for name in outputs:
            if name in made and made[name].ndim == 2 and len(outputs) == 1:
                self.models.answers.note(k, whole_of(made[name]))


def _dtypes(r: Made, c: Made, name: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    return r[name].dtype, c[name].dtype


def _sums_of(sums: dict[str, SideSums], made: Made) -> dict[str, SideSums]:
    """Return the sums of the tensors that a model made, those that are numbers."""
    numbers = (name for name, array in made.items() if array.dtype.kind in "fiub")
    return {name: sums.setdefault(name, SideSums()) for name in numbers}
