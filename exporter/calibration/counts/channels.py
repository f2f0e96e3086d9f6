"""What each channel of a tensor held: exact bounds and a coarse histogram, mergeable.

The equalization of channels (:mod:`exporter.quantization.equalize`) and the correction of
biases need to know channels apart. A channel's cells are its value's sign, exponent and first
3 bits of the mantissa: 8 an octave from 2⁻¹⁶ to 2¹⁶, with all that is smaller in the first one
(zeros above all) and all that is larger in the last. As in
:mod:`exporter.calibration.counts.histogram`, counts add up exactly whatever the order, and bounds
are extremes, so equal images give equal bytes.

Of large planes not every value is counted (:func:`stride_of`), and of each image only a quarter of
the channels, another one from image to image (:func:`turn_of`): to reach for the cells of a
channel costs more than to count in them. Bounds are of all values of all images.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt

from exporter.calibration.counts.histogram import SHIFT, Histogram

__all__ = ["BASE", "CELLS", "COARSE", "ChannelCounts", "stride_of", "turn_of", "turns_of"]

COARSE = 20  # bits that a cell does not tell apart
CELLS = 256  # of one sign
BASE = ((127 - 16) << 3) - 1  # the cell of 2⁻¹⁶ is number 1

_ENOUGH = 64  # values of one channel of one image: hundreds of images make thousands
_TURNS = 4
_SMALL = 32  # values of a plane: so few, that all of every image are counted
# Prime, and so no divisor of usual widths: no column is left out.
_STRIDES = (1, 3, 5, 11, 17, 31, 61, 127, 257, 509, 1021, 2053, 4093)

_Floats = npt.NDArray[np.float64]


@cache
def stride_of(plane: int) -> int:
    """Return n where every n-th value of a plane of so many is counted."""
    return max(stride for stride in _STRIDES if stride * _ENOUGH <= max(plane, _ENOUGH))


def turns_of(plane: int) -> int:
    """Return n where of each image every n-th channel is counted."""
    return 1 if plane < _SMALL else _TURNS


def turn_of(digest: str) -> int:
    """Return a number that says which channels and places of an image are counted.

    By its digest, whatever comes before it; modulo the number of turns, it is the channel
    that is counted first.
    """
    return int(digest[:8], 16)


@dataclass(frozen=True, eq=False)
class ChannelCounts:
    """Counts of one tensor's channels; add two to merge disjoint parts of the data.

    Attributes:
        cells: channel · 512 + (256 when negative) + cell, those that hold anything,
            ascending, (K,) int32.
        counts: Values in each, (K,) int64, > 0.
        low: Smallest value of each channel, exact, (C,) float32.
        high: Largest value, the same. No channels at all when nothing was counted, or what
            was has none.
    """

    cells: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    low: npt.NDArray[np.float32]
    high: npt.NDArray[np.float32]

    @classmethod
    def empty(cls) -> ChannelCounts:
        """Return counts of nothing: the zero of addition."""
        none = np.empty(0, np.float32)
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), none, none)

    def __len__(self) -> int:
        """Return the number of channels."""
        return len(self.low)

    def __add__(self, other: ChannelCounts) -> ChannelCounts:
        """Merge.

        Raises:
            ValueError: They have other numbers of channels.
        """
        if not len(self) or not len(other):
            return self if len(self) else other
        if len(self) != len(other):
            raise ValueError(f"{len(self)} and {len(other)} channels")
        # Both are sorted, and a stable sort of two sorted halves is their merge.
        joined = np.concatenate([self.cells, other.cells])
        order = np.argsort(joined, kind="stable")
        joined = joined[order]
        first = np.flatnonzero(np.diff(joined, prepend=-1))
        cells = joined[first]
        counts = np.concatenate([self.counts, other.counts])[order]
        counts = np.add.reduceat(counts, first) if len(first) else counts
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return ChannelCounts(cells, counts, low, high)

    @property
    def amax(self) -> _Floats:
        """Largest magnitude of each channel, exact, (C,)."""
        return np.maximum(np.abs(self.low), np.abs(self.high)).astype(np.float64)

    @cached_property
    def channel(self) -> npt.NDArray[np.int64]:
        """Channel of each entry of ``cells``, (K,)."""
        return self.cells.astype(np.int64) // (2 * CELLS)

    @cached_property
    def edges(self) -> tuple[_Floats, _Floats]:
        """Smallest and largest value of each entry, (K,) each, cut to the channel's bounds."""
        cell, negative = self.cells % CELLS, self.cells % (2 * CELLS) >= CELLS
        word = ((cell + BASE).astype(np.uint32)) << np.uint32(COARSE)
        near = np.where(cell == 0, 0.0, word.view(np.float32).astype(np.float64))
        after = (word + np.uint32(1 << COARSE)).view(np.float32).astype(np.float64)
        far = np.where(cell == 0, 0.0, np.where(cell == CELLS - 1, np.inf, after))
        low, high = np.where(negative, -far, near), np.where(negative, -near, far)
        bounds = self.low[self.channel], self.high[self.channel]
        return np.clip(low, *bounds).astype(np.float64), np.clip(high, *bounds).astype(np.float64)

    def means(self, values: _Floats) -> _Floats:
        """Return the mean over each channel of something known of each entry.

        Args:
            values: (K,) float64.

        Returns:
            (C,) float64; 0 for a channel without values.
        """
        total = np.bincount(self.channel, self.counts * values, len(self))
        number = np.bincount(self.channel, self.counts, len(self))
        return np.asarray(total / np.maximum(number, 1))

    def quantile(self, share: float) -> _Floats:
        """Return the magnitude that ``share`` of a channel's values do not exceed, (C,)."""
        low, high = self.edges
        top = np.maximum(np.abs(low), np.abs(high))
        order = np.lexsort((top, self.channel))
        channel, counts, tops = self.channel[order], self.counts[order], top[order]
        reached = np.cumsum(counts)
        total = np.bincount(channel, counts, len(self))
        before = (np.cumsum(total) - total)[channel]
        enough = reached - before >= share * total[channel]
        result = np.zeros(len(self))
        # From the back, so that the first entry that reaches the share is written last.
        result[channel[enough][::-1]] = tops[enough][::-1]
        return result

    def divided(self, factors: _Floats) -> Histogram:
        """Return the histogram of the tensor with each channel divided by its factor.

        Counts are spread evenly over their cell, and rounded so that their sum stays.

        Args:
            factors: (C,), > 0; few different ones make it quick.
        """
        different, group = np.unique(factors, return_inverse=True)
        key = group[self.channel] * 2 * CELLS + self.cells % (2 * CELLS)
        counted = np.bincount(key, self.counts).astype(np.int64)
        (keys,) = np.nonzero(counted)
        low = np.full(len(different), np.inf, np.float32)
        high = np.full(len(different), -np.inf, np.float32)
        np.minimum.at(low, group, self.low)
        np.maximum.at(high, group, self.high)
        alike = ChannelCounts(keys.astype(np.int32), counted[keys], low, high)
        return _histogram(alike, different)


