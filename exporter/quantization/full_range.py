"""Choose the constants of full-range INT8, from histograms alone.

With zero point 0 a tensor that is never negative uses half of the 256 codes. Kept as
x − c (:mod:`exporter.quantization.shift`), the range [lo, hi] fills them all::

    s = (hi − lo) / 255,   c = lo + 128·s:   lo ↦ −128,  hi ↦ 127

and behind a ReLU, where lo = 0, zero is a code of its own, without error. A class of
tensors that move together takes one c; each group of one scale then takes its own s.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np
import numpy.typing as npt

from core.int8 import QMAX, QMIN
from exporter.calibration.counts.histogram import BUCKETS, Histogram, bucket_edges
from exporter.quantization.plan import QuantizationPlan

__all__ = ["ShiftedRange", "choose_ranges", "grid_clipped", "grid_noise", "grid_sqnr_db"]

_STEPS = QMAX - QMIN  # 255
_AS_GOOD = 1.001
_TOGETHER = 4  # intervals
_SHARES = np.exp2(-np.arange(0, 33) / 16)  # of a range: from all of it down to a quarter

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ShiftedRange:
    """How one tensor is quantized.

    Attributes:
        scale: Real units per step, > 0, a float32.
        shift: The constant c, real units; 0 where moving does not pay.
    """

    scale: float
    shift: float


def choose_ranges(
    plan: QuantizationPlan,
    classes: Iterable[tuple[str, ...]],
    histograms: Mapping[str, Histogram],
    *,
    half: bool = False,
) -> dict[str, ShiftedRange]:
    """Return the range of every quantized tensor that gains by moving.

    Args:
        plan: What is quantized.
        classes: Tensors that move together (:attr:`exporter.quantization.shifts.Shifts.classes`).
        histograms: Quantized tensor → all values seen, none of them NaN or infinite.
        half: Take scales that float16 holds too.

    Returns:
        Tensor → range, for all quantized tensors of the classes that move.
    """
    chosen: dict[str, ShiftedRange] = {}
    for members in classes:
        groups = {
            name: tensors
            for name, tensors in plan.groups.items()
            if any(tensor in members for tensor in tensors)
        }
        # Tensors that share a scale without moving together stay where they are.
        if not groups or any(not set(tensors) <= set(members) for tensors in groups.values()):
            continue
        values = {
            name: _Values.of(
                reduce(add, (histograms[t] for t in tensors), Histogram.empty())
            ).coarser()
            for name, tensors in groups.items()
        }
        shift, scales = _best(values, half=half)
        if shift:
            for name, tensors in groups.items():
                chosen |= dict.fromkeys(tensors, ShiftedRange(scales[name], shift))
    return chosen


@dataclass(frozen=True, slots=True)
class _Values:
    """Counts over signed values, ascending, (K,) each: bucket edges and number of values."""

    low: _Floats
    high: _Floats
    counts: _Floats

    @classmethod
    def of(cls, histogram: Histogram) -> _Values:
        """Unfold the buckets into intervals, the ends cut to the exact minimum and maximum."""
        negative = histogram.buckets >= BUCKETS // 2
        near, far = bucket_edges(histogram.buckets % (BUCKETS // 2))
        zero = histogram.buckets % (BUCKETS // 2) == 0
        low = np.where(zero, 0.0, np.where(negative, -far, near))
        high = np.where(zero, 0.0, np.where(negative, -near, far))
        bounds = (histogram.minimum, histogram.maximum)
        counts = histogram.counts.astype(np.float64)
        order = np.argsort(low)
        return cls(np.clip(low, *bounds)[order], np.clip(high, *bounds)[order], counts[order])

    def coarser(self) -> _Values:
        """Return about a quarter of the intervals, neighbours taken together; zero stays alone.

        Enough to search with: they are 1/64 of their value wide, and spread evenly.
        """
        # Never across a gap; zero, a point, has one on either side.
        first = np.arange(len(self.low)) % _TOGETHER == 0
        first |= np.concatenate([[True], self.low[1:] > self.high[:-1]])
        (starts,) = np.nonzero(first)
        ends = np.append(starts[1:], len(first)) - 1
        return _Values(self.low[starts], self.high[ends], np.add.reduceat(self.counts, starts))

    @property
    def signal(self) -> float:
        """Σ x²."""
        low, high = self.low, self.high
        return float(self.counts @ (low * low + low * high + high * high)) / 3


def grid_noise(histogram: Histogram, scale: float, shift: float) -> float:
    """Return Σ (x − x̂)² of the values seen, x̂ = shift + scale · clamp(round((x − shift)/scale)).

    Args:
        histogram: Values, taken as spread evenly over their bucket.
        scale: Real units per step.
        shift: The constant that code 0 stands for.
    """
    return float(_noise(_Values.of(histogram), np.array([scale]), np.array([shift]))[0])


def grid_sqnr_db(histogram: Histogram, found: ShiftedRange) -> float:
    """Return the SQNR in dB of the values seen on the grid of a range; inf without error."""
    noise = grid_noise(histogram, found.scale, found.shift)
    signal = _Values.of(histogram).signal
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def grid_clipped(histogram: Histogram, found: ShiftedRange) -> float:
    """Return the share of the values seen that lie beyond a range, in [0, 1], by whole buckets."""
    values = _Values.of(histogram)
    low = found.shift + (QMIN - 0.5) * found.scale
    high = found.shift + (QMAX + 0.5) * found.scale
    beyond = (values.high < low) | (values.low > high)
    return float(values.counts[beyond].sum() / max(values.counts.sum(), 1.0))


def _noise(values: _Values, scale: _Floats, shift: _Floats) -> _Floats:
    """Return the noise for each pair of scale and shift, (A,) each.

    The error e = x − shift − k·s has the antiderivative ∫ e² dx = k·s³/12 + e³/3, which has
    no jumps where k changes; a bucket's share is its difference.
    """
    step, zero = scale[:, None], shift[:, None]

    def code(x: _Floats) -> _Floats:
        result: _Floats = np.clip(np.rint((x - zero) / step), QMIN, QMAX)
        return result

    def integral(x: _Floats) -> _Floats:
        k = code(x)
        error = x - zero - k * step
        result: _Floats = k * (step * step * step / 12) + error * error * error / 3  # ** is slow
        return result

    width = values.high - values.low
    point = width <= 0
    error = values.low - zero - code(values.low) * step
    mean = (integral(values.high) - integral(values.low)) / np.where(point, 1.0, width)
    result: _Floats = np.where(point, error**2, mean) @ values.counts
    return result


def _best(values: Mapping[str, _Values], *, half: bool) -> tuple[float, dict[str, float]]:
    """Return the constant of a class, and the scale of each of its groups.

    Every group proposes the constant that suits it best; the one with the least noise over
    all groups, each relative to its signal, wins; 0 is among the proposals.
    """
    if any(group.signal <= 0.0 for group in values.values()):
        return 0.0, {}
    best = (np.inf, 0.0, dict[str, float]())
    for shift in (0.0, *(_own_shift(group, half=half) for group in values.values())):
        scales = {name: _scale_at(group, shift, half=half) for name, group in values.items()}
        total = sum(
            float(_noise(group, np.array([scales[name]]), np.array([shift]))[0]) / group.signal
            for name, group in values.items()
        )
        if total < best[0]:
            best = total, shift, scales
    return best[1], best[2]


def _own_shift(values: _Values, *, half: bool) -> float:
    """Return c of the range [lo, hi] with the least noise."""
    low, high = float(values.low[0]), float(values.high[-1])
    if low >= 0.0:
        ends = np.stack([np.zeros(len(_SHARES)), high * _SHARES])
    else:
        ends = np.stack([g.ravel() for g in np.meshgrid(low * _SHARES[::4], high * _SHARES[::4])])
    scale = _rounded((ends[1] - ends[0]) / _STEPS, half=half)
    # Whole steps, so that zero stays a code: behind a ReLU most values are zero.
    shift = (np.rint(ends[0] / scale) - QMIN) * scale
    return float(shift[int(np.argmin(_noise(values, scale, shift)))])


def _scale_at(values: _Values, shift: float, *, half: bool) -> float:
    """Return the scale with the least noise for a given constant."""
    reach = max((float(values.high[-1]) - shift) / QMAX, (float(values.low[0]) - shift) / QMIN, 0.0)
    scales = _rounded(reach * _SHARES, half=half)
    noise = _noise(values, scales, np.full(len(scales), shift))
    exact = _rounded(np.array([abs(shift) / -QMIN]), half=half)
    if shift > 0.0 and _noise(values, exact, np.array([shift]))[0] <= noise.min() * _AS_GOOD:
        return float(exact[0])  # lo is code −128 itself: zero, behind a ReLU, has no error
    return float(scales[int(np.argmin(noise))])


def _rounded(scale: _Floats, *, half: bool) -> _Floats:
    """Round scales to what the graph will hold, upwards in float16."""
    if not half:
        return scale.astype(np.float32).astype(np.float64)
    with np.errstate(over="ignore"):
        rounded = scale.astype(np.float16)
    up = np.nextafter(rounded, np.float16(np.inf))
    return np.where(rounded.astype(np.float64) < scale, up, rounded).astype(np.float64)
