"""The compiled loops over a pair of tensors, and over the values of one: sums and extremes.

Arrays come as (images, channels, elements), contiguous, float32 or float64. Sums are taken in
float64: the squares of all float32 fit, and no order of summing shows in what is printed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import ANY_ORDER, AS_WRITTEN, compiled

__all__ = ["BINS", "PAIR_SUMS", "bin_values", "bound_values", "sum_pair"]

Array = npt.NDArray[Any]

PAIR_SUMS = 5  # Σr, Σr², Σc², Σd, Σd², with d = c − r
BINS = 64  # of a histogram
_SIGN = np.int32(31)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITE = np.int32(0x7F800000)
_FLOAT_MAX = np.finfo(np.float32).max
_NO_BOUNDS = np.zeros((0, 4))


def sum_pair(
    reference: Array,
    candidate: Array,
    sums: Array,
    noises: tuple[Array, Array],
    bounds: tuple[Array, Array] | None = None,
    *,
    before: int = 0,
    units: tuple[Array, float] | None = None,
    least: float = -math.inf,
) -> tuple[float, int, bool]:
    """Add the sums of a pair, and find its largest difference.

    Args:
        reference: (n, c, l).
        candidate: The same.
        sums: (c, PAIR_SUMS) float64, added to in place. A NaN or Inf makes its channel's NaN.
        noises: Σd² of each image, (n,) float64, are added to the first. The second, (c, 2) float64,
            holds the largest Σd² of one image in each channel, and the number of that image.
        before: How many images came before: the number of the first one.
        bounds: Of the reference and the candidate, (c, 4) float64 each: smallest and largest
            value as :func:`bound_values` keeps them, and how many are NaN and infinite. They are
            taken on the way, while the values are near, and whatever ``least`` says.
        units: f of each channel, (c,), and c, of a candidate that stands for (y + c)·f; None for
            one that is as it is.
        least: What smaller values are taken for, on both sides; NaN stays.

    Returns:
        Largest difference and its flat index, 0 and −1 when there is none; and whether all
        values are finite.
    """
    wanted = bounds or (_NO_BOUNDS, _NO_BOUNDS)
    kind = candidate.dtype
    factors, shift = units or (np.ones(candidate.shape[1], kind), 0.0)
    # In the candidate's own type, as the network itself computes.
    held = (factors.astype(kind, copy=False), kind.type(np.float32(shift)), kind.type(least))
    largest, at, total = _sum_pair(reference, candidate, sums, *noises, *wanted, before, held)
    return largest, at, math.isfinite(total)


@compiled(ANY_ORDER)
def _sum_pair(
    r: Any, c: Any, sums: Any, noises: Any, worst: Any, of_r: Any, of_c: Any, before: Any, held: Any
) -> Any:
    images, channels, length = r.shape
    factors, shift, floor = held
    one, nought = c.dtype.type(1), c.dtype.type(0)
    largest = total = 0.0
    at = -1
    for n in range(images):
        for k in range(channels):
            x, y = r[n, k], c[n, k]
            f = factors[k]
            if len(of_r):
                _bound_row(x, of_r[k], one, nought)
            if len(of_c):
                _bound_row(y, of_c[k], f, shift)
            # Those that need no more than to be read are most.
            if f == one and shift == nought and floor < -_FLOAT_MAX:
                s0, s1, s2, s3, s4 = _row_sums(x, y)
            else:
                s0, s1, s2, s3, s4 = _row_sums_of_units(x, y, f, shift, floor)
            sums[k, 0] += s0
            sums[k, 1] += s1
            sums[k, 2] += s2
            sums[k, 3] += s3
            sums[k, 4] += s4
            noises[n] += s4
            total += s1 + s2 + s4
            if s4 > worst[k, 0]:
                worst[k, 0] = s4
                worst[k, 1] = before + n
            # Only a row whose whole noise is above the square of the largest can hold a larger;
            # and it has no NaN, or its noise were one.
            if s4 > largest * largest:
                most = _largest_difference(x, y, f, shift, floor)
                if most >= np.float32(largest):
                    for i in range(length):
                        d = abs(_whole(y[i], f, shift, floor) - _least(x[i], floor))
                        if d > largest:
                            largest = d
                            at = (n * channels + k) * length + i
    return largest, at, total


@compiled(AS_WRITTEN)
def _least(value: Any, floor: Any) -> Any:
    return np.float64(floor if value < floor else value)


@compiled(AS_WRITTEN)
def _whole(value: Any, f: Any, shift: Any, floor: Any) -> Any:
    return _least((value + shift) * f, floor)


@compiled(ANY_ORDER)
def _row_sums(x: Any, y: Any) -> Any:
    s0 = s1 = s2 = s3 = s4 = 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        b = np.float64(y[i])
        d = b - a
        s0 += a
        s1 += a * a
        s2 += b * b
        s3 += d
        s4 += d * d
    return s0, s1, s2, s3, s4


@compiled(ANY_ORDER)
def _row_sums_of_units(x: Any, y: Any, f: Any, shift: Any, floor: Any) -> Any:
    s0 = s1 = s2 = s3 = s4 = 0.0
    for i in range(x.size):
        a = _least(x[i], floor)
        b = _whole(y[i], f, shift, floor)
        d = b - a
        s0 += a
        s1 += a * a
        s2 += b * b
        s3 += d
        s4 += d * d
    return s0, s1, s2, s3, s4


@compiled(AS_WRITTEN)
def _largest_difference(x: Any, y: Any, f: Any, shift: Any, floor: Any) -> Any:
    # Floats without a sign are in the order of their bits, and integers are compared faster.
    most = np.int32(0)
    for i in range(x.size):
        d = abs(_whole(y[i], f, shift, floor) - _least(x[i], floor))
        most = max(most, np.float32(d).view(np.int32))
    return np.int32(most).view(np.float32)


def bound_values(values: Array, bounds: Array) -> None:
    """Widen the bounds of each channel to hold some more values.

    Args:
        values: (n, c, l).
        bounds: (c, 4) float64, changed in place: the smallest and the largest value, NaN where
            there was none yet, a NaN being none; how many are NaN, and how many infinite.
    """
    _bound_values(values, bounds)


@compiled(AS_WRITTEN)
def _bound_values(values: Any, bounds: Any) -> Any:
    images, channels, _ = values.shape
    one, nought = values.dtype.type(1), values.dtype.type(0)
    for n in range(images):
        for k in range(channels):
            _bound_row(values[n, k], bounds[k], one, nought)


@compiled(AS_WRITTEN)
def _bound_row(x: Any, bounds: Any, f: Any, shift: Any) -> Any:
    finite, low, high = _bounds(x)
    # What stands for a larger value is larger.
    least, most = np.float64((low + shift) * f), np.float64((high + shift) * f)
    if not (finite and np.isfinite(least) and np.isfinite(most)):
        least, most = np.float64(np.nan), np.float64(np.nan)
        for i in range(x.size):
            v = np.float64((x[i] + shift) * f)
            bounds[2] += v != v
            bounds[3] += np.isinf(v)
            least = least if least <= v or v != v else v
            most = most if most >= v or v != v else v
    if least == least and not bounds[0] <= least:
        bounds[0] = least
    if most == most and not bounds[1] >= most:
        bounds[1] = most


@compiled(AS_WRITTEN)
def _bounds(x: Any) -> Any:
    # Integers are compared faster. All bits but the sign turned round where that is set, those
    # of floats are in the order of the floats; infinities and NaN lie beyond all numbers.
    least, most = _INFINITE, np.int32(~_INFINITE)
    for i in range(x.size):
        bits = np.float32(x[i]).view(np.int32)
        ordered = np.int32(bits ^ ((bits >> _SIGN) & _MAGNITUDE))
        least, most = min(least, ordered), max(most, ordered)
    finite = x.itemsize <= 4 and x.size > 0 and least > ~_INFINITE and most < _INFINITE
    low = np.int32(least ^ ((least >> _SIGN) & _MAGNITUDE)).view(np.float32)
    high = np.int32(most ^ ((most >> _SIGN) & _MAGNITUDE)).view(np.float32)
    return finite, x.dtype.type(low), x.dtype.type(high)


def bin_values(values: Array, low: float, high: float, counts: Array) -> None:
    """Count values in equal bins; what lies beyond goes into the outer ones, NaN nowhere.

    Args:
        values: Any shape.
        low: Lower edge of the first bin.
        high: Upper edge of the last.
        counts: (BINS,) int64, added to in place.
    """
    _bin_values(values.reshape(-1), low, counts.size / (high - low), counts)


@compiled(AS_WRITTEN)
def _bin_values(x: Any, low: Any, bins_a_unit: Any, counts: Any) -> Any:
    last = np.float64(counts.size - 1)
    for i in range(x.size):
        at = (np.float64(x[i]) - low) * bins_a_unit
        if at == at:
            counts[int(min(max(at, 0.0), last))] += 1
