"""The compiled loops over a pair of tensors: all that is asked of them, while they are near.

A tensor of a large layer is larger than a core's cache, and most of the time goes into bringing
it there. So both are read once, a few thousand values at a time, and differences, bounds, codes
and conversions are all taken of these before the next are read. A loop does one thing: those are
what compiles to wide instructions.

Arrays come as (images, channels, elements), contiguous, float32 or float64. Sums are taken in
float64: the squares of all float32 fit, and no order of summing shows in what is printed. Codes
are computed in float32, as a network does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import ANY_ORDER, AS_WRITTEN, compiled

__all__ = ["CODES", "PAIR_SUMS", "bound_values", "fold_pair"]

Array = npt.NDArray[Any]

PAIR_SUMS = 5  # Σr, Σr², Σc², Σd, Σd², with d = c − r
CODES = 1024  # of a tally of magnitudes, in codes; the last holds all beyond
_BLOCK = 2048  # values in work at a time; they stay in the first cache
_ROUNDER = np.float32(1.5 * 2**23)
_NEVER = np.float32(1e-3)  # codes: a value this close to zero has no rounding at any scale
_SIGN = np.int32(31)
_MAGNITUDE = np.int32(0x7FFFFFFF)
_INFINITE = np.int32(0x7F800000)
_FLOAT_MAX = np.finfo(np.float32).max
_ONE = np.float32(1)
_NOUGHT = np.float32(0)


@compiled(ANY_ORDER)
def fold_pair(
    r: Any, c: Any, units: Any, offset: Any, floor: Any, factors: Any, numbers: Any,
    sums: Any, noises: Any, worst: Any, of_r: Any, of_c: Any, rounding: Any, magnitudes: Any,
    inside: Any, held: Any, before: Any, stride: Any,
) -> Any:  # fmt: skip
    """Sum up a pair; :func:`~deploy.comparison.sums.folding.fold` says what is what.

    Args:
        r: The reference, (n, c, l).
        c: The candidate, the same type.
        units: Factors of the candidate, (c,), its type; it stands for (y + offset)·units.
        offset: Its type.
        floor: What smaller values are taken for in all differences, its type.
        factors: By which the reference is held, (c,) float32.
        numbers: float32: the quantizer's scale, 0 for none, and that of its DQ; the shift by which
            the reference is held; the smallest and largest code; where magnitudes begin, in codes.
        sums: (c, PAIR_SUMS) float64, added to, as all of these are. A NaN or Inf makes
            those of its channel no finite numbers.
        noises: Σd² of each image, (n,) float64.
        worst: The largest Σd² of one image in each channel, and its number, (c, 2) float64.
        of_r: Bounds of the reference, as :func:`bound_values` keeps them; (0, 4) for not wanted.
        of_c: The same of what the candidate stands for.
        rounding: Σδ and Σδ², δ being what the quantizer adds to the reference, in its units,
            (c, 2) float64; (0, 2) for not wanted.
        magnitudes: Counts of the magnitudes of the reference in codes, (CODES,) int64.
        inside: The reference as it is held is written here, (n, c, l) float32; (0, 0, 0) for not
            wanted.
        held: Whether the candidate comes as it is held.
        before: The number of the first image.
        stride: Magnitudes are counted of one value of so many.

    Returns:
        The largest difference, and its flat index or −1; a sum that is no number when a value is
        not finite; how many codes are equal, and the largest difference in codes; and how many
        values of the reference lie beyond all codes.
    """
    images, channels, length = r.shape
    scale, back, shift, low, high, base = numbers
    one, nought = c.dtype.type(1), c.dtype.type(0)
    bounded = floor >= -_FLOAT_MAX
    size = min(length, _BLOCK)
    near, work = np.empty(size, np.float32), np.empty(size, np.float32)
    codes, own = np.empty(size, np.int32), np.empty(size, np.int32)
    largest = total = 0.0
    at = -1
    equal = beyond = 0
    furthest = np.int32(0)
    for n in range(images):
        for k in range(channels):
            f, unit = factors[k], units[k]
            noise = 0.0
            for begin in range(0, length, _BLOCK):
                x, y = r[n, k, begin : begin + _BLOCK], c[n, k, begin : begin + _BLOCK]
                if len(of_r):
                    _bound_row(x, of_r[k], one, nought)
                if len(of_c):
                    _bound_row(y, of_c[k], unit, offset)
                if bounded:  # apart from the rest: to compare each value takes a third longer
                    s0, s1, s2, s3, s4 = _bounded_sums(x, y, unit, offset, floor)
                else:
                    s0, s1, s2, s3, s4 = _row_sums(x, y, unit, offset)
                sums[k, 0] += s0
                sums[k, 1] += s1
                sums[k, 2] += s2
                sums[k, 3] += s3
                sums[k, 4] += s4
                noise += s4
                total += s1 + s2 + s4
                # Only a row whose whole noise is above the square of the largest can hold a
                # larger; and it has no NaN, or its noise were one.
                if s4 > largest * largest:
                    most = _largest_difference(x, y, unit, offset, floor)
                    if most >= np.float32(largest):
                        for i in range(x.size):
                            d = abs(_whole(y[i], unit, offset, floor) - _least(x[i], floor))
                            if d > largest:
                                largest = d
                                at = (n * channels + k) * length + begin + i
                if len(inside):
                    near = inside[n, k, begin : begin + _BLOCK]
                differ = bounded or s4 != 0.0  # NaN differs from all
                if len(inside) or (scale and (differ or len(rounding))):
                    _hold(x, f, shift, near)
                if not scale:
                    continue
                if differ or len(rounding):
                    _round(near, x.size, scale, low, high, codes)
                if differ:
                    _hold(y, _ONE if held else f, _NOUGHT if held else shift, work)
                    _round(work, x.size, scale, low, high, own)
                    alike, most_codes = _alike(codes, own, x.size)
                    equal += alike
                    furthest = max(furthest, most_codes)
                else:  # as behind a ReLU, which makes the same of the same
                    equal += x.size
                if len(rounding):
                    beyond += _beyond(near, x.size, scale, low, high)
                    m1, m2 = _moments(near, codes, x.size, back)
                    factor = np.float64(f)
                    rounding[k, 0] += m1 * factor
                    rounding[k, 1] += m2 * factor * factor
                    first = (before + n + k - begin) % stride
                    _count_magnitudes(near, first, x.size, stride, scale, base, magnitudes)
            noises[n] += noise
            if noise > worst[k, 0]:
                worst[k, 0] = noise
                worst[k, 1] = before + n
    return largest, at, total, equal, furthest, beyond


@compiled(AS_WRITTEN)
def _least(value: Any, floor: Any) -> Any:
    return np.float64(floor if value < floor else value)


@compiled(AS_WRITTEN)
def _stands_for(value: Any, f: Any, shift: Any) -> Any:
    return (value + shift) * f


@compiled(AS_WRITTEN)
def _whole(value: Any, f: Any, shift: Any, floor: Any) -> Any:
    return _least(_stands_for(value, f, shift), floor)


@compiled(ANY_ORDER)
def _row_sums(x: Any, y: Any, f: Any, shift: Any) -> Any:
    s0 = s1 = s2 = s3 = s4 = 0.0
    for i in range(x.size):
        a = np.float64(x[i])
        b = np.float64(_stands_for(y[i], f, shift))
        d = b - a
        s0 += a
        s1 += a * a
        s2 += b * b
        s3 += d
        s4 += d * d
    return s0, s1, s2, s3, s4


@compiled(ANY_ORDER)
def _bounded_sums(x: Any, y: Any, f: Any, shift: Any, floor: Any) -> Any:
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


@compiled(AS_WRITTEN)
def _hold(x: Any, f: Any, shift: Any, out: Any) -> None:
    if f == _ONE:
        for i in range(x.size):
            out[i] = np.float32(x[i]) - shift
    else:  # quotients, as wherever a tensor is brought into these units
        for i in range(x.size):
            out[i] = np.float32(x[i]) / f - shift


@compiled(AS_WRITTEN)
def _round(x: Any, size: Any, scale: Any, low: Any, high: Any, codes: Any) -> None:
    # Kept within ±2²², a number is rounded half to even by one addition; NaN gets the lowest code.
    for i in range(size):
        v = x[i] / scale
        v = v if v > low else low
        v = v if v < high else high
        codes[i] = np.int32((v + _ROUNDER) - _ROUNDER)


@compiled(AS_WRITTEN)
def _alike(a: Any, b: Any, size: Any) -> Any:
    equal = furthest = np.int32(0)
    for i in range(size):
        d = a[i] - b[i]
        equal += np.int32(d == 0)
        furthest = max(furthest, abs(d))
    return equal, furthest


@compiled(ANY_ORDER)
def _moments(x: Any, codes: Any, size: Any, back: Any) -> Any:
    s1 = s2 = 0.0
    for i in range(size):
        d = np.float64(np.float32(codes[i]) * back - x[i])
        s1 += d
        s2 += d * d
    return s1, s2


@compiled(AS_WRITTEN)
def _beyond(x: Any, size: Any, scale: Any, low: Any, high: Any) -> Any:
    count = np.int32(0)
    half = np.float32(0.5)
    least, most = (low - half) * scale, (high + half) * scale
    for i in range(size):
        count += np.int32(x[i] > most) + np.int32(x[i] < least)
    return count


@compiled(AS_WRITTEN)
def _count_magnitudes(
    x: Any, first: Any, size: Any, stride: Any, scale: Any, base: Any, counts: Any
) -> None:
    last = np.float32(counts.size - 1)
    for i in range(first, size, stride):
        u = abs(x[i] / scale + base)
        if u > _NEVER:
            counts[int(u if u < last else last)] += 1


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
