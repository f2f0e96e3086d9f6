"""The compiled loop over what reaches the network, in one read of it."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.compiled import AS_WRITTEN, compiled

__all__ = ["moments"]

# So many sums side by side, for speed; they are added up in the same order on every processor.
_LANES = 8


@compiled(AS_WRITTEN)
def moments(plane: Any) -> Any:
    """Return a plane's mean, its variance, and the mean square of its steps.

    Args:
        plane: (H, W) float32, not empty, contiguous. A step goes from a value to its right
            neighbour; the mean of none is 0.
    """
    height, width = plane.shape
    # Squares of what is far from zero would cancel; a value of the plane is near the others.
    near = np.float64(plane[0, 0])
    sums = np.zeros((3, _LANES))  # of values, of their squares, of squared steps
    offs, squares, steps = sums[0], sums[1], sums[2]
    whole = (width - 1) // _LANES * _LANES
    for y in range(height):
        row = plane[y]
        for x in range(0, whole, _LANES):
            for lane in range(_LANES):
                value = np.float64(row[x + lane])
                off, step = value - near, np.float64(row[x + lane + 1]) - value
                offs[lane] += off
                squares[lane] += off * off
                steps[lane] += step * step
        for x in range(whole, width):
            value = np.float64(row[x])
            off, step = value - near, np.float64(row[min(x + 1, width - 1)]) - value
            offs[x - whole] += off
            squares[x - whole] += off * off
            steps[x - whole] += step * step
    mean = offs.sum() / plane.size
    variance = squares.sum() / plane.size - mean * mean
    return near + mean, max(variance, 0.0), steps.sum() / max(height * (width - 1), 1)
