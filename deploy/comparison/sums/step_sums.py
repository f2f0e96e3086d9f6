"""All that is summed up of one step of a chain: a candidate against the model before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.holding import AS_IT_IS, Held, Holding, Holdings, Made, whole_of
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.codes import Rounding, Same
from deploy.comparison.sums.fold import PairSums, SideSums, histogram
from deploy.comparison.sums.rows import Seen
from deploy.comparison.values.measures import Histogram, Status
from exporter.session import Tensors

__all__ = ["Batch", "StepSums", "read_of"]

Indices = npt.NDArray[np.int64]
Task = Callable[[], object]
_Bounds = Mapping[str, SideSums]
_Sides = tuple[SideSums | None, SideSums | None]
_Array = npt.NDArray[Any]


def read_of(name: str) -> str:
    """Name the elements of a strided tensor that are read; no tensor can be called so."""
    return f"{name}\0read"


@dataclass(frozen=True, slots=True)
class Batch:
    """The images under way: the index of each in the data, and whether they are the first."""

    images: Indices
    first: bool


@dataclass(slots=True)
class StepSums:
    """Sums of one step, by tensor.

    Attributes:
        quantizers: Of the candidate's activations.
        holdings: How the candidate holds tensors that it does not hold as they are.
        amaxes: What calibration chose for the candidate's quantizers, where its table is there.
        strided: Tensors of which a layer of the candidate reads every so many elements only.
        joined: The tensors that both sides have.
        passed: Tensor → the sum behind which a ReLU is all that becomes of it: of no account are
            its values where that sum is negative.
        made: Bounds of what the reference makes.
        seen: What became of each that both made.
        inherited: Differences of free runs.
        own: Differences of the candidate's layers, fed the reference's tensors.
        total: Differences from the first model of the chain.
        same: Codes of free runs.
        own_same: Codes of fed runs.
        rounding: What the candidate's quantizers make of the reference's tensors; of a strided
            tensor T also of what is read of it, as :func:`read_of` calls it.
        counted: The same of the values that are of account; mostly that itself.
        accounted: Σ r² of those values, for tensors of which not all are.
        histograms: Of the first images.
        images: How many images are summed up.
        feeds: Whether the candidate can still be fed: no cut so far had two shapes.
    """

    quantizers: Mapping[str, Quantizer]
    holdings: Holdings
    strided: Mapping[str, tuple[int, ...]]
    amaxes: Mapping[str, float]
    joined: frozenset[str]
    made: Mapping[str, SideSums]
    passed: Mapping[str, str] = field(default_factory=dict)
    seen: dict[str, Seen] = field(default_factory=dict)
    inherited: dict[str, PairSums] = field(default_factory=dict)
    own: dict[str, PairSums] = field(default_factory=dict)
    total: dict[str, PairSums] = field(default_factory=dict)
    same: dict[str, Same] = field(default_factory=dict)
    own_same: dict[str, Same] = field(default_factory=dict)
    rounding: dict[str, Rounding] = field(default_factory=dict)
    counted: dict[str, Rounding] = field(default_factory=dict)
    accounted: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Histogram | None] = field(default_factory=dict)
    images: int = 0
    feeds: bool = True
    _summed: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        """Note which tensors are such sums: they are compared as far as the ReLU passes them."""
        self._summed = frozenset(self.passed.values())

    def meet(
        self, r: Tensors, c: Made, dtypes: Callable[[str], tuple[np.dtype[Any], np.dtype[Any]]]
    ) -> list[str]:
        """Note what both sides made; return the names of what can be compared, in graph order."""
        both = [name for name in r if name in c and name in self.joined]
        for name in both:
            if name not in self.seen:
                self.seen[name] = Seen.of(dtypes(name), (r[name].shape, c[name].shape))
        return [name for name in both if self.seen[name].status is Status.COMPARED]

    def free(
        self,
        names: Iterable[str],
        r: Tensors,
        c: Made,
        batch: Batch,
        bounds: tuple[_Bounds, _Bounds] = ({}, {}),
    ) -> list[Task]:
        """Return the tasks that fold a free run, one for each tensor.

        Args:
            names: The tensors.
            r: What the reference made.
            c: What the candidate made.
            batch: The images under way.
            bounds: Bounds of either side's tensors that are to be folded, too, by tensor.
        """
        return [
            self._free(name, r, c[name], batch, (bounds[0].get(name), bounds[1].get(name)))
            for name in names
        ]

    def _free(
        self, name: str, made: Tensors, c: _Array | Held, batch: Batch, sides: _Sides
    ) -> Task:
        r, total = made[name], made.get(self.passed.get(name, ""))
        sums = self.inherited.setdefault(name, PairSums())
        quantizer = self.quantizers.get(name)
        if quantizer is not None:
            same = self.same.setdefault(name, Same())
            rounding = self.rounding.setdefault(name, Rounding())
            counted = self.counted.setdefault(name, rounding if total is None else Rounding())

        strides = self.strided.get(name) if r.ndim > 2 else None
        part = read_of(name)
        if strides:
            part_sums = self.inherited.setdefault(part, PairSums())
            part_rounding = self.rounding.setdefault(part, Rounding())

        def work() -> None:
            self._add(name, sums, (r, c), batch, sides)
            if quantizer is not None:
                same.add(r, c, quantizer)
                rounding.add(r, quantizer)
                if total is not None:
                    rest = np.where(total > 0, r, np.zeros((), r.dtype))
                    counted.add(rest, quantizer)
                    self.accounted[name] = self.accounted.get(name, 0.0) + float(
                        np.square(rest, dtype=np.float64).sum()
                    )
            if strides:
                where: tuple[Any, ...] = (..., *(slice(None, None, by) for by in strides))
                part_sums.add(r[where], whole_of(c)[where], batch.images)
                if quantizer is not None:
                    part_rounding.add(r[where], quantizer)
            if batch.first:
                self.histograms[name] = histogram(r, whole_of(c))

        return work

    def fed(self, r: Tensors, made: Made, batch: Batch) -> list[Task]:
        """Return the tasks that fold a fed run, one for each tensor."""
        return [self._fed(name, r[name], tensor, batch) for name, tensor in made.items()]

    def _fed(self, name: str, r: _Array, c: _Array | Held, batch: Batch) -> Task:
        sums = self.own.setdefault(name, PairSums())
        quantizer = self.quantizers.get(name)
        same = self.own_same.setdefault(name, Same()) if quantizer else None

        def work() -> None:
            differ = self._add(name, sums, (r, c), batch)
            if same is None or quantizer is None:
                return
            if differ:
                same.add(r, c, quantizer)
            else:  # as behind a ReLU, which makes the same of the same
                same.add_equal(r.size)

        return work

    def against_first(self, first: Tensors, c: Made, batch: Batch) -> list[Task]:
        """Return the tasks that fold the difference from the chain's first model."""
        return [
            self._against_first(name, array, c[name], batch)
            for name, array in first.items()
            if name in c and array.shape == c[name].shape
        ]

    def _against_first(self, name: str, r: _Array, c: _Array | Held, batch: Batch) -> Task:
        sums = self.total.setdefault(name, PairSums())
        return lambda: self._add(name, sums, (r, c), batch)

    def _add(
        self,
        name: str,
        sums: PairSums,
        pair: tuple[_Array, _Array | Held],
        batch: Batch,
        sides: _Sides = (None, None),
    ) -> bool:
        if name not in self._summed:
            return sums.add(*pair, batch.images, sides)
        if sums.add(*pair, batch.images, sides, least=0.0):
            return True
        # What is not passed on may differ all the same, and has codes.
        return not np.array_equal(pair[0], whole_of(pair[1]))

    def held(self, name: str) -> Holding:
        """Return how the candidate holds a tensor."""
        return self.holdings.get(name, AS_IT_IS)

    def reach(self, name: str) -> float:
        """Return the largest magnitude of the reference's tensor, held as here; 0 if unknown."""
        sums = self.made.get(name)
        if sums is None or not len(sums.low):
            return 0.0
        held = self.held(name)
        bounds = np.stack([sums.low, sums.high]) / held.each(len(sums.low)) - held.shift
        with np.errstate(invalid="ignore"):
            return float(np.fmax.reduce(np.abs(bounds), axis=None))

    def rounding_db(self, name: str) -> float:
        """Return the SQNR that the candidate's quantizer leaves of what counts of a tensor."""
        signal = self.accounted.get(name, float(self.inherited[name].signal.sum()))
        noise = self.counted[name].sums[:, 1].sum()
        if not noise > 0:
            return math.nan if math.isnan(noise) else math.inf
        return 10.0 * math.log10(signal / noise) if signal and noise < math.inf else -math.inf
