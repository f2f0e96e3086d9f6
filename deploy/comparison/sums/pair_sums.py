"""Sums over all images of what two models made: constant memory a tensor, any batch size."""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.sums.as_channels import as_channels
from deploy.comparison.sums.bin_kernel import BINS, bin_values
from deploy.comparison.sums.pair_kernel import PAIR_SUMS, bound_values
from deploy.comparison.values.measures import Errors, Histogram, Place

__all__ = ["PairSums", "SideSums", "histogram"]

Array = npt.NDArray[Any]


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
        by_image: Whether the first axis is that of the images, as far as its length tells.
        worst: Largest Σ (c − r)² of one image in each channel, and the number of that image in
            that order, (channels, 2) float64; −1 for none.
    """

    sums: Array = field(default_factory=lambda: np.zeros((0, PAIR_SUMS)))
    noises: array[float] = field(default_factory=lambda: array("d"))
    by_image: bool = True
    worst: Array = field(default_factory=lambda: np.zeros((0, 2)))
    elements: int = 0
    nonfinite: int = 0
    largest: float = 0.0
    at: Place | None = None

    def takes(self, channels: int) -> bool:
        """Tell whether so many channels go with those that were folded."""
        return not len(self.sums) or len(self.sums) == channels

    def begin(self, shape: tuple[int, int, int]) -> Array:
        """Begin with a batch of this shape; return where the noise of its images is added."""
        images, channels, length = shape
        if not len(self.sums):
            self.sums = np.zeros((channels, PAIR_SUMS))
            self.worst = np.stack([np.zeros(channels), np.full(channels, -1.0)], axis=1)
        self.elements += images * length
        return np.zeros(images)

    def note(
        self,
        noises: Array,
        largest: tuple[float, int],
        shape: tuple[int, ...],
        images: npt.NDArray[np.int64],
    ) -> None:
        """End a batch.

        Args:
            noises: Where the noise of its images was added, (n,).
            largest: Its largest difference, and the flat index of that.
            shape: Of the tensor.
            images: Index of each image in the data.
        """
        self.noises.frombytes(noises.tobytes())
        self.by_image &= len(images) == len(noises)
        difference, at = largest
        if difference > self.largest:
            n, *index = map(int, np.unravel_index(at, shape or (1,)))
            image = int(images[n]) if len(images) == len(noises) else n
            self.largest, self.at = difference, Place(image, tuple(index))

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
        ratio = signal / noise  # NaN where both are beyond float64
        decibels = 10.0 * math.log10(ratio) if ratio > 0 else -math.inf
        return Errors(decibels, cosine, self.largest, self.at)


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
        if len(self.found) < channels:  # of some tensors it depends on the image how many
            more = np.zeros((channels - len(self.found), 4))
            more[:, :2] = np.nan
            self.found = np.concatenate([self.found, more])
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
