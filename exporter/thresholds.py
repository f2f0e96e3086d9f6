"""Choose amax, the magnitude that becomes code 127, from a histogram alone.

Each method is a function of one histogram; the network does not run again.

max         the largest magnitude seen: nothing is clipped
percentile  the magnitude that P percent of all values do not exceed
mse         the least Σ (x − x̂)², x̂ = clamp(round(x / s)) · s with s = amax / 127
entropy     the least divergence of the 128 magnitudes of INT8 from the distribution seen
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from core.int8 import QMAX
from exporter.histogram import Histogram, bucket_edges

__all__ = ["METHODS", "Method", "choose_amax", "clipped_share", "expected_sqnr_db"]

_PERCENT = 99.99
_ENTROPY_BINS = 2048
_LEVELS = QMAX + 1

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Method:
    """How amax is chosen: a name, and the percentage of ``percentile``."""

    name: str
    percent: float = _PERCENT

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read ``max``, ``percentile``, ``percentile:99.9``, ``mse`` or ``entropy``.

        Raises:
            InputError: None of these.
        """
        name, colon, number = text.partition(":")
        if name not in METHODS or (colon and name != "percentile"):
            raise InputError(
                f"method {text!r} is none", hint=f"choose {', '.join(METHODS)} or percentile:99.9"
            )
        if not colon:
            return cls(name)
        try:
            percent = float(number)
        except ValueError:
            percent = math.nan
        if not 50.0 <= percent <= 100.0:
            raise InputError(
                f"method {text!r}: {number!r} is no percentage from 50 to 100",
                hint="give percentile:99.99, say",
            )
        return cls(name, percent)

    def __str__(self) -> str:
        """Return what :meth:`parse` reads."""
        return f"{self.name}:{self.percent:g}" if self.name == "percentile" else self.name


@dataclass(frozen=True, slots=True)
class _Magnitudes:
    """Counts over |x|, (K,) each: bucket edges in real units and number of values."""

    low: _Floats
    high: _Floats
    counts: _Floats
    amax: float

    @classmethod
    def of(cls, histogram: Histogram) -> _Magnitudes:
        """Fold the sign away."""
        buckets, counts = histogram.magnitudes()
        low, high = bucket_edges(buckets)
        # The first bucket is zero and what is as good as zero; the last one ends at amax.
        high = np.where(buckets == 0, 0.0, np.minimum(high, max(histogram.amax, 0.0)))
        return cls(low, high, counts.astype(np.float64), histogram.amax)


def choose_amax(histogram: Histogram, method: Method) -> tuple[float, Method]:
    """Return amax of one tensor, or of several that share a scale.

    Args:
        histogram: All values seen, none of them NaN or infinite.
        method: How to choose.

    Returns:
        amax in real units, 0 when all values are 0; and the method that gave it, which is
        ``max`` where the one asked for would clip everything.
    """
    magnitudes = _Magnitudes.of(histogram)
    if magnitudes.amax > 0.0:
        amax = METHODS[method.name](magnitudes, method)
        if 0.0 < amax <= magnitudes.amax:
            return amax, method
    return magnitudes.amax, Method("max")


def clipped_share(histogram: Histogram, amax: float) -> float:
    """Return the share of values with a magnitude above ``amax``, in [0, 1]."""
    values = _Magnitudes.of(histogram)
    if not values.counts.size:
        return 0.0
    above = (values.high > amax).astype(np.float64)
    within = above.astype(bool) & (values.low < amax)  # the bucket that amax lies in
    above[within] = (values.high - amax)[within] / (values.high - values.low)[within]
    return float((values.counts @ above) / values.counts.sum())


def expected_sqnr_db(histogram: Histogram, amax: float) -> float:
    """Return the SQNR in dB that INT8 with this amax gives the values seen, clipping included.

    inf when there is no error.
    """
    values = _Magnitudes.of(histogram)
    low, high = values.low, values.high
    signal = float(values.counts @ (low * low + low * high + high * high)) / 3
    noise = float(_noise(values, np.array([amax]))[0])
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _noise(values: _Magnitudes, amax: _Floats) -> _Floats:
    """Return Σ (x − x̂)² for each amax, (A,), values spread evenly over their bucket.

    The error e = x − k·s, with k = round(x / s) and at most 127, has the antiderivative
    ∫ e² dx = k · s³/12 + e³/3, which has no jumps; a bucket's share is its difference.
    (Code −128, one step more, is left out.)
    """
    step = amax[:, None] / QMAX

    def integral(x: _Floats) -> _Floats:
        code = np.minimum(np.rint(x / step), QMAX)
        result: _Floats = code * step**3 / 12 + (x - code * step) ** 3 / 3
        return result

    width = values.high - values.low
    point = width <= 0  # zeros, and an amax that is a bucket's first value
    error = values.low - np.minimum(np.rint(values.low / step), QMAX) * step
    mean = (integral(values.high) - integral(values.low)) / np.where(point, 1.0, width)
    noise: _Floats = np.where(point, error**2, mean) @ values.counts
    return noise


