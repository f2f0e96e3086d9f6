"""How far a tensor is from its reference: SQNR, cosine and largest difference.

All three fold over batches in constant memory: :class:`Difference` keeps five sums, and
any split of the same values gives the same result up to float64 rounding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Difference", "difference", "sqnr_db"]

AnyArray = npt.NDArray[np.generic]


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
        """Cosine similarity, Σr·c / √(Σr²·Σc²), in [−1, 1]; 1 when both are all zero."""
        if self.nonfinite or not self.count:
            return math.nan
        if self.signal == 0.0 or self.energy == 0.0:
            return 1.0 if self.signal == self.energy else 0.0
        cosine = self.dot / (math.sqrt(self.signal) * math.sqrt(self.energy))
        return max(-1.0, min(1.0, cosine))

    @property
    def max_abs(self) -> float:
        """Largest absolute difference, in the tensor's own units; NaN with any NaN or Inf."""
        return math.nan if self.nonfinite or not self.count else self.largest


def difference(reference: AnyArray, candidate: AnyArray) -> Difference:
    """Measure one pair of arrays of the same shape.

    Args:
        reference: Any shape and real type.
        candidate: The same shape.

    Raises:
        ValueError: The shapes differ (a bug in the caller: join by name first).
    """
    if reference.shape != candidate.shape:
        raise ValueError(f"shapes differ: {reference.shape} and {candidate.shape}")
    r = np.asarray(reference, dtype=np.float64).ravel()
    c = np.asarray(candidate, dtype=np.float64).ravel()
    nonfinite = r.size - int(np.count_nonzero(np.isfinite(r) & np.isfinite(c)))
    if nonfinite or not r.size:
        return Difference(count=r.size, nonfinite=nonfinite)
    delta = r - c
    return Difference(
        count=r.size,
        signal=float(r @ r),
        noise=float(delta @ delta),
        energy=float(c @ c),
        dot=float(r @ c),
        largest=float(np.abs(delta).max()),
    )


def sqnr_db(reference: AnyArray, candidate: AnyArray) -> float:
    """Return the SQNR of one pair of arrays in dB (see :attr:`Difference.sqnr_db`)."""
    return difference(reference, candidate).sqnr_db
