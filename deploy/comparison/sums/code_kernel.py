"""The compiled loops that quantize: codes of two tensors alike, and what rounding adds to one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import ANY_ORDER, AS_WRITTEN, compiled

__all__ = ["CODES", "Rule", "round_values", "same_codes"]

Array = npt.NDArray[Any]

CODES = 1024  # of a tally of magnitudes, in codes; the last holds all beyond
_STRIDE = 5  # a tally takes one value of so many, along rows of any usual length,
_LARGE = 1 << 14  # of tensors with more values an image than these
_BLOCK = 4096  # values in work at a time; they stay in the first cache
_ROUNDER = np.float32(1.5 * 2**23)
_NEVER = 1e-3  # codes: a value this close to zero has no rounding at any scale


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


def same_codes(
    reference: Array, candidate: Array, rule: Rule, own: Rule | None = None
) -> tuple[int, int]:
    """Count the values that get the same code on both sides.

    Args:
        reference: (n, c, l).
        candidate: The same.
        rule: The quantizer.
        own: The same for the candidate, where that is held otherwise; None for ``rule``.

    Returns:
        How many are equal, and the largest difference in codes.
    """
    own = own or rule
    if rule.factors is None and own.factors is None:  # channels matter to nothing: one long row
        reference, candidate = reference.reshape(1, 1, -1), candidate.reshape(1, 1, -1)
    factors = _factors(rule, reference), _factors(own, candidate)
    numbers = rule.numbers(own.shift)
    equal, largest = _same_codes(reference, candidate, numbers, *factors)
    return int(equal), int(largest)


def _factors(rule: Rule, values: Array) -> Array:
    """Return f of each channel, float32."""
    if rule.factors is None:
        return np.ones(values.shape[1], np.float32)
    return rule.factors.astype(np.float32)


def _inverse(rule: Rule, values: Array) -> Array:
    """Return 1/f of each channel, float32."""
    return np.float32(1) / _factors(rule, values)


@compiled(AS_WRITTEN)
def _code(value: Any, scale: Any, shift: Any, low: Any, high: Any) -> Any:
    """Return a code as a float; kept within ±2²² it is rounded half to even by one addition."""
    v = min(max((value - shift) / scale, low), high)
    return (v + _ROUNDER) - _ROUNDER


@compiled(AS_WRITTEN)
def _same_codes(r: Any, c: Any, numbers: Any, factors: Any, own_factors: Any) -> Any:
    images, channels, length = r.shape
    scale, _, shift, low, high, own_shift = numbers
    equal: Any = 0
    largest = np.int32(0)
    for n in range(images):
        for k in range(channels):
            # By quotients, as a tensor is brought into the units in which it is held.
            f, own_f = factors[k], own_factors[k]
            for start in range(0, length, _BLOCK):
                x, y = r[n, k, start : start + _BLOCK], c[n, k, start : start + _BLOCK]
                alike = np.int32(0)
                for i in range(x.size):
                    a = _code(np.float32(x[i]) / f, scale, shift, low, high)
                    b = _code(np.float32(y[i]) / own_f, scale, own_shift, low, high)
                    d = np.int32(abs(a - b))
                    alike += np.int32(d == 0)
                    largest = max(largest, d)
                equal += alike
    return equal, largest


def round_values(
    values: Array, rule: Rule, start: float, into: tuple[Array, Array], *, before: int = 0
) -> int:
    """Quantize and dequantize, and sum what that does to the values.

    Args:
        values: (n, c, l), the reference's.
        rule: The quantizer.
        start: From which code on magnitudes count.
        into: (c, 2) float64: Σδ and Σδ² are added, δ being what the rounding adds, in the units
            of the values; and (CODES,) int64: magnitudes in codes, of a large tensor those of
            every fifth value; zeros are left out.
        before: How many images came before: with it, what is counted does not depend on how
            many come at a time.

    Returns:
        How many values lie beyond the largest or smallest code.
    """
    stride = _STRIDE if values[0].size > _LARGE else 1
    sampling = (np.int64(stride), np.int64(before))
    return int(_round_values(values, rule.numbers(start), _inverse(rule, values), *into, sampling))


@compiled(AS_WRITTEN)
def _deltas(x: Any, numbers: Any, by: Any, out: Any) -> Any:
    q, dq, shift, low, high, _ = numbers
    beyond = np.int32(0)
    least, most = (low - np.float32(0.5)) * q + shift, (high + np.float32(0.5)) * q + shift
    for i in range(x.size):
        value = np.float32(x[i]) * by
        out[i] = _code(value, q, shift, low, high) * dq - (value - shift)
        beyond += np.int32((value > most) | (value < least))
    return beyond


@compiled(ANY_ORDER)
def _moments(x: Any, size: Any) -> Any:
    s1 = s2 = 0.0
    for i in range(size):
        d = np.float64(x[i])
        s1 += d
        s2 += d * d
    return s1, s2


@compiled(AS_WRITTEN)
def _count_magnitudes(x: Any, numbers: Any, by: Any, tally: Any, stride: Any) -> Any:
    q, _, shift, _, _, base = numbers
    last = np.float32(tally.size - 1)
    for i in range(0, x.size, stride):
        u = abs((np.float32(x[i]) * by - shift) / q + base)
        if u > np.float32(_NEVER):
            tally[int(u if u < last else last)] += 1


@compiled(AS_WRITTEN)
def _round_values(r: Any, numbers: Any, inverse: Any, sums: Any, tally: Any, sampling: Any) -> Any:
    images, channels, length = r.shape
    stride, before = sampling
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
            _count_magnitudes(r[n, k, (before + n + k) % stride :], numbers, by, tally, stride)
    return beyond