def _max(values: _Magnitudes, method: Method) -> float:
    del method
    return values.amax


def _percentile(values: _Magnitudes, method: Method) -> float:
    """Return the magnitude at which the cumulative count reaches the percentage."""
    reached = np.cumsum(values.counts)
    wanted = reached[-1] * (method.percent / 100.0)
    at = int(np.searchsorted(reached, wanted))
    if at >= reached.size:
        return values.amax
    missing = (wanted - (reached[at] - values.counts[at])) / values.counts[at]
    return float(values.low[at] + missing * (values.high[at] - values.low[at]))


def _mse(values: _Magnitudes, method: Method) -> float:
    """Search from amax down to its 256th part, 16 steps an octave, then finer."""
    del method
    best, octaves, steps = values.amax, 8.0, 128
    for _ in range(2):
        tried = np.minimum(
            best * np.exp2(np.linspace(-octaves, octaves, 2 * steps + 1)), values.amax
        )
        tried = np.unique(tried)[::-1]  # of equally good ones, the one that clips least
        best = float(tried[int(np.argmin(_noise(values, tried)))])
        octaves, steps = 1 / 16, 8
    return best


def _entropy(values: _Magnitudes, method: Method) -> float:
    """Minimize the Kullback–Leibler divergence, as TensorRT's calibrator did.

    P is the distribution over i of 2048 equal bins, all that lies beyond in its last bin;
    Q is P's first i bins at 128 levels, each spread evenly over its bins that are not
    empty. With S_j the sum and n_j the non-empty bins of level j, and T, U the totals,

        KL(i) = Σ_b P_b/T · log(P_b/T) − Σ_j S'_j/T · log(S_j / (n_j U))

    (S' counts what lies beyond too), which prefix sums give for all i at once. The first
    bin, full of zeros behind a ReLU, is counted as the second one is. Sources: Migacz, "8-bit
    inference with TensorRT", GTC 2017; NVIDIA, pytorch-quantization, histogram calibrator.
    """
    del method
    edges = np.linspace(0.0, values.amax, _ENTROPY_BINS + 1)
    bins = np.diff(_cumulative(values, edges))
    bins[0] = bins[1]
    kept = np.arange(_LEVELS, _ENTROPY_BINS + 1)  # i
    sums = np.concatenate([[0.0], np.cumsum(bins)])
    filled = np.concatenate([[0], np.cumsum(bins > 0)])
    logs = np.concatenate([[0.0], np.cumsum(_xlogy(bins, bins))])
    # Level j of i bins begins at the first bin whose number is at least i·j/128.
    cuts = -(-kept[:, None] * np.arange(_LEVELS + 1) // _LEVELS)
    level, count = np.diff(sums[cuts]), np.diff(filled[cuts])
    total, beyond = sums[-1], sums[-1] - sums[kept]
    last = bins[kept - 1]
    reference = logs[kept] - _xlogy(last, last) + _xlogy(last + beyond, last + beyond)
    held = level.copy()
    held[:, -1] += beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        density = level / (count * sums[kept][:, None])
        divergence = (reference - total * np.log(total) - _xlogy(held, density).sum(axis=1)) / total
    # An empty last bin that everything beyond is put into has no counterpart in Q.
    divergence[(last == 0) & (beyond > 0) | np.isnan(divergence)] = np.inf
    best = len(kept) - 1 - int(np.argmin(divergence[::-1]))
    return float(edges[kept[best]])


def _cumulative(values: _Magnitudes, at: _Floats) -> _Floats:
    """Return how many values are ≤ each of ``at``, buckets spread evenly."""
    edges = np.stack([values.low, values.high], axis=1).ravel()
    reached = np.cumsum(values.counts)
    counted = np.stack([reached - values.counts, reached], axis=1).ravel()
    result: _Floats = np.interp(at, edges, counted)
    return result


def _xlogy(x: _Floats, y: _Floats) -> _Floats:
    """Return x · log(y), 0 where x is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))


METHODS: dict[str, Callable[[_Magnitudes, Method], float]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
