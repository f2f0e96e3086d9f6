"""Sums over all images of what two models made: constant memory a tensor, any batch size."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.holding import Held, whole_of
from deploy.comparison.sums.as_channels import as_channels
from deploy.comparison.sums.pair_kernel import BINS, PAIR_SUMS, bin_values, bound_values, sum_pair
from deploy.comparison.values.measures import Errors, Histogram, Place

__all__ = ["PairSums", "SideSums", "histogram"]

_NOT_WANTED = np.zeros((0, 4))

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]


@dataclass(slots=True)
class PairSums:
    """How far one tensor is from another, in each channel.

    Attributes:
        sums: (channels, PAIR_SUMS) float64; empty before the first pair.
        elements: Values of a channel.
        nonfinite: Values that are NaN or infinite on either side.
        largest: Largest |difference|.
        at: Where that is.
        noises: Σ (c − r)² of each image, in the order they came.
        worst: Largest Σ (c − r)² of one image in each channel, and the number of that image in
            that order, (channels, 2) float64; −1 for none.
    """

    sums: Array = field(default_factory=lambda: np.zeros((0, PAIR_SUMS)))
    noises: array[float] = field(default_factory=lambda: array("d"))
    worst: Array = field(default_factory=lambda: np.zeros((0, 2)))
    elements: int = 0
    nonfinite: int = 0
    largest: float = 0.0
    at: Place | None = None

    def add(
        self,
        reference: Array,
        candidate: Array | Held,
        images: Indices,
        sides: tuple[SideSums | None, SideSums | None] = (None, None),
        *,
        least: float = -math.inf,
    ) -> bool:
        """Fold one batch.

        Args:
            reference: Any shape and real type.
            candidate: The same shape, or one that stands for it.
            images: Index of each image in the data.
            sides: Bounds of the reference's and of the candidate's tensor, to be folded on the
                way; None for those that are not wanted.
            least: What smaller values are taken for, on both sides.

        Returns:
            Whether any value differs, NaN from all.
        """
        r, (c, units) = as_channels(reference), _with_units(candidate)
        if c.dtype != r.dtype:
            r, c = r.astype(np.float64), as_channels(whole_of(candidate)).astype(np.float64)
            units = None
        if not len(self.sums):
            self.sums = np.zeros((r.shape[1], PAIR_SUMS))
            self.worst = np.stack([np.zeros(r.shape[1]), np.full(r.shape[1], -1.0)], axis=1)
        before, noises = len(self.noises), np.zeros(len(r))
        of_r, of_c = (_NOT_WANTED if side is None else side.of(r.shape[1]) for side in sides)
        largest, at, finite = sum_pair(
            *(r, c, self.sums, (noises, self.worst), (of_r, of_c)),
            before=before,
            units=units,
            least=least,
        )
        self.noises.frombytes(noises.tobytes())
        self.elements += r.shape[0] * r.shape[2]
        if not finite:
            pair = (np.maximum(side, least) for side in (r, as_channels(whole_of(candidate))))
            finite_ones = np.logical_and(*map(np.isfinite, pair))
            self.nonfinite += r.size - int(np.count_nonzero(finite_ones))
        if largest > self.largest:
            n, *index = np.unravel_index(at, reference.shape or (1,))
            image = int(images[n]) if len(images) == len(r) else int(n)
            self.largest, self.at = largest, Place(image, tuple(map(int, index)))
        return bool(noises.any()) or not finite

    @property
    def noise(self) -> Array:
        """Σ (c − r)² of each channel."""
        return self.sums[:, 4]

    @property
    def signal(self) -> Array:
        """Σ r² of each channel."""
        return self.sums[:, 1]

    @property
    def drift(self) -> Array:
        """Mean of c − r in each channel."""
        return self.sums[:, 3] / max(self.elements, 1)

    def errors(self) -> Errors:
        """Return the errors of the whole tensor."""
        signal, energy, noise = (float(total) for total in self.sums[:, [1, 2, 4]].sum(axis=0))
        if self.nonfinite or not self.elements or math.isnan(noise):
            return Errors(math.nan, math.nan, math.nan)
        if noise == 0.0:
            return Errors(math.inf, 1.0, 0.0)
        dot = (signal + energy - noise) / 2.0
        scale = math.sqrt(signal) * math.sqrt(energy)
        cosine = max(-1.0, min(1.0, dot / scale)) if scale else 0.0
        decibels = 10.0 * math.log10(signal / noise) if signal else -math.inf
        return Errors(decibels, cosine, self.largest, self.at)


def _with_units(tensor: Array | Held) -> tuple[Array, tuple[Array, float] | None]:
    """Return a tensor for the loops, and how it is held; None for one that is as it is."""
    if not isinstance(tensor, Held):
        return as_channels(tensor), None
    holding = tensor.holding
    return as_channels(tensor.array), (holding.factors_of(tensor.shape), holding.shift)


@dataclass(slots=True)
class SideSums:
    """What one model made of a tensor: its bounds in each channel, NaN and infinities.

    Attributes:
        found: (channels, 4) float64: the smallest and the largest value that is no NaN, NaN for
            none; how many are NaN, and how many infinite. Empty before the first batch.
    """

    found: Array = field(default_factory=lambda: np.zeros((0, 4)))

    def add(self, array: Array) -> None:
        """Fold one batch."""
        values = as_channels(array)
        bound_values(values, self.of(values.shape[1]))

    def of(self, channels: int) -> Array:
        """Return what is to be kept up to date of so many channels."""
        if not len(self.found):
            self.found = np.zeros((channels, 4))
            self.found[:, :2] = np.nan
        return self.found

    @property
    def low(self) -> Array:
        """Smallest value of each channel that is no NaN, (channels,) float64; NaN for none."""
        return self.found[:, 0]

    @property
    def high(self) -> Array:
        """Likewise the largest."""
        return self.found[:, 1]

    @property
    def nan(self) -> int:
        """How many values are NaN."""
        return int(self.found[:, 2].sum())

    @property
    def inf(self) -> int:
        """How many values are infinite."""
        return int(self.found[:, 3].sum())

    @property
    def dead(self) -> int:
        """Channels that are constant."""
        return int(np.count_nonzero(self.low == self.high))

    def bounds(self) -> tuple[float, float]:
        """Return the smallest and the largest value; NaN only when there is no number."""
        with np.errstate(invalid="ignore"):
            low, high = np.fmin.reduce(self.low), np.fmax.reduce(self.high)
        return float(low), float(high)


def histogram(reference: Array, candidate: Array) -> Histogram | None:
    """Count both sides' values in equal bins between the extremes of both; None for no range."""
    sides = [as_channels(reference), as_channels(candidate)]
    finite = [side if np.isfinite(side).all() else side[np.isfinite(side)] for side in sides]
    if not all(side.size for side in finite):
        return None
    low, high = min(float(s.min()) for s in finite), max(float(s.max()) for s in finite)
    if not low < high:
        return None
    counts = [np.zeros(BINS, np.int64) for _ in sides]
    for side, into in zip(sides, counts, strict=True):
        bin_values(side, low, high, into)
    first, second = (tuple(map(int, into)) for into in counts)
    return Histogram(low, high, first, second)
