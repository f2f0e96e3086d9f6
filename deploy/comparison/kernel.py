"""The compiled loops of a comparison: each reads its arrays once, and holds no lock.

Arrays come as (images, channels, elements), contiguous, float32 or float64. Sums are taken in
float64: the squares of all float32 fit, and no order of summing shows in what is printed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = [
    "BINS",
    "CODES",
    "PAIR_SUMS",
    "Rule",
    "bin_values",
    "round_values",
    "same_codes",
    "sum_pair",
]

Array = npt.NDArray[Any]

PAIR_SUMS = 5  # Σr, Σr², Σc², Σd, Σd², with d = c − r
BINS = 64  # of a histogram
CODES = 1024  # of a tally of magnitudes, in codes; the last holds all beyond
_STRIDE = 5  # a tally takes one value of so many, along rows of any usual length
_BLOCK = 4096  # values in work at a time; they stay in the first cache
_ROUNDER = np.float32(1.5 * 2**23)
_NEVER = 1e-3  # codes: a value this close to zero has no rounding at any scale

# Sums may be taken in any order, so that they are taken eight at a time; NaN stays NaN.
_ANY_ORDER = {"reassoc", "contract", "nsz"}


def _jit(*, any_order: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile when first called, or take the code from numba's cache on disk."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    if any_order:
        options["fastmath"] = _ANY_ORDER

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # nowhere to keep a cache: a read-only package and no home
            compiled = numba.njit(**options)(function)
        return compiled

    return decorate


def sum_pair(reference: Array, candidate: Array, sums: Array) -> tuple[float, int]:
    """Add the sums of a pair, and find its largest difference.

    Args:
        reference: (n, c, l).
        candidate: The same.
        sums: (c, PAIR_SUMS) float64, added to in place. A NaN or Inf makes its channel's NaN.

    Returns:
        Largest difference and its flat index; 0 and −1 when there is none.
    """
    largest, at = _sum_pair(reference, candidate, sums)
    return float(largest), int(at)


@_jit(any_order=True)
def _sum_pair(r: Any, c: Any, sums: Any) -> Any:
    images, channels, length = r.shape
    largest = 0.0
    at = -1
    for n in range(images):
        for k in range(channels):
            x, y = r[n, k], c[n, k]
            s0 = s1 = s2 = s3 = s4 = 0.0
            for i in range(length):
                a = np.float64(x[i])
                b = np.float64(y[i])
                d = b - a
                s0 += a
                s1 += a * a
                s2 += b * b
                s3 += d
                s4 += d * d
            sums[k, 0] += s0
            sums[k, 1] += s1
            sums[k, 2] += s2
            sums[k, 3] += s3
            sums[k, 4] += s4
            # Only a row whose whole noise is above the square of the largest can hold a larger.
            if s4 > largest * largest:
                for i in range(length):
                    d = abs(np.float64(y[i]) - np.float64(x[i]))
                    if d > largest:
                        largest = d
                        at = (n * channels + k) * length + i
    return largest, at


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A quantizer: code = round((x / f − shift) / scale), kept within the ends.

    Attributes:
        scale: Of Q.
        back: Of DQ.
        shift: Taken off before.
        low: Smallest code.
        high: Largest.
        factors: f of each channel, (c,); None for ones.
    """

    scale: float
    back: float
    shift: float
    low: int
    high: int
    factors: Array | None = None

    def numbers(self, *more: float) -> tuple[np.float32, ...]:
        """Return all but the factors as the loops take them, and some more."""
        own = (self.scale, self.back, self.shift, self.low, self.high)
        return tuple(np.float32(number) for number in (*own, *more))


def same_codes(reference: Array, candidate: Array, rule: Rule) -> tuple[int, int]:
    """Count the values that get the same code on both sides.

    Args:
        reference: (n, c, l).
        candidate: The same.
        rule: The quantizer.

    Returns:
        How many are equal, and the largest difference in codes.
    """
    if rule.factors is None:  # channels matter to nothing: one long row
        reference, candidate = reference.reshape(1, 1, -1), candidate.reshape(1, 1, -1)
    equal, largest = _same_codes(reference, candidate, rule.numbers(), _inverse(rule, reference))
    return int(equal), int(largest)


def _inverse(rule: Rule, values: Array) -> Array:
    """Return 1/f of each channel, float32."""
    if rule.factors is None:
        return np.ones(values.shape[1], np.float32)
    return (1.0 / rule.factors).astype(np.float32)


