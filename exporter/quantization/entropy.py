"""Choose amax by the least Kullback–Leibler divergence, as TensorRT's calibrator did."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from core.int8 import QMAX
from exporter.quantization.magnitudes import Magnitudes

__all__ = ["entropy_amax"]

_BINS = 2048
_LEVELS = QMAX + 1

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


def entropy_amax(values: Magnitudes) -> float:
    """Return the amax of least divergence.

    P is the distribution over i of 2048 equal bins, all that lies beyond in its last bin;
    Q is P's first i bins at 128 levels, each spread evenly over its bins that are not
    empty. With S_j the sum and n_j the non-empty bins of level j, and T, U the totals,

        KL(i) = Σ_b P_b/T · log(P_b/T) − Σ_j S'_j/T · log(S_j / (n_j U))

    (S' counts what lies beyond too), which prefix sums give for all i at once. The first
    bin, full of zeros behind a ReLU, is counted as the second one is. Sources: Migacz, "8-bit
    inference with TensorRT", GTC 2017; NVIDIA, pytorch-quantization, histogram calibrator.
    """
    edges = np.linspace(0.0, values.amax, _BINS + 1)
    bins = np.diff(values.cumulative(edges))
    bins[0] = bins[1]
    kept, cuts = _levels()
    sums = np.concatenate([[0.0], np.cumsum(bins)])
    filled = np.concatenate([[0], np.cumsum(bins > 0)])
    logs = np.concatenate([[0.0], np.cumsum(_xlogy(bins, bins))])
    level, count = np.diff(sums[cuts]), np.diff(filled[cuts])
    total, beyond = sums[-1], sums[-1] - sums[kept]
    last = bins[kept - 1]
    reference = logs[kept] - _xlogy(last, last) + _xlogy(last + beyond, last + beyond)
    held = level.copy()
    held[:, -1] += beyond
    with np.errstate(divide="ignore", invalid="ignore"):
        density = level / (count * sums[kept][:, None])
        divergence = (reference - total * np.log(total) - _xlogy(held, density).sum(axis=1)) / total
    # An empty last bin that everything beyond is put into has no counterpart in Q.
    divergence[(last == 0) & (beyond > 0) | np.isnan(divergence)] = np.inf
    best = len(kept) - 1 - int(np.argmin(divergence[::-1]))
    return float(edges[kept[best]])


@lru_cache(maxsize=1)
def _levels() -> tuple[_Ints, _Ints]:
    """Return each i from 128 to 2048, (I,), and where its levels begin and end, (I, 129).

    Level j of i bins begins at the first bin whose number is at least i·j/128.
    """
    kept = np.arange(_LEVELS, _BINS + 1)
    return kept, -(-kept[:, None] * np.arange(_LEVELS + 1) // _LEVELS)


def _xlogy(x: _Floats, y: _Floats) -> _Floats:
    """Return x · log(y), 0 where x is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(x == 0, 0.0, x * np.log(y))
