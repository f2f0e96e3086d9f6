"""What the rounding of a tensor does to the mean of each of its channels.

The error e = x − x̂ of a value that a quantizer takes to x̂ = c + s·clamp(round((x − c)/s))
has the antiderivative e²/2, which has no jumps: at an edge between two codes e goes from
s/2 to −s/2. So the mean error over an interval [l, h] filled evenly is

    (e(h)² − e(l)²) / 2(h − l),

clipping included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.int8 import QMAX, QMIN
from exporter.calibration.counts.channels import ChannelCounts

__all__ = ["ChannelMeans", "channel_means"]

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelMeans:
    """Means over the calibration images, (C,) each.

    Attributes:
        real: Of the values.
        seen: Of what a layer reads in their place.
    """

    real: _Floats
    seen: _Floats


def channel_means(
    counts: ChannelCounts, factors: _Floats | None, scale: float, shift: float
) -> ChannelMeans:
    """Return the means of a tensor T and of its quantized self, both divided by its factors.

    Args:
        counts: Of T.
        factors: f of each channel, (C,); None for ones.
        scale: Of the quantizer of T / f − c, real units a code.
        shift: The constant c.
    """
    by = np.ones(len(counts)) if factors is None else factors
    low, high = (edge / by[counts.channel] for edge in counts.edges)

    def error(x: _Floats) -> _Floats:
        code = np.clip(np.rint((x - shift) / scale), QMIN, QMAX)
        return np.asarray(x - shift - code * scale)

    width = high - low
    point = width <= 0
    lower, upper = error(low), error(high)
    spread = (upper * upper - lower * lower) / np.where(point, 1.0, 2.0 * width)
    real = counts.means((low + high) / 2)
    return ChannelMeans(real, real - counts.means(np.where(point, lower, spread)))
