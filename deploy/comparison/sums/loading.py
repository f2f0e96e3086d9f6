"""The compiled loops of a comparison, loaded before they are needed."""

from __future__ import annotations

import numpy as np

from core.int8 import QMAX, QMIN
from deploy.comparison.graphs.holding import AS_IT_IS, Holding
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.codes import Rounding, Same
from deploy.comparison.sums.folding import Into, Rule, fold
from deploy.comparison.sums.pair_sums import SideSums, histogram

__all__ = ["load_loops"]


def load_loops() -> None:
    """Load the compiled loops, which takes half a second: they need not be waited for later."""
    nothing = np.zeros((1, 1, 1), np.float32)
    quantizer = Quantizer("", 1.0, 1.0, 0, "int8", QMIN, QMAX)
    into = Into(same=Same(), rounding=Rounding())
    fold(nothing, nothing, np.zeros(1, np.int64), into, Rule(AS_IT_IS, quantizer))
    SideSums().add(nothing)
    Holding(shift=1.0).inside(nothing)
    histogram(nothing, nothing + 1)
