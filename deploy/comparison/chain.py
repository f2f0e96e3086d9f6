"""Models that run side by side, piece by piece, over the same images.

All models are cut at the same tensors. What a piece makes is folded into sums and dropped
before the next one runs: memory is that of the largest piece, not of the network, and does not
grow with the images.

A batch runs in parts, two at a time, each from the first piece to the last in a thread of its
own: neither waits for the other's small operators, for a model to be opened or for sums.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

from core.errors import GraphError, InputError
from deploy.comparison.answers import Answers
from deploy.comparison.breaks import find_break
from deploy.comparison.cutting import choose_cuts
from deploy.comparison.graphs.wiring import passed_by
from deploy.comparison.part import Models, Part, Stop
from deploy.comparison.sides.side import Side, Walker, check_outputs
from deploy.comparison.sums.pair_sums import SideSums
from deploy.comparison.sums.rows import layers_of
from deploy.comparison.sums.step_sums import StepSums
from deploy.comparison.turns import GivenUp, Turns
from exporter.session import Tensors, give_memory_back

__all__ = ["Chain"]

_AT_ONCE = 2  # parts that run; the same on every machine, so that results are


class Chain:
    """Two or more models, and the sums over what they made.

    Args:
        sides: The models, the reference first.
        own: Whether to feed each candidate its predecessor's tensors, too.
        stop: Asked after each piece whether to leave it at that; parts then run one by one.

    Attributes:
        steps: Sums of each candidate against the model before it.
        made: Sums of what each model made, by tensor.
        answers: What each answered.
        done: How many images are summed up.
        stopped: Whether not all tensors were reached.
    """

    def __init__(self, sides: Sequence[Side], *, own: bool, stop: Stop | None = None) -> None:
        self.sides = tuple(sides)
        self._own = own
        self._begin_sums()
        self.done = 0
        self.stopped = False
        self._stop = stop
        # A graph of one batch size takes a batch whole, and the memory of two is not asked for.
        self._whole = any(s.alone or isinstance(s.image.shape[0], int) for s in sides)
        self._at_once = 1 if self._whole or stop is not None else _AT_ONCE
        self._pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="strata-part")
        self._under_way: deque[tuple[Part, Future[bool]]] = deque()
        self._models: Models | None = None
        self._parts = 0

    def _begin_sums(self) -> None:
        """Begin with sums of nothing."""
        self.made: tuple[dict[str, SideSums], ...] = tuple({} for _ in self.sides)
        self.steps = tuple(
            StepSums(
                *(c.quantizers, c.holdings, c.strided, c.amaxes, _joined(r, c), made),
                passed=passed_by(r.wiring, r.outputs),
                feeds=self._own and c.feedable and not (r.opaque or c.opaque),
            )
            for (r, c), made in zip(pairwise(self.sides), self.made, strict=False)
        )
        self.answers = Answers.of(len(self.sides))

    @property
    def models(self) -> Models:
        """The models and their sums, once some images have run."""
        if self._models is None:
            raise RuntimeError("no image was run")
        return self._models

    def close(self) -> None:
        """Let go of the open models; the sums stay."""
        if self._models is not None:
            self._models.turns.give_up()
        self._pool.shutdown()
        self._under_way.clear()
        if self._models is not None:
            self._models = replace(self._models, walkers=())
        give_memory_back()

    def run(self, indices: Any, images: Any) -> bool:
        """Have some images run through all models, as many at a time as memory is to be had for.

        Some may still be under way when it returns; `finish` waits for them.

        Args:
            indices: Of the images in the data, (n,).
            images: float32, (n, 3, h, w).

        Returns:
            Whether to go on with the next images.
        """
        if self._models is None:
            self._models = self._open([side.feed(images) for side in self.sides])
        count = min(self._models.together, len(images) if self._whole else -(-len(images) // 2))
        for at in range(0, len(images), count):
            if not self._begin(indices[at : at + count], images[at : at + count], self._models):
                return False
        return True

    def finish(self) -> None:
        """Wait until all images are summed up."""
        while self._under_way and not self.stopped:
            self._end()

    def _begin(self, indices: Any, images: Any, models: Models) -> bool:
        """Have images run together, once there is a thread for them."""
        while len(self._under_way) >= self._at_once:
            if not self._end():
                return False
        part = Part(self._parts, indices, [side.feed(images) for side in self.sides], models)
        models.turns.begin(self._parts)
        self._under_way.append((part, self._pool.submit(self._run, part, models)))
        self._parts += 1
        return True

    def _run(self, part: Part, models: Models) -> bool:
        try:
            return part.run(self._stop)
        except BaseException:
            models.turns.give_up()  # or those behind it would wait for ever
            raise

    def _end(self) -> bool:
        """Wait for the oldest part; return whether to go on."""
        part, future = self._under_way.popleft()
        try:
            going = future.result()
        except GivenUp:
            # A later part failed first; it says why.
            return self._end() if self._under_way else False
        except GraphError as err:
            if part.number == 0 and self._under_way:
                part = self._alone(part)
            if not find_break(self.sides, self.steps, part.feeds, str(err)):
                raise
            going = False
        if not going:
            self.stopped = True
            return False
        if part.number == 0:
            for step, (r, c) in zip(self.steps, pairwise(self.sides), strict=True):
                check_outputs(r, c, step.seen)
        self.done += len(part.indices)
        for step in self.steps:
            step.images = self.done
        return True

    def _alone(self, part: Part) -> Part:
        """Run the first part again, which failed: how far others came by then is chance."""
        for _, future in self._under_way:
            future.exception()  # waits: nobody adds to the sums any more
        self._under_way.clear()
        self._begin_sums()
        models = replace(
            self.models, made=self.made, steps=self.steps, answers=self.answers, turns=Turns()
        )
        self._models = models
        again = Part(0, part.indices, part.feeds, models)
        with suppress(GraphError):
            again.run()
        return again

    def _open(self, feeds: Sequence[Tensors]) -> Models:
        """Cut all models where all can be, as finely as it saves memory."""
        sides = self.sides
        joined = [
            step.joined
            for step, pair in zip(self.steps, pairwise(sides), strict=True)
            if not any(side.opaque for side in pair)
        ]
        kept, together = choose_cuts(sides, joined, feeds)
        first = sides[0].wiring.makers.keys()
        walkers: list[Walker] = []
        for at, side in enumerate(sides):
            wanted: set[str] = set()
            for step in self.steps[max(at - 1, 0) : at + 1]:
                wanted |= step.joined
            if at > 1:
                wanted |= layers_of(side.wiring).keys() & layers_of(sides[0].wiring).keys()
            elif at == 0 and len(sides) > 2:
                later = {name for other in sides[2:] for name in other.wiring.makers}
                wanted |= layers_of(side.wiring).keys() & first & later
            walkers.append(side.open(kept, wanted, self._at_once))
        return Models(
            sides=sides,
            walkers=tuple(walkers),
            ends=(*kept, None),
            together=sys.maxsize if self._whole else together,
            made=self.made,
            steps=self.steps,
            answers=self.answers,
            turns=Turns(),
        )


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
