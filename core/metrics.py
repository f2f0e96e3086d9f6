"""How far a tensor is from its reference: SQNR, cosine and largest difference.

All three fold over batches in constant memory: :class:`Difference` keeps five sums, and
any split of the same values gives the same result up to rounding (1e-6 of a sum).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "difference", "sqnr_db"]

AnyArray = npt.NDArray[np.generic]

_NARROW = {np.dtype(np.float16), np.dtype(np.float32)}
_ROW = 1 << 12  # elements summed in the data's own type
_PART = 1 << 16  # elements in work at a time; fits a core's cache
# A sum of squares from here on lost nothing to float32's smallest numbers: what vanished
# is below _PART · 1e-38.
_SMALLEST = 1e-24


@dataclass(frozen=True, slots=True)
class Difference:
    """Sums over pairs (reference r, candidate c); add two to fold them.

    A NaN or infinity on either side is counted apart and makes every metric NaN: an
    average must not hide it.
    """

    count: int = 0
    nonfinite: int = 0
    signal: float = 0.0  # Σ r²
    noise: float = 0.0  # Σ (r − c)²
    energy: float = 0.0  # Σ c²
    dot: float = 0.0  # Σ r·c
    largest: float = 0.0  # max |r − c|, real units

    def __add__(self, other: Difference) -> Difference:
        """Fold two disjoint parts of the same tensor."""
        return Difference(
            self.count + other.count,
            self.nonfinite + other.nonfinite,
            self.signal + other.signal,
            self.noise + other.noise,
            self.energy + other.energy,
            self.dot + other.dot,
            max(self.largest, other.largest),
        )

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization-noise ratio, 10·log10(Σr² / Σ(r−c)²), in dB.

        Infinite when the two are equal; −inf when a silent reference meets noise; NaN
        with any NaN or infinity.
        """
        if self.nonfinite or not self.count:
            return math.nan
        if self.noise == 0.0:
            return math.inf
        if self.signal == 0.0:
            return -math.inf
        return 10.0 * (math.log10(self.signal) - math.log10(self.noise))

    @property
    def cosine(self) -> float:
        """Cosine similarity, Σr·c / √(Σr²·Σc²), in [−1, 1]; 1 when the two are equal."""
        if self.nonfinite or not self.count:
            return math.nan
        if self.noise == 0.0:
            return 1.0
        if self.signal == 0.0 or self.energy == 0.0:
            return 0.0
        cosine = self.dot / (math.sqrt(self.signal) * math.sqrt(self.energy))
        return max(-1.0, min(1.0, cosine))

    @property
    def max_abs(self) -> float:
        """Largest absolute difference, in the tensor's own units; NaN with any NaN or Inf."""
        return math.nan if self.nonfinite or not self.count else self.largest


def difference(reference: AnyArray, candidate: AnyArray) -> Difference:
    """Measure one pair of arrays of the same shape.

    float16 and float32 are subtracted and multiplied in float32, and summed in float64: a
    sum is right to about 1e-7 of itself, an SQNR to 1e-6 dB, whatever its value, since a
    difference is rounded relative to itself. Other types, and values whose squares leave
    the range of float32, take float64 throughout.

    Args:
        reference: Any shape and real type.
        candidate: The same shape.

    Raises:
        ValueError: The shapes differ (a bug in the caller: join by name first).
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    r, c = reference.ravel(), candidate.ravel()
    quick = {r.dtype, c.dtype} <= _NARROW
    measure = _measure if quick else _measure_exactly
    total = Difference()
    for start in range(0, r.size, _PART):
        total += measure(r[start : start + _PART], c[start : start + _PART])
    return total


def _measure(r: AnyArray, c: AnyArray) -> Difference:
    """Measure flat float16 or float32 parts in float32, where its range allows."""
    r32, c32 = np.asarray(r, dtype=np.float32), np.asarray(c, dtype=np.float32)
    # A NaN, an Inf or an overflow ends up in the sums, and float64 then sorts out which.
    with np.errstate(over="ignore", invalid="ignore"):
        delta = r32 - c32
        largest = max(float(delta.max()), -float(delta.min()))
        signal, energy, dot = _dot(r32, r32), _dot(c32, c32), _dot(r32, c32)
        noise = _dot(delta, delta)
    in_range = all(_SMALLEST <= value < math.inf for value in (signal, energy))
    if not in_range or (largest > 0 and noise < _SMALLEST) or not math.isfinite(noise):
        return _measure_exactly(r, c)
    return Difference(r.size, 0, signal, noise, energy, dot, largest)


def _measure_exactly(r: AnyArray, c: AnyArray) -> Difference:
    """Measure flat parts in float64; NaN and Inf are counted."""
    r64, c64 = np.asarray(r, dtype=np.float64), np.asarray(c, dtype=np.float64)
    nonfinite = r64.size - int(np.count_nonzero(np.isfinite(r64) & np.isfinite(c64)))
    if nonfinite:
        return Difference(count=r64.size, nonfinite=nonfinite)
    delta = r64 - c64
    return Difference(
        count=r64.size,
        signal=_dot(r64, r64),
        noise=_dot(delta, delta),
        energy=_dot(c64, c64),
        dot=_dot(r64, c64),
        largest=float(np.abs(delta).max()),
    )


def _dot(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Return Σ a·b of flat arrays: rows in their own type, the rows' sums in float64.

    Rows are short enough that BLAS takes one thread for each: its threads would fight with
    those of the network that runs beside, for a sum that memory bounds.
    """
    whole = a.size - a.size % _ROW
    rows, others = a[:whole].reshape(-1, 1, _ROW), b[:whole].reshape(-1, _ROW, 1)
    total = np.matmul(rows, others).sum(dtype=np.float64)
    return float(total) + float(a[whole:] @ b[whole:])


def sqnr_db(reference: AnyArray, candidate: AnyArray) -> float:
    """Return the SQNR of one pair of arrays in dB (see :attr:`Difference.sqnr_db`)."""
    return difference(reference, candidate).sqnr_db
