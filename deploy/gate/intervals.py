"""Where a metric would lie on other images of the same kind: what a baseline says of itself.

Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
JASA 22, 1927 (shares).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from deploy.gate.medians import median_interval

__all__ = ["Interval", "interval_of_mean", "interval_of_median", "interval_of_share"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A value, and the two-sided interval around it."""

    value: float
    low: float
    high: float


def interval_of_share(count: int, total: int, confidence: float) -> Interval:
    """Return Wilson's interval of a share, 0 to 1."""
    z, share = _z(confidence), count / total
    middle = share + z * z / (2 * total)
    half = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    return Interval(share, max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale))


def interval_of_mean(values: npt.NDArray[np.floating], confidence: float) -> Interval:
    """Return the normal interval of a mean, in the values' unit."""
    exact = values.astype(np.float64)
    mean = float(exact.mean())
    half = _z(confidence) * float(exact.std()) / math.sqrt(len(exact))
    return Interval(mean, mean - half, mean + half)


def interval_of_median(values: npt.NDArray[np.floating], confidence: float) -> Interval:
    """Return the bootstrap interval of a median, in the values' unit."""
    low, high = median_interval(values, (1 - confidence) / 2)
    return Interval(float(np.median(values.astype(np.float64))), low, high)


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf((1 + confidence) / 2)
