"""Sums over all images of what quantizers make of tensors: codes alike, what rounding adds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from core.int8 import QMAX, QMIN
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.pair_kernel import CODES

__all__ = ["Rounding", "Same"]

_FITS = 0.2  # octaves between a constant and the one that goes with the scale

Array = npt.NDArray[Any]


@dataclass(slots=True)
class Same:
    """How many values get the same INT8 code on both sides."""

    count: int = 0
    equal: int = 0
    largest: int = 0

    def note(self, count: int, equal: int, largest: int) -> None:
        """Add so many values, and how many of them are equal."""
        self.count += count
        self.equal += equal
        self.largest = max(self.largest, largest)

    @property
    def share(self) -> float:
        """Share of equal codes."""
        return self.equal / self.count if self.count else 1.0


@dataclass(slots=True)
class Rounding:
    """What a quantizer makes of the reference's tensor.

    Attributes:
        sums: (channels, 2) float64: Σδ and Σδ² of what it adds.
        tally: (CODES,): how many values have which magnitude, in codes.
        images: Images.
        count: Values.
        saturated: Those beyond the ends.
        one_sided: Whether a constant was taken off a tensor that has no negative values, so
            that it fills the codes from the lowest on.
        start: That constant, in codes; 0 for a tensor that is not one-sided.
    """

    sums: Array = field(default_factory=lambda: np.zeros((0, 2)))
    tally: Array = field(default_factory=lambda: np.zeros(CODES, np.int64))
    images: int = 0
    count: int = 0
    saturated: int = 0
    one_sided: bool = False
    start: float = 0.0

    def begin(self, reference: Array, quantizer: Quantizer) -> None:
        """Begin with a batch, (n, c, l)."""
        if not len(self.sums):
            self.sums = np.zeros((reference.shape[1], 2))
            self.one_sided = quantizer.held.shift > 0 and bool(reference[:1].min(initial=0.0) >= 0)
        self.start = quantizer.held.shift / quantizer.scale if self.one_sided else 0.0
        self.images += len(reference)
        self.count += reference.size

    @property
    def fits(self) -> bool:
        """Whether the lowest code is zero, or nearly: the constant goes with the scale."""
        return self.start > 0 and abs(math.log2(self.start / -QMIN)) <= _FITS

    def best(self, *, without: float = 0.0) -> tuple[float, float]:
        """Return the factor on the scale that leaves least noise, and the dB it would gain.

        Args:
            without: Share of the largest values to leave out of the account.

        The noise of a scale f times as large follows from the tally: (f·scale)²/12 of a
        value within, the distance to the end of one beyond. A constant that goes with the
        scale moves with it; one that does not is that of other tensors, too, and stays.
        """
        u = (np.arange(CODES) + 0.5)[None, :]
        factors = 2.0 ** (np.arange(-16, 17) / 8.0)
        moves = self.one_sided and self.fits
        start = -QMIN * factors if moves else np.full(len(factors), self.start)
        high = start + QMAX * factors
        low = start + QMIN * factors
        clipped = np.maximum(np.maximum(u - high[:, None], low[:, None] - u), 0.0)
        inside = (clipped == 0) * (factors[:, None] ** 2 / 12.0)
        noise = (inside + clipped**2) @ self._kept(without)
        at, now = int(np.argmin(noise)), len(factors) // 2
        if not noise[at] > 0:
            return 1.0, 0.0
        return float(factors[at]), 10.0 * math.log10(noise[now] / noise[at])

    def _kept(self, without: float) -> Array:
        """Return the tally less a share of its largest magnitudes."""
        if not without:
            return self.tally
        left = int(self.tally.sum()) - math.ceil(without * int(self.tally.sum()))
        before = np.cumsum(self.tally) - self.tally
        return np.asarray(np.clip(left - before, 0, self.tally))
