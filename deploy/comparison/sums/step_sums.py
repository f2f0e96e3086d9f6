"""All that is summed up of one step of a chain: a candidate against the model before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.holding import AS_IT_IS, Held, Holding, Holdings, Made, whole_of
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.as_channels import three
from deploy.comparison.sums.codes import Rounding, Same
from deploy.comparison.sums.folding import Into, Rule, fold
from deploy.comparison.sums.pair_sums import PairSums, SideSums, histogram
from deploy.comparison.sums.rows import Seen
from deploy.comparison.values.measures import Histogram, Status
from exporter.session import Tensors

__all__ = ["Batch", "StepSums", "read_of"]

Indices = npt.NDArray[np.int64]
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
        accounted: Sums of those values, for tensors of which not all are.
        behind: What rounding makes of the sum that such a tensor goes into, behind its ReLU.
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
    accounted: dict[str, PairSums] = field(default_factory=dict)
    behind: dict[str, PairSums] = field(default_factory=dict)
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
            shapes = r[name].shape, c[name].shape
            if name not in self.seen:
                self.seen[name] = Seen.of(dtypes(name), shapes)
            elif self.seen[name] != (now := self.seen[name].again(shapes)):
                self.seen[name] = now
                self.feeds = False  # its layers were opened to be fed it
        return [name for name in both if self.seen[name].status is Status.COMPARED]

    def free(
        self,
        names: Iterable[str],
        r: Tensors,
        c: Made,
        batch: Batch,
        bounds: tuple[_Bounds, _Bounds] = ({}, {}),
    ) -> Tensors:
        """Fold a free run.

        Args:
            names: The tensors to fold.
            r: What the reference made.
            c: What the candidate made.
            batch: The images under way.
            bounds: Bounds of either side's tensors that are to be folded, too, by tensor.

        Returns:
            The reference's tensors, as the candidate holds them where it can be fed them.
        """
        inside: Tensors = {}
        for name in names:
            sides = bounds[0].get(name), bounds[1].get(name)
            inside[name] = self._free(name, (r[name], c[name]), batch, sides)
            if name in self.quantizers:
                self._count(name, r[name], r.get(self.passed.get(name, "")), batch)
            self._read(name, r[name], c[name], batch)
            if batch.first:
                self.histograms[name] = histogram(r[name], whole_of(c[name]))
        return inside

    def _free(
        self, name: str, pair: tuple[_Array, _Array | Held], batch: Batch, sides: _Sides
    ) -> _Array:
        """Fold a tensor; return the reference's as the candidate holds it."""
        rule, sums = self._rule(name), self.inherited.setdefault(name, PairSums())
        into = Into(sums, sides, least=self._least(name))
        if rule.quantizer is not None:
            same = self.same.setdefault(name, Same())
            into = replace(into, same=same, rounding=self.rounding.setdefault(name, Rounding()))
        return fold(*pair, batch.images, into, rule, inside=self.feeds)

    def _count(self, name: str, r: _Array, total: _Array | None, batch: Batch) -> None:
        """Fold what rounding makes of the values that are of account, and of what comes of them.

        Args:
            name: The tensor.
            r: The reference's.
            total: The sum that it goes into, of which a ReLU passes what is positive; or None.
            batch: The images under way.
        """
        if total is None or total.shape[1:2] != r.shape[1:2]:
            self.counted[name] = self.rounding[name]
            return
        rest = np.where(total > 0, r, np.zeros((), r.dtype))
        rounding = self.counted.setdefault(name, Rounding())
        into = Into(self.accounted.setdefault(name, PairSums()), rounding=rounding)
        fold(rest, rest, batch.images, into, self._rule(name))
        rounded = self.quantizers[name].rounded(r)
        rounded -= r
        rounded = total + rounded  # which may be of more elements
        into = Into(self.behind.setdefault(name, PairSums()), least=0.0)
        fold(total, rounded, batch.images, into)

    def _read(self, name: str, r: _Array, c: _Array | Held, batch: Batch) -> None:
        """Fold those elements of a strided tensor that are read."""
        strides = self.strided.get(name) if r.ndim > 2 else None
        if not strides:
            return
        where: tuple[Any, ...] = (..., *(slice(None, None, by) for by in strides))
        part = read_of(name)
        into = Into(self.inherited.setdefault(part, PairSums()))
        if name in self.quantizers:
            into = replace(into, rounding=self.rounding.setdefault(part, Rounding()))
        read = replace(c, array=c.array[where]) if isinstance(c, Held) else c[where]
        fold(r[where], read, batch.images, into, self._rule(name))

    def fed(self, r: Tensors, made: Made, batch: Batch) -> None:
        """Fold a fed run."""
        for name, tensor in made.items():
            rule, sums = self._rule(name), self.own.setdefault(name, PairSums())
            into = Into(sums, least=self._least(name))
            if rule.quantizer is not None:
                into = replace(into, same=self.own_same.setdefault(name, Same()))
            fold(r[name], tensor, batch.images, into, rule)

    def against_first(self, first: Tensors, c: Made, batch: Batch) -> None:
        """Fold the difference from the chain's first model."""
        for name, array in first.items():
            sums = self.total.get(name, PairSums())
            same = name in c and array.shape == c[name].shape
            if same and sums.takes(three(array.shape)[1]):
                self.total[name] = sums
                into = Into(sums, least=self._least(name))
                fold(array, c[name], batch.images, into, Rule(self.held(name)))

    def _rule(self, name: str) -> Rule:
        return Rule(self.held(name), self.quantizers.get(name))

    def _least(self, name: str) -> float:
        """Return what smaller values of a tensor are taken for: a sum's are seen behind a ReLU."""
        return 0.0 if name in self._summed else -math.inf

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
        signal = float(self.accounted.get(name, self.inherited[name]).signal.sum())
        noise = self.counted[name].sums[:, 1].sum()
        if not noise > 0:
            return math.nan if math.isnan(noise) else math.inf
        return 10.0 * math.log10(signal / noise) if signal and noise < math.inf else -math.inf
