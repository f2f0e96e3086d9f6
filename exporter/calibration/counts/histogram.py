"""A histogram that needs no range in advance, and that any split of the data agrees on.

The bucket of a float32 is its own high bits: sign, exponent and the first 8 bits of the
mantissa. So a bucket is at most 1/256 of its value wide at any magnitude (log-linear, as
HDR histograms are), and a histogram is a sum of counts: exact under any order, batch size
or sharding, which sums of floats are not.

    bits:    s eeeeeeee mmmmmmmm mmmmmmmmmmmmmmm
    bucket:  s eeeeeeee mmmmmmmm                      = bits >> 15

Buckets 0 … 65535 hold positive values, ascending; 65536 … 131071 negative ones, by their
magnitude. The last exponent is Inf and NaN.

Of a large activation not every value is counted (:func:`every_of`): neighbours in an image are
alike, and a hundred images still make millions. Its bounds are of all values. Of each plane every
n-th place counts, from one on that depends on the image and, 16 at a time, on the channel: however
the values lie in memory, the same ones are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

__all__ = ["BUCKETS", "SHIFT", "Histogram", "bucket_edges", "every_of"]

SHIFT = 15
BUCKETS = 1 << (32 - SHIFT)
_SIGN = BUCKETS // 2
_NONFINITE = 0xFF << (23 - SHIFT)  # first bucket of Inf and NaN, among the positive ones

_ENOUGH = 1 << 14  # values of one image
_STRIDES = (1, 3, 5, 11, 17, 31, 61, 127, 257)

_Floats = npt.NDArray[np.float64]


@cache
def every_of(size: int) -> int:
    """Return n where every n-th value is counted, of an image with so many."""
    return max(stride for stride in _STRIDES if stride * _ENOUGH <= max(size, _ENOUGH))


def bucket_edges(magnitude: npt.NDArray[np.integer]) -> tuple[_Floats, _Floats]:
    """Return the smallest magnitude in each bucket, and the one at which the next begins.

    Args:
        magnitude: Buckets of positive values, any shape.

    Returns:
        Two float64 arrays of that shape; the last finite bucket ends at 2¹²⁸.
    """
    low = np.asarray(magnitude, dtype=np.uint32)
    edges = (low << np.uint32(SHIFT), (low + np.uint32(1)) << np.uint32(SHIFT))
    lower, upper = (bits.view(np.float32).astype(np.float64) for bits in edges)
    return lower, np.where(np.isinf(upper), 2.0**128, upper)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of one tensor's values; add two to merge disjoint parts of the data.

    Attributes:
        buckets: The buckets that hold anything, ascending, (K,) int32.
        counts: How many values were counted in each, (K,) int64, > 0.
        minimum: Exact smallest value; +inf when there are none.
        maximum: Exact largest value; −inf when there are none.
    """

    buckets: npt.NDArray[np.int32]
    counts: npt.NDArray[np.int64]
    minimum: float
    maximum: float

    @classmethod
    def empty(cls) -> Histogram:
        """Return the histogram of no values: the zero of addition."""
        return cls(np.empty(0, np.int32), np.empty(0, np.int64), math.inf, -math.inf)

    def __add__(self, other: Histogram) -> Histogram:
        """Merge: the histogram of both parts together."""
        both = np.concatenate([self.buckets, other.buckets])
        buckets, where = np.unique(both, return_inverse=True)
        counts = np.zeros(len(buckets), np.int64)
        np.add.at(counts, where, np.concatenate([self.counts, other.counts]))
        return Histogram(
            buckets,
            counts,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
        )

    @property
    def count(self) -> int:
        """Number of values that were counted."""
        return int(self.counts.sum())

    @property
    def nonfinite(self) -> int:
        """Number of NaN and infinite values."""
        return int(self.counts[self.buckets % _SIGN >= _NONFINITE].sum())

    @property
    def amax(self) -> float:
        """Largest magnitude, exact; 0 when there are no values."""
        return max(self.maximum, -self.minimum, 0.0)

    def magnitudes(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Fold the sign away.

        Returns:
            Buckets of positive values, ascending, and their counts; both (K,) int64.
        """
        folded = np.zeros(_SIGN, np.int64)
        np.add.at(folded, self.buckets % _SIGN, self.counts)
        (buckets,) = np.nonzero(folded)
        return buckets, folded[buckets]
