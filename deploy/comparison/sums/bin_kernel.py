"""The compiled loop that counts values for a histogram."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import AS_WRITTEN, compiled

__all__ = ["BINS", "bin_values"]

Array = npt.NDArray[Any]

BINS = 64  # of a histogram


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
