"""Choose amax, the magnitude that becomes code 127, from a histogram alone.

Each method is a function of one histogram; the network does not run again.

max         the largest magnitude seen: nothing is clipped
percentile  the magnitude that P percent of all values do not exceed
mse         the least Σ (x − x̂)², x̂ = clamp(round(x / s)) · s with s = amax / 127
entropy     the least divergence of the 128 magnitudes of INT8 from the distribution seen
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from core.int8 import QMAX
from exporter.calibration.counts.histogram import Histogram
from exporter.quantization.entropy import entropy_amax
from exporter.quantization.magnitudes import Magnitudes

__all__ = ["METHODS", "Method", "choose_amax", "clipped_share", "expected_sqnr_db"]

_PERCENT = 99.99

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Method:
    """How amax is chosen: a name, and the percentage of ``percentile``."""

    name: str
    percent: float = _PERCENT

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read ``max``, ``percentile``, ``percentile:99.9``, ``mse`` or ``entropy``.

        Raises:
            InputError: None of these.
        """
        name, colon, number = text.partition(":")
        if name not in METHODS or (colon and name != "percentile"):
            raise InputError(
                f"method {text!r} is none", hint=f"choose {', '.join(METHODS)} or percentile:99.9"
            )
        if not colon:
            return cls(name)
        try:
            percent = float(number)
        except ValueError:
            percent = math.nan
        if not 50.0 <= percent <= 100.0:
            raise InputError(
                f"method {text!r}: {number!r} is no percentage from 50 to 100",
                hint="give percentile:99.99, say",
            )
        return cls(name, percent)

    def __str__(self) -> str:
        """Return what :meth:`parse` reads."""
        return f"{self.name}:{self.percent:g}" if self.name == "percentile" else self.name


def choose_amax(histogram: Histogram, method: Method) -> tuple[float, Method]:
    """Return amax of one tensor, or of several that share a scale.

    Args:
        histogram: All values seen, none of them NaN or infinite.
        method: How to choose.

    Returns:
        amax in real units, 0 when all values are 0; and the method that gave it, which is
        ``max`` where the one asked for would clip everything.
    """
    magnitudes = Magnitudes.of(histogram)
    if magnitudes.amax > 0.0:
        amax = METHODS[method.name](magnitudes, method)
        if 0.0 < amax <= magnitudes.amax:
            return amax, method
    return magnitudes.amax, Method("max")


def clipped_share(histogram: Histogram, amax: float) -> float:
    """Return the share of values with a magnitude above ``amax``, in [0, 1]."""
    values = Magnitudes.of(histogram)
    if not values.counts.size:
        return 0.0
    above = (values.high > amax).astype(np.float64)
    within = above.astype(bool) & (values.low < amax)  # the bucket that amax lies in
    above[within] = (values.high - amax)[within] / (values.high - values.low)[within]
    return float((values.counts @ above) / values.counts.sum())


def expected_sqnr_db(histogram: Histogram, amax: float) -> float:
    """Return the SQNR in dB that INT8 with this amax gives the values seen, clipping included.

    inf when there is no error.
    """
    values = Magnitudes.of(histogram)
    signal, noise = float(values.moments[2, -1]), _noise(values, amax)
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _noise(values: Magnitudes, amax: float) -> float:
    """Return Σ (x − x̂)², values spread evenly over their bucket.

    Below s/2 the error is x, beyond amax it is x − amax: sums of moments. Between them the
    error e = x − k·s, k = round(x / s), has the antiderivative

        ∫ e² dx = k · s³/12 + e³/3,

    which has no jumps; a bucket's share is its difference. (Code −128, one step more, is
    left out.)
    """
    step = amax / QMAX
    first = int(np.searchsorted(values.high, step / 2, side="right"))
    last = max(first, int(np.searchsorted(values.low, amax, side="left")))
    below = values.moments[2, first]
    ones, sums, squares = values.moments[:, -1] - values.moments[:, last]
    beyond = squares - 2 * amax * sums + amax * amax * ones

    def integral(x: _Floats) -> _Floats:
        code = np.minimum(np.rint(x / step), QMAX)
        error = x - code * step
        result: _Floats = code * (step**3 / 12) + error * error * error / 3
        return result

    low, high = values.low[first:last], values.high[first:last]
    density = values.counts[first:last] / (high - low)
    return float(below + (integral(high) - integral(low)) @ density + beyond)


def _max(values: Magnitudes, method: Method) -> float:
    del method
    return values.amax


def _percentile(values: Magnitudes, method: Method) -> float:
    """Return the magnitude at which the cumulative count reaches the percentage."""
    reached = np.cumsum(values.counts)
    wanted = reached[-1] * (method.percent / 100.0)
    at = int(np.searchsorted(reached, wanted))
    # All of them are what was seen, not what was counted: of large activations that is a part.
    if at >= reached.size or method.percent == 100.0:
        return values.amax
    missing = (wanted - (reached[at] - values.counts[at])) / values.counts[at]
    return float(values.low[at] + missing * (values.high[at] - values.low[at]))


def _mse(values: Magnitudes, method: Method) -> float:
    """Search from amax down to its 256th part, 8 steps an octave, then finer around the best."""
    del method
    best = values.amax
    for octaves, steps in ((8.0, 64), (1 / 8, 8)):
        tried = best * np.exp2(np.linspace(-octaves, octaves, 2 * steps + 1))
        tried = np.unique(np.minimum(tried, values.amax))[::-1]
        # Of equally good ones the first, which clips least.
        best = min(map(float, tried), key=lambda amax: _noise(values, amax))
    return best


def _entropy(values: Magnitudes, method: Method) -> float:
    del method
    return entropy_amax(values)


METHODS: dict[str, Callable[[Magnitudes, Method], float]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
    "entropy": _entropy,
}
