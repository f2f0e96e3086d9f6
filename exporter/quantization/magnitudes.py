"""A histogram with its sign folded away, in real units: what amax is chosen from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from exporter.calibration.counts.histogram import Histogram, bucket_edges

__all__ = ["Magnitudes"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Magnitudes:
    """Counts over |x|, (K,) each: bucket edges in real units and number of values.

    ``moments`` are the sums of 1, x and x² below each bucket, (3, K + 1), values spread
    evenly over their bucket.
    """

    low: _Floats
    high: _Floats
    counts: _Floats
    amax: float
    moments: _Floats

    @classmethod
    def of(cls, histogram: Histogram) -> Magnitudes:
        """Fold the sign away."""
        buckets, counted = histogram.magnitudes()
        low, high = bucket_edges(buckets)
        # The first bucket is zero and what is as good as zero; the last one ends at amax.
        high = np.where(buckets == 0, 0.0, np.minimum(high, histogram.amax))
        # An amax that is the very first value of its bucket would leave that without width.
        low = np.where((high <= low) & (high > 0.0), high * (1 - 2.0**-12), low)
        counts = counted.astype(np.float64)
        means = np.stack([np.ones_like(low), (low + high) / 2, (low**2 + low * high + high**2) / 3])
        moments = np.concatenate([np.zeros((3, 1)), np.cumsum(means * counts, axis=1)], axis=1)
        return cls(low, high, counts, histogram.amax, moments)

    def cumulative(self, at: _Floats) -> _Floats:
        """Return how many values are ≤ each of ``at``, buckets spread evenly."""
        edges = np.stack([self.low, self.high], axis=1).ravel()
        reached = self.moments[0]
        counted = np.stack([reached[:-1], reached[1:]], axis=1).ravel()
        result: _Floats = np.interp(at, edges, counted)
        return result
