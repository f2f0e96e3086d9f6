"""Whether the range of each quantizer suits what it quantizes, judged among its peers.

The scale that would have left least noise on these images is known from the tally of
magnitudes. A sound calibration is within a third of it, or as far off as all others of the same
network are: one that maximizes leaves every range too wide.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from core.int8 import QMIN
from deploy.comparison.quantizers import Quantizer
from deploy.comparison.sums import StepSums
from deploy.comparison.verdict import Reason

__all__ = ["Ranges"]

_NARROW, _WIDE = 1.55, 0.62  # times the amax: beyond that, the best one is elsewhere
_GAIN_DB = 2.5  # that the best amax must gain
_UNIFORM = 1.0 / 12.0
_ENOUGH = 16  # images
_MISFIT = 0.2  # octaves between a constant and the scale that goes with it


@dataclass(frozen=True, slots=True)
class Ranges:
    """The quantizers of a step, and what the best scale of each would be.

    Attributes:
        quantizers: By tensor.
        best: Tensor → the best scale as a multiple of its own, and the dB it would gain.
        noise: Tensor → the noise of its rounding, as a multiple of step²/12.
        usual: The multiple that is in the middle of all.
        images: How many images were looked at.
        one_sided: Tensors that a constant makes fill the codes from the lowest on.
    """

    quantizers: Mapping[str, Quantizer]
    best: Mapping[str, tuple[float, float]]
    noise: Mapping[str, float]
    usual: float
    images: int
    one_sided: frozenset[str]

    @classmethod
    def of(cls, step: StepSums, images: int) -> Ranges:
        """Look at all quantizers of a step."""
        best: dict[str, tuple[float, float]] = {}
        noise: dict[str, float] = {}
        one_sided: set[str] = set()
        for name, quantizer in step.quantizers.items():
            rounding = step.rounding.get(name)
            if rounding is None or not rounding.count or name not in step.seen:
                continue
            best[name] = rounding.best()
            if rounding.one_sided:
                one_sided.add(name)
            power = float(rounding.sums[:, 1].sum()) / rounding.count
            noise[name] = power / (quantizer.scale**2 * _UNIFORM)
        factors = [factor for factor, _ in best.values()]
        usual = median(factors) if factors else 1.0
        return cls(step.quantizers, best, noise, usual, images, frozenset(one_sided))

    def noise_db(self, name: str) -> float:
        """Return by how much the rounding of a tensor is noisier than its step explains."""
        noise = self.noise.get(name, 1.0)
        return 10.0 * math.log10(noise) if noise > 0 else 0.0

    def fault(self, name: str) -> tuple[Reason, float, str] | None:
        """Return what is wrong with the range of a tensor; None when it suits."""
        if name not in self.best:
            return None
        factor, gain = self.best[name]
        quantizer = self.quantizers[name]
        amax = 127.0 * quantizer.scale
        fit = quantizer.shift / (-QMIN * quantizer.scale)
        if name in self.one_sided and abs(math.log2(fit)) > _MISFIT:
            reason = Reason.TOO_WIDE if fit < 1.0 else Reason.CLIPPING
            text = f"amax {amax:.4g} does not fit the constant {quantizer.shift:.4g} it is less of"
            return reason, 20.0 * abs(math.log10(fit)), text
        text = f"amax {amax:.4g}, where {amax * factor:.4g} would leave {gain:.1f} dB less noise"
        if gain < _GAIN_DB:
            return None
        # The largest values are rare: a few images need not hold any.
        if factor <= _WIDE * min(self.usual, 1.0) and self.images >= _ENOUGH:
            return Reason.TOO_WIDE, gain, text
        if factor >= _NARROW * max(self.usual, 1.0):
            return Reason.CLIPPING, gain, text
        return None
