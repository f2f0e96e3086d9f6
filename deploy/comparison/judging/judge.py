"""From the sums of a step to its verdict: which layers offend, and why."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.layer_facts import LayerFacts, LayerReader
from deploy.comparison.judging.explain import (
    Reference,
    channels_beyond,
    expected_noise,
    explain,
)
from deploy.comparison.judging.judgement import Found, Judgement, Layer, Look, Unexplained
from deploy.comparison.judging.parameters import (
    OwnError,
    ParameterFault,
    parameter_fault,
)
from deploy.comparison.judging.ranges import Ranges
from deploy.comparison.judging.ranking import behind_its_cause
from deploy.comparison.judging.structure import StructureFault, structure_faults
from deploy.comparison.judging.wording import next_step
from deploy.comparison.sides.side import Side
from deploy.comparison.sums.pair_sums import PairSums
from deploy.comparison.sums.step_sums import StepSums
from deploy.comparison.values.measures import Explained, Status
from deploy.comparison.values.verdict import Blame, Bounds, Reason, Verdict

__all__ = ["Judge"]

Array = npt.NDArray[Any]

_HALF_MAX = 65504.0
_AT_ONCE = min(4, os.cpu_count() or 1)  # layers: each holds its weights
_LARGER = (Reason.ERROR, Reason.CHANNEL, Reason.BIAS)  # what an excess alone is called


class Judge:
    """Judges one step; reads both graphs once, and their weights a layer at a time.

    Args:
        sides: The reference and the candidate.
        step: Their sums.
        bounds: What is asked of the layers.
    """

    def __init__(self, sides: tuple[Side, Side], step: StepSums, bounds: Bounds) -> None:
        self._sides, self._step, self._bounds = sides, step, bounds
        graphs = [side.graph for side in sides]
        self._readers: list[LayerReader | None] = []
        for at, graph in enumerate(graphs):
            known = (step.joined, sides[at].holdings, partial(_type, step, at))
            self._readers.append(None if graph is None else LayerReader(graph, *known))
        same = sides[0].subject.sha256 == sides[1].subject.sha256
        self._structure: Mapping[str, StructureFault] = (
            structure_faults(graphs[1].model, step.joined) if graphs[1] and not same else {}
        )

    def judge(self, names: Iterable[str] | None = None, look: Look | None = None) -> Judgement:
        """Judge what the step has summed up so far.

        Args:
            names: Tensors to judge, in graph order; None for all.
            look: Looks again at errors larger than was computed: takes them by tensor, returns
                of each the mean square, (channels,), of what its codes do. None: nobody does.
        """
        ranges = Ranges.of(self._step)
        names = list(self._step.seen) if names is None else list(names)
        with ThreadPoolExecutor(_AT_ONCE, "strata-judge") as pool:
            looked = pool.map(lambda name: self._look_at(name, ranges), names)
            found = dict(zip(names, looked, strict=True))
        unexplained = {name: f.unexplained for name, f in found.items() if f.unexplained}
        if unexplained and look is not None:
            for name, codes in look(unexplained).items():
                found[name] = self._look_at(name, ranges, codes)
        blame: list[Blame] = []
        for layer in found.values():
            if layer.fault is not None:
                blame.append(behind_its_cause(layer.fault, layer.facts, blame))
        ranked = sorted(blame, key=lambda b: -b.excess_db)
        below = self._first_below()
        return Judgement(
            Verdict(blame[0].tensor if blame else None, tuple(ranked), below),
            {name: f.explained for name, f in found.items() if f.explained is not None},
            (
                {n: f.precisions[0] for n, f in found.items() if f.precisions[0]},
                {n: f.precisions[1] for n, f in found.items() if f.precisions[1]},
            ),
        )

    def _look_at(self, name: str, ranges: Ranges, codes: Array | None = None) -> Found:
        """Read a layer, and say what is wrong with it; its weights are let go of."""
        layer = self._layer(name, codes)
        explained = None
        if layer.own is not None and layer.facts is not None:
            explained = explain(layer.own, layer.expected)
        fault = next(self._faults(layer, explained, ranges), None)
        unexplained = None
        if fault and fault.reason in _LARGER and layer.own and layer.expected is not None:
            unexplained = self._unexplained(layer, layer.own, layer.expected)
        return Found(
            None if layer.facts is None else replace(layer.facts, weights=None),
            (
                layer.theirs.precision if layer.theirs else "",
                layer.facts.precision if layer.facts else "",
            ),
            explained,
            fault,
            unexplained,
        )

    def _layer(self, name: str, codes: Array | None) -> Layer:
        """Read the layer that makes a tensor on both sides."""
        theirs, ours = (reader.layer(name) if reader else None for reader in self._readers)
        own = self._step.own.get(name)
        if own is None or not own.elements:
            return Layer(name, theirs, ours)
        reference = Reference(self._sides[0].quantizers, theirs)
        expected = expected_noise(ours, self._step, reference, codes) if ours else None
        return Layer(name, theirs, ours, own, expected)

    def _unexplained(self, layer: Layer, own: PairSums, expected: Array) -> Unexplained:
        """Return what is to be looked at again."""
        sources = layer.facts.sources if layer.facts else ()
        precision = layer.facts.precision if layer.facts else ""
        allowed = self._bounds.excess_db.get(precision, math.inf)
        return Unexplained(sources, own, channels_beyond(own, expected, allowed))

    def _first_below(self) -> str | None:
        floor = self._bounds.floor_db
        if floor is None:
            return None
        return next(
            (n for n, sums in self._step.inherited.items()
             if n in self._step.seen and not sums.errors().sqnr_db >= floor),
            None,
        )  # fmt: skip

    def _faults(self, layer: Layer, explained: Explained | None, ranges: Ranges) -> Iterator[Blame]:
        """Yield what is wrong with a tensor, the surest reason first."""
        name, facts = layer.name, layer.facts
        node = facts.node if facts else name

        def blame(reason: Reason, excess_db: float, text: str, way_out: str = "") -> Blame:
            return Blame(name, node, reason, excess_db, text, way_out or next_step(reason, node))

        if self._step.seen[name].status is Status.SHAPE_DIFFERS:
            if self._inputs_agree(facts):
                theirs, ours = self._step.seen[name].shapes
                text = f"{_shape(ours)}, the reference's is {'×'.join(map(str, theirs))}"
                yield blame(Reason.SHAPE, math.inf, text)
            return
        if self._step.seen[name].status is not Status.COMPARED:
            return
        lost = self._not_finite(layer)
        if lost:
            yield blame(*lost)
        wrong = self._parameters(layer)
        if wrong:
            excess = explained.excess_db if explained and explained.excess_db is not None else 0.0
            yield blame(wrong.reason, max(wrong.excess_db, excess), wrong.text)
        structure = self._structure.get(name)
        if structure:
            excess = ranges.noise_db(name) if structure.reason is Reason.SCALES else 0.0
            yield blame(structure.reason, excess, structure.text, structure.next_step)
        wide = ranges.fault(name)
        if wide:
            yield blame(*wide)
        yield from (blame(*fault) for fault in self._excess(layer, explained))

    def _inputs_agree(self, facts: LayerFacts | None) -> bool:
        sources = facts.sources if facts else ()
        seen = [self._step.seen.get(source.tensor) for source in sources]
        return all(s is None or s.status is not Status.SHAPE_DIFFERS for s in seen)

    def _not_finite(self, layer: Layer) -> tuple[Reason, float, str] | None:
        """Tell of NaN and infinities that a layer makes of finite numbers."""
        name, facts, own = layer.name, layer.facts, layer.own
        if own is None or not own.nonfinite:
            return None
        half = self._step.seen[name].dtypes[1] == "float16"
        for source in facts.sources if facts else ():
            fed = self._step.inherited.get(source.tensor)
            if fed is None:
                continue
            largest = math.sqrt(float(np.max(fed.sums[:, 1], initial=0.0)))
            if not math.isfinite(largest) or (half and self._step.reach(source.tensor) > _HALF_MAX):
                return None  # what it was fed is not finite, in this type
        count = f"{own.nonfinite} values are NaN or infinite"
        if half and self._step.reach(name) > _HALF_MAX:
            return Reason.OVERFLOW, math.inf, f"{count}: the reference's reach beyond 65504"
        return (Reason.OVERFLOW if half else Reason.NOT_FINITE), math.inf, count

    def _parameters(self, layer: Layer) -> ParameterFault | None:
        """Tell of weights and biases that are not the reference's."""
        if layer.facts is None or layer.theirs is None:
            return None
        touched = [layer.name, *(source.tensor for source in layer.facts.sources)]
        holdings = (self._sides[0].holdings, self._sides[1].holdings)
        own = layer.own if layer.own is not None and not layer.own.nonfinite else None
        return parameter_fault(
            layer.theirs,
            layer.facts,
            shifted=any(h[t].shift for t in touched for h in holdings if t in h),
            error=None if own is None else OwnError(own.drift, layer.expected, self._step.images),
        )

    def _excess(
        self, layer: Layer, explained: Explained | None
    ) -> Sequence[tuple[Reason, float, str]]:
        """Tell of an own error larger than rounding explains."""
        own = layer.own
        if own is None or own.nonfinite:
            return ()
        dtype = self._step.seen[layer.name].dtypes[1]
        precision = layer.facts.precision if layer.facts else _by_type(dtype)
        decibels = own.errors().sqnr_db
        if explained is None or explained.excess_db is None:
            floor = self._bounds.own_db.get(precision, -math.inf)
            if decibels >= floor:
                return ()
            text = f"own error {decibels:.1f} dB, where {precision} is asked for {floor:g}"
            return ((Reason.ERROR, floor - decibels, text),)
        if explained.excess_db <= self._bounds.excess_db.get(precision, math.inf):
            return ()
        expected = explained.expected_db or 0.0
        text = f"own error {decibels:.1f} dB, where its rounding explains {expected:.1f}"
        if explained.channel is not None:
            text = f"channel {explained.channel}: {explained.excess_db:.0f} dB more than explained"
            return ((Reason.CHANNEL, explained.excess_db, text),)
        moved = float(np.sum(own.drift**2)) * own.elements / max(float(own.noise.sum()), 1e-300)
        reason = Reason.BIAS if moved > 0.8 else Reason.ERROR
        return ((reason, explained.excess_db, text),)


def _type(step: StepSums, side: int, name: str) -> str:
    seen = step.seen.get(name)
    return seen.dtypes[side] if seen else "float32"


def _by_type(dtype: str) -> str:
    return {"float16": "FP16", "float32": "FP32"}.get(dtype, dtype)


def _shape(shape: Sequence[int | str]) -> str:
    return f"its shape is {'×'.join(map(str, shape))}" if shape else "it cannot be made"
