"""How much a median fell between two measurements of the same images, by the bootstrap.

The images are drawn again and again, with replacement, each with both of its values: the fall
of the median over these draws is spread as it would be over other sets of images. The draws
follow from a fixed seed, so that the same values give the same verdict on every machine.

Source: B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13
(percentile interval).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Fall", "fall_of_median", "median_interval"]

Values = npt.NDArray[np.floating]

_DRAWS = 2000
_SEED = 0
_CAP_DB = 150.0  # equal logits have infinitely many dB; float32 tells no more than this
_AT_ONCE = 1 << 22  # images drawn at a time: 32 MB of indices


@dataclass(frozen=True, slots=True, eq=False)
class Fall:
    """How far a median fell, in the values' unit.

    Attributes:
        value: The fall seen; negative when the median rose.
        draws: The falls of all draws, sorted.
        images: How many pairs of values there were.
    """

    value: float
    draws: Values
    images: int

    def at_least(self, alpha: float) -> float:
        """Return the bound that the true fall is below with probability ``alpha``."""
        return float(self.draws[math.floor(alpha * len(self.draws))])

    def at_most(self, alpha: float) -> float:
        """Return the bound that the true fall is above with probability ``alpha``."""
        return float(self.draws[-1 - math.floor(alpha * len(self.draws))])

    def images_needed(self, tolerance: float, alphas: tuple[float, float]) -> int | None:
        """Return how many images would tell whether the fall is beyond ``tolerance``.

        A bound comes nearer with the root of the number of images.

        Args:
            tolerance: In the values' unit.
            alphas: Of the two sides, "beyond it" and "within it".
        """
        gap = abs(self.value - tolerance)
        beyond = self.value > tolerance
        bound = self.at_least(alphas[0]) if beyond else self.at_most(alphas[1])
        factor = (abs(bound - self.value) / gap) ** 2 if gap > 0 else math.inf
        return math.ceil(self.images * factor) if factor < 1e5 else None


def fall_of_median(before: Values, now: Values) -> Fall:
    """Measure the fall of the median from ``before`` to ``now``, pairs of (n,) values in dB."""
    pairs = np.stack([np.clip(values, -_CAP_DB, _CAP_DB) for values in (before, now)])
    pairs = pairs.astype(np.float64)
    drawn = _medians(pairs)
    fall = np.median(pairs[0]) - np.median(pairs[1])
    return Fall(float(fall), np.sort(drawn[0] - drawn[1]), pairs.shape[1])


def median_interval(values: Values, alpha: float) -> tuple[float, float]:
    """Return where the median of other images lies, but for ``alpha`` on each side."""
    drawn = np.sort(_medians(np.clip(values, -_CAP_DB, _CAP_DB).astype(np.float64)[None])[0])
    out = math.floor(alpha * len(drawn))
    return float(drawn[out]), float(drawn[-1 - out])


def _medians(rows: Values) -> Values:
    """Return the medians of each row over the same draws: (rows, draws)."""
    images = rows.shape[1]
    source = np.random.PCG64(_SEED)
    medians = np.empty((len(rows), _DRAWS))
    many = max(1, _AT_ONCE // images)
    for first in range(0, _DRAWS, many):
        count = min(many, _DRAWS - first)
        # numpy keeps these bits from version to version, but not what Generator makes of them.
        bits = source.random_raw(count * images) >> np.uint64(32)
        chosen = ((bits * np.uint64(images)) >> np.uint64(32)).astype(np.int64)
        for row, values in enumerate(rows):
            drawn = values[chosen.reshape(count, images)]
            medians[row, first : first + count] = np.median(drawn, axis=1)
    return medians
