"""A histogram that needs no range in advance, and that any split of the data agrees on.

The bucket of a float32 is its own high bits: sign, exponent and the first 8 bits of the
mantissa. So a bucket is at most 1/256 of its value wide at any magnitude (log-linear, as
HDR histograms are), and a histogram is a sum of counts: exact under any order, batch size
or sharding, which sums of floats are not.

    bits:    s eeeeeeee mmmmmmmm mmmmmmmmmmmmmmm
    bucket:  s eeeeeeee mmmmmmmm                      = bits >> 15

Buckets 0 … 65535 hold positive values, ascending; 65536 … 131071 negative ones, by their
magnitude. The last exponent is Inf and NaN.
"""

from __future__ import annotations

import math
import mmap
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import MissingBackendError

__all__ = ["BUCKETS", "SHIFT", "Histogram", "Tally", "bucket_edges"]

SHIFT = 15
BUCKETS = 1 << (32 - SHIFT)
_SIGN = BUCKETS // 2
_NONFINITE = 0xFF << (23 - SHIFT)  # first bucket of Inf and NaN, among the positive ones
_INF_BITS = 0x7F800000
_MAGNITUDE = 0x7FFFFFFF
_MOST = (1 << 32) - 1  # what one uint32 count holds

_Floats = npt.NDArray[np.float64]


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
        counts: How many values each holds, (K,) int64, > 0.
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
        """Number of values."""
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


class Tally:
    """One thread's counts of one tensor.

    Costs 2 MiB of address space, but memory only where values fall: some 100 KiB.

    Raises:
        MissingBackendError: numba is not installed.
    """

    def __init__(self) -> None:
        try:  # loads numba, which only those who count need
            from exporter.histogram_kernel import TABLES, tally
        except ImportError as err:
            raise MissingBackendError(
                f"numba cannot be imported ({err})", hint="pip install 'strata[export]'"
            ) from err
        self._kernel = tally
        self._tables = _sparse_table(TABLES)
        self._pending = 0  # values in the tables, which could overflow
        self._folded = Histogram.empty()
        self._minimum, self._maximum = math.inf, -math.inf
        self._top = 0  # bits of the largest magnitude
        self._signs = False  # whether any sign bit was set, −0 included

    def add(self, values: npt.NDArray[np.float32]) -> bool:
        """Count an array.

        Args:
            values: float32, any shape.

        Returns:
            Whether all of them are finite.
        """
        if values.size == 0:
            return True
        if self._pending + values.size > _MOST:
            self._fold()
        words = np.ascontiguousarray(values).reshape(-1).view(np.uint32)
        signed, largest, smallest = self._kernel(words, self._tables, SHIFT)
        self._pending += values.size
        # Bits of positive floats order as the floats do; of negative ones the other way.
        self._maximum = max(self._maximum, _float(signed if signed >= 0 else smallest))
        self._minimum = min(self._minimum, _float(largest if largest >> 31 else smallest))
        self._top = max(self._top, signed, largest & _MAGNITUDE)
        self._signs |= bool(largest >> 31)
        return signed < _INF_BITS and largest & _MAGNITUDE < _INF_BITS

    def histogram(self) -> Histogram:
        """Return what was counted so far."""
        return self._folded + self._in_tables()

    def _in_tables(self) -> Histogram:
        # Only where values can have fallen: to read a page is to make the system map it.
        counts = np.zeros(BUCKETS, np.int64)
        for start in (0, _SIGN) if self._signs else (0,):
            span = slice(start, start + (self._top >> SHIFT) + 1)
            counts[span] = self._tables[:, span].sum(axis=0, dtype=np.int64)
        (buckets,) = np.nonzero(counts)
        return Histogram(buckets.astype(np.int32), counts[buckets], self._minimum, self._maximum)

    def _fold(self) -> None:
        """Empty the tables before a count could overflow."""
        self._folded = self.histogram()
        self._tables[:] = 0
        self._pending = 0


def _sparse_table(rows: int) -> npt.NDArray[np.uint32]:
    """Return zeros, (rows, BUCKETS) uint32, of which only pages written to take memory."""
    # Private, because reading a page of shared memory allocates it.
    memory = mmap.mmap(-1, rows * BUCKETS * 4, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # One value would else bring in 2 MiB where the system prefers huge pages.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype=np.uint32).reshape(rows, BUCKETS)


def _float(bits: int) -> float:
    """Return the float32 of these bits; −0 becomes 0."""
    value: Any = np.uint32(bits & 0xFFFFFFFF).view(np.float32)
    return float(value) + 0.0
