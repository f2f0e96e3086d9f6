"""Whether the range of each quantizer suits what it quantizes, judged among its peers.

Where the calibration table that a graph was made with lies beside it, its scales must be those
of the table. Without one, the scale that would have left least noise on these images is known
from the tally of magnitudes, and a sound one is not far from it: unless all of the network's
are, as far as the one in the middle is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from core.int8 import QMIN
from deploy.comparison.sums.codes import Rounding
from deploy.comparison.sums.step_sums import StepSums
from deploy.comparison.values.verdict import Reason

__all__ = ["Ranges"]

_NARROW = 1.55  # times the amax: a best one beyond that is no matter of taste
_WIDE = 0.6  # likewise; on fewer images than these the largest values may be missing
_ENOUGH = 32
_GAIN_DB = 2.0  # that the best amax must gain
# Of the values. One of them may hide that half of the codes are never used, which costs 6 dB;
# and a sound calibration clips some.
_OUTLIERS = 1e-3
_HALF_DB = 4.5
_OTHER = 0.002  # octaves: the last bit of a scale in float16


@dataclass(frozen=True, slots=True)
class Ranges:
    """The quantizers of a step, and how well their ranges suit what they quantize.

    Attributes:
        step: Its sums.
        best: Tensor → the best scale as a multiple of its own, and the dB it would gain.
        usual: The multiple that is in the middle of all.
    """

    step: StepSums
    best: Mapping[str, tuple[float, float]]
    usual: float

    @classmethod
    def of(cls, step: StepSums) -> Ranges:
        """Look at all quantizers of a step."""
        best = {
            name: rounding.best()
            for name, rounding in step.counted.items()
            if name in step.seen and rounding.count and step.quantizers[name].is_int8
        }
        factors = [factor for factor, _ in best.values()]
        return cls(step, best, median(factors) if factors else 1.0)

    def noise_db(self, name: str) -> float:
        """Return by how much the rounding of a tensor is noisier than its step explains."""
        rounding = self.step.counted.get(name)
        if rounding is None or not rounding.count:
            return 0.0
        step = self.step.quantizers[name].steps(len(rounding.sums))
        noise = float((rounding.sums[:, 1] / step**2).sum()) / rounding.count
        ratio = 12.0 * noise
        return 10.0 * math.log10(ratio) if ratio > 0 else 0.0

    def fault(self, name: str) -> tuple[Reason, float, str] | None:
        """Return what is wrong with the range of a tensor; None when it suits."""
        if name not in self.best:
            return None
        factor, gain = self.best[name]
        quantizer, rounding = self.step.quantizers[name], self.step.counted[name]
        amax = 127.0 * quantizer.scale
        told = self.step.amaxes.get(name)
        if told is not None and abs(math.log2(amax / told)) > _OTHER:
            reason = Reason.TOO_WIDE if amax > told else Reason.CLIPPING
            text = f"amax {amax:.4g}, where calibration.json chose {told:.4g}"
            return reason, 20.0 * abs(math.log10(amax / told)), text
        # Tensors that move together have one constant, which need not fit the widest of them.
        fit = quantizer.held.shift / (-QMIN * quantizer.scale)
        unfit = told is None and rounding.one_sided and not rounding.fits
        if unfit and (gain >= _GAIN_DB or rounding.best(without=_OUTLIERS)[1] >= _HALF_DB):
            reason = Reason.TOO_WIDE if fit < 1.0 else Reason.CLIPPING
            constant = quantizer.held.shift
            text = f"amax {amax:.4g} does not fit the constant {constant:.4g} it is less of"
            return reason, 20.0 * abs(math.log10(fit)), text
        text = f"amax {amax:.4g}, where {amax * factor:.4g} would leave {gain:.1f} dB less noise"
        if told is not None or rounding.one_sided or gain < _GAIN_DB:
            return None  # chosen so, on more images than these
        if factor <= _WIDE * min(self.usual, 1.0) and self.step.images >= _ENOUGH:
            return Reason.TOO_WIDE, gain, text
        if factor >= _NARROW * max(self.usual, 1.0) and self._clips(rounding):
            return Reason.CLIPPING, gain, text
        return None

    def _clips(self, rounding: Rounding) -> bool:
        """Tell whether a range is too narrow for more than a few outliers."""
        factor, gain = rounding.best(without=_OUTLIERS)
        return factor >= _NARROW * max(self.usual, 1.0) and gain >= _GAIN_DB