@_jit(any_order=False)
def _code(value: Any, scale: Any, shift: Any, low: Any, high: Any) -> Any:
    """Return a code as a float; kept within ±2²² it is rounded half to even by one addition."""
    v = min(max((value - shift) / scale, low), high)
    return (v + _ROUNDER) - _ROUNDER


@_jit(any_order=False)
def _same_codes(r: Any, c: Any, numbers: Any, inverse: Any) -> Any:
    images, channels, length = r.shape
    scale, _, shift, low, high = numbers
    equal: Any = 0
    largest = np.int32(0)
    for n in range(images):
        for k in range(channels):
            by = inverse[k]
            for start in range(0, length, _BLOCK):
                x, y = r[n, k, start : start + _BLOCK], c[n, k, start : start + _BLOCK]
                alike = np.int32(0)
                for i in range(x.size):
                    a = _code(np.float32(x[i]) * by, scale, shift, low, high)
                    b = _code(np.float32(y[i]) * by, scale, shift, low, high)
                    d = np.int32(abs(a - b))
                    alike += np.int32(d == 0)
                    largest = max(largest, d)
                equal += alike
    return equal, largest


def round_values(values: Array, rule: Rule, start: float, into: tuple[Array, Array]) -> int:
    """Quantize and dequantize, and sum what that does to the values.

    Args:
        values: (n, c, l), the reference's.
        rule: The quantizer.
        start: From which code on magnitudes count.
        into: (c, 2) float64: Σδ and Σδ² are added, δ being what the rounding adds, in the units
            of the values; and (CODES,) int64: magnitudes of every fifth value, in codes; zeros
            are left out.

    Returns:
        How many values lie beyond the largest or smallest code.
    """
    return int(_round_values(values, rule.numbers(start), _inverse(rule, values), *into))


@_jit(any_order=False)
def _deltas(x: Any, numbers: Any, by: Any, out: Any) -> Any:
    q, dq, shift, low, high, _ = numbers
    beyond = np.int32(0)
    least, most = (low - np.float32(0.5)) * q + shift, (high + np.float32(0.5)) * q + shift
    for i in range(x.size):
        value = np.float32(x[i]) * by
        out[i] = _code(value, q, shift, low, high) * dq - (value - shift)
        beyond += np.int32((value > most) | (value < least))
    return beyond


@_jit(any_order=True)
def _moments(x: Any, size: Any) -> Any:
    s1 = s2 = 0.0
    for i in range(size):
        d = np.float64(x[i])
        s1 += d
        s2 += d * d
    return s1, s2


@_jit(any_order=False)
def _count_magnitudes(x: Any, numbers: Any, by: Any, tally: Any) -> Any:
    q, _, shift, _, _, base = numbers
    last = np.float32(tally.size - 1)
    for i in range(0, x.size, _STRIDE):
        u = abs((np.float32(x[i]) * by - shift) / q + base)
        if u > np.float32(_NEVER):
            tally[int(u if u < last else last)] += 1


@_jit(any_order=False)
def _round_values(r: Any, numbers: Any, inverse: Any, sums: Any, tally: Any) -> Any:
    images, channels, length = r.shape
    beyond = 0
    out = np.empty(min(length, _BLOCK), np.float32)
    for n in range(images):
        for k in range(channels):
            by = inverse[k]
            factor = 1.0 / np.float64(by)
            for start in range(0, length, _BLOCK):
                x = r[n, k, start : start + _BLOCK]
                beyond += _deltas(x, numbers, by, out)
                s1, s2 = _moments(out, x.size)
                sums[k, 0] += s1 * factor
                sums[k, 1] += s2 * factor * factor
            _count_magnitudes(r[n, k, (n + k) % _STRIDE :], numbers, by, tally)
    return beyond


def bin_values(values: Array, low: float, high: float, counts: Array) -> None:
    """Count values in equal bins; what lies beyond goes into the outer ones, NaN nowhere.

    Args:
        values: Any shape.
        low: Lower edge of the first bin.
        high: Upper edge of the last.
        counts: (BINS,) int64, added to in place.
    """
    _bin_values(values.reshape(-1), low, counts.size / (high - low), counts)


@_jit(any_order=False)
def _bin_values(x: Any, low: Any, bins_a_unit: Any, counts: Any) -> Any:
    last = np.float64(counts.size - 1)
    for i in range(x.size):
        at = (np.float64(x[i]) - low) * bins_a_unit
        if at == at:
            counts[int(min(max(at, 0.0), last))] += 1
