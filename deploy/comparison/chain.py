"""Models that run side by side, piece by piece, over the same images.

All models are cut at the same tensors. What a piece makes is folded into sums and dropped
before the next one runs: memory is that of the largest piece, not of the network, and does not
grow with the images.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice, pairwise
from typing import Any

import numpy as np

from core.errors import GraphError, InputError
from deploy.comparison.answers import Answers
from deploy.comparison.breaks import find_break
from deploy.comparison.cutting import choose_cuts
from deploy.comparison.sides.side import Side, Walker, check_outputs
from deploy.comparison.sums.fold import SideSums
from deploy.comparison.sums.rows import layers_of
from deploy.comparison.sums.step_sums import Batch, StepSums, Task
from exporter.session import Tensors, give_memory_back

__all__ = ["Chain"]

_FOLDERS = min(4, os.cpu_count() or 1)  # threads that fold: memory soon bounds them

_AT_ONCE = 2  # models that run

Stop = Callable[[Sequence[Sequence[str]]], bool]  # given what a piece made, for each step


class Chain:
    """Two or more models, and the sums over what they made.

    Args:
        sides: The models, the reference first.
        own: Whether to feed each candidate its predecessor's tensors, too.

    Attributes:
        steps: Sums of each candidate against the model before it.
        made: Sums of what each model made, by tensor.
        answers: What each answered.
        reached: The last tensor of the reference that was reached; None for all.
    """

    def __init__(self, sides: Sequence[Side], *, own: bool) -> None:
        self.sides = tuple(sides)
        self.made: tuple[dict[str, SideSums], ...] = tuple({} for _ in sides)
        self.steps = tuple(
            StepSums(
                *(c.quantizers, c.holdings, c.strided, c.amaxes, _joined(r, c), made),
                feeds=own and c.feedable and not (r.opaque or c.opaque),
            )
            for (r, c), made in zip(pairwise(sides), self.made, strict=False)
        )
        self.answers = Answers.of(len(sides))
        self.stopped = False
        self._walkers: list[Walker] = []
        self._cuts: tuple[str | None, ...] = ()
        self._pool = ThreadPoolExecutor(_FOLDERS, thread_name_prefix="strata-fold")
        self._runners = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="strata-run")
        self._under_way: list[Future[None]] = []
        self._done = 0
        self._together = sys.maxsize

    def close(self) -> None:
        """Let go of the models; the sums stay."""
        self._runners.shutdown()
        self._pool.shutdown()
        self._walkers.clear()
        give_memory_back()

    def run(self, indices: Any, images: Any, stop: Stop | None = None) -> bool:
        """Run some images through all models, as many at a time as memory is to be had for.

        Args:
            indices: Of the images in the data, (n,).
            images: float32, (n, 3, h, w).
            stop: Asked after each piece whether to leave it at that.

        Returns:
            Whether to go on with the next images.
        """
        if not self._walkers:
            self._open([side.feed(images) for side in self.sides])
        count = min(self._together, len(images))
        return all(
            self._run(indices[at : at + count], images[at : at + count], stop)
            for at in range(0, len(images), count)
        )

    def _run(self, indices: Any, images: Any, stop: Stop | None) -> bool:
        """Run images through all models together."""
        feeds = [side.feed(images) for side in self.sides]
        batch = Batch(np.asarray(indices), first=not self._done)
        self.answers.images.extend(map(int, indices))
        self._inputs(feeds, batch)
        for walker, entry in zip(self._walkers, feeds, strict=True):
            walker.start(entry)
        entries = [dict(entry) for entry in feeds]
        for at in range(len(self._cuts)):
            try:
                try:
                    fresh = self._piece(at, entries, batch)
                finally:
                    self._finish()
            except GraphError as err:
                if not find_break(self.sides, self.steps, feeds, str(err)):
                    raise
                self.stopped = True
                return False
            if stop is not None and stop(fresh):
                self.stopped = True
                return False
        if batch.first:
            self._check()
        self._done += len(images)
        for step in self.steps:
            step.images = self._done
        return True

    def _open(self, feeds: Sequence[Tensors]) -> None:
        """Cut all models where all can be, as finely as it saves memory."""
        sides = self.sides
        joined = [
            step.joined
            for step, pair in zip(self.steps, pairwise(sides), strict=True)
            if not any(side.opaque for side in pair)
        ]
        kept, self._together = choose_cuts(sides, joined, feeds)
        self._cuts = (*kept, None)
        first = sides[0].wiring.makers.keys()
        for at, side in enumerate(sides):
            wanted: set[str] = set()
            for step in self.steps[max(at - 1, 0) : at + 1]:
                wanted |= step.joined
            if at > 1:
                wanted |= layers_of(side.wiring).keys() & layers_of(sides[0].wiring).keys()
            elif at == 0 and len(sides) > 2:
                later = {name for other in sides[2:] for name in other.wiring.makers}
                wanted |= layers_of(side.wiring).keys() & first & later
            self._walkers.append(side.open(kept, wanted))

    def _inputs(self, feeds: Sequence[Tensors], batch: Batch) -> None:
        """Fold the images themselves: the first tensor that a candidate quantizes."""
        tasks: list[Task] = []
        for made, feed in zip(self.made, feeds, strict=True):
            tasks += _bounds(made, feed)
        for step, (r, c) in zip(self.steps, pairwise(feeds), strict=True):
            tasks += step.free(step.meet(r, c, partial(_dtypes, r, c)), r, c, batch)
        self._work(tasks)

    def _piece(self, at: int, entries: list[Tensors], batch: Batch) -> list[list[str]]:
        """Run one piece of every model; return for each step what both sides made."""
        end = self._cuts[at]
        fresh: list[list[str]] = []
        first: Tensors = {}
        r: Tensors = {}
        # Two models run side by side: neither waits for the other's small operators.
        walkers = iter(self._walkers)
        runs = deque(self._runners.submit(w.free, at) for w in islice(walkers, _AT_ONCE))
        for k in range(len(self._walkers)):
            c = runs.popleft().result()
            runs.extend(self._runners.submit(w.free, at) for w in islice(walkers, 1))
            self._answer(k, c)
            self._work(_bounds(self.made[k], c))
            if k:
                self._step(k, at, (entries[k - 1], r, c), batch)
                fresh.append([name for name in r if name in self.steps[k - 1].seen])
                # The reference of the next step; what this one began with is not needed again.
                entries[k - 1] = {end: r[end]} if end in r else {}
            if k > 1:
                self._work(self.steps[k - 1].against_first(first, c, batch))
            if k == 0 and len(self._walkers) > 2:
                first = c
            r = c
        entries[-1] = {end: r[end]} if end in r else {}
        return fresh

    def _step(self, k: int, at: int, made: tuple[Tensors, Tensors, Tensors], batch: Batch) -> None:
        """Fold what a candidate made freely, and what it makes of the reference's tensors."""
        entry, r, c = made
        step, walker = self.steps[k - 1], self._walkers[k]
        reference = self._walkers[k - 1]
        names = step.meet(r, c, lambda name: (reference.dtype(name), walker.dtype(name)))
        self._work(step.free(names, r, c, batch))
        if step.feeds and names:
            self._work(step.fed(r, walker.fed(at, entry, {name: r[name] for name in names}), batch))
        # A cut of two shapes: the candidate's next piece cannot be fed the reference's tensor.
        step.feeds = step.feeds and self._cuts[at] in (None, *names)

    def _answer(self, k: int, made: Tensors) -> None:
        """Note the answers, where a piece makes the only output of a classifier."""
        for name in self.sides[k].outputs:
            if name in made and made[name].ndim == 2 and len(self.sides[k].outputs) == 1:
                self.answers.note(k, made[name])

    def _check(self) -> None:
        for step, (r, c) in zip(self.steps, pairwise(self.sides), strict=True):
            check_outputs(r, c, step.seen)

    def _work(self, tasks: Iterable[Task]) -> None:
        """Have tasks done while the next model runs; no two of a piece add to the same sums."""
        self._under_way += [self._pool.submit(task) for task in tasks]

    def _finish(self) -> None:
        """Wait for the tasks under way, and raise what they raised."""
        tasks, self._under_way = self._under_way, []
        wait(tasks)
        for task in tasks:
            task.result()


def _dtypes(r: Tensors, c: Tensors, name: str) -> tuple[np.dtype[Any], np.dtype[Any]]:
    return r[name].dtype, c[name].dtype


def _bounds(sums: dict[str, SideSums], made: Tensors) -> list[Task]:
    """Return the tasks that fold the bounds of what a model made, one for each tensor."""

    def task(into: SideSums, array: Any) -> Task:
        return lambda: into.add(array)

    numbers = {name: array for name, array in made.items() if array.dtype.kind in "fiub"}
    return [task(sums.setdefault(name, SideSums()), array) for name, array in numbers.items()]


def _joined(reference: Side, candidate: Side) -> frozenset[str]:
    """Return the names that both models give a tensor, the image's included.

    What a Q or DQ node makes is not among them: the tensor T is compared before its Q, as
    the layer made it, and what its Q makes of it is counted in codes.
    """
    joined = layers_of(reference.wiring).keys() & layers_of(candidate.wiring).keys()
    if not joined:
        raise InputError(
            f"{reference.where} and {candidate.where} have no tensor name in common",
            hint="compare two forms of one network; Strata's own stages keep the names of tensors",
        )
    return frozenset(joined) | {reference.image.name}