def _histogram(channels: ChannelCounts, factors: _Floats) -> Histogram:
    low, high = (edge / factors[channels.channel] for edge in channels.edges)
    minimum = np.float32((channels.low / factors).min()) + np.float32(0)
    maximum = np.float32((channels.high / factors).max()) + np.float32(0)
    negative = low < 0
    below, above = (
        _side(-high[negative], -low[negative], channels.counts[negative], -minimum),
        _side(low[~negative], high[~negative], channels.counts[~negative], maximum),
    )
    buckets = np.concatenate([above[0], below[0] + (1 << (31 - SHIFT))])
    counts = np.concatenate([above[1], below[1]])
    return Histogram(buckets.astype(np.int32), counts, float(minimum), float(maximum))


def _side(
    low: _Floats, high: _Floats, counts: npt.NDArray[np.int64], top: np.float32
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return buckets of magnitudes and counts, from intervals [low, high], 0 ≤ high ≤ top."""
    zeros = int(counts[high <= 0].sum())
    inside = high > 0
    low, high, counts = low[inside], high[inside], counts[inside]
    if not len(counts):
        return _nonzero(np.zeros(1, np.int64), np.array([zeros]))
    low = np.minimum(low, high * (1 - 2.0**-12))  # none without width
    last = int(np.asarray(top, np.float32).view(np.uint32)) >> SHIFT
    least = np.float32(low[low > 0].min() if (low > 0).any() else high.min() / 2)
    first = int(np.asarray(least).view(np.uint32)) >> SHIFT
    last = max(first, min(last, (0xFF << (23 - SHIFT)) - 1))
    buckets = np.arange(first, last + 1, dtype=np.int64)
    inner = (buckets[1:].astype(np.uint32) << np.uint32(SHIFT)).view(np.float32)
    reached = _cumulative(low, high, counts.astype(np.float64), inner.astype(np.float64))
    reached = np.maximum.accumulate(reached)
    ends = np.rint(np.concatenate([[0.0], reached, [float(counts.sum())]])).astype(np.int64)
    spread = np.diff(ends)
    return _nonzero(np.concatenate([[0], buckets]), np.concatenate([[zeros], spread]))


def _nonzero(
    buckets: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    there = counts > 0
    return buckets[there], counts[there]


def _cumulative(low: _Floats, high: _Floats, counts: _Floats, at: _Floats) -> _Floats:
    """Return how many values lie below each of ``at``, intervals filled evenly."""
    density = counts / (high - low)
    edges = np.concatenate([low, high])
    change = np.concatenate([density, -density])
    order = np.argsort(edges, kind="stable")
    edges, slope = edges[order], np.cumsum(change[order])
    reached = np.concatenate([[0.0], np.cumsum(slope[:-1] * np.diff(edges))])
    return np.asarray(np.interp(at, edges, np.clip(reached, 0.0, counts.sum())))
