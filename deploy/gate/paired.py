"""Statistics of a yes or no that was asked twice of the same images, before and now.

Of n images, some were right before and are wrong now (*lost*), others the other way round
(*gained*). Their loss is (lost − gained) / n; the images that did not change say nothing
about it, which is why a paired test sees on 1,000 images what two percentages cannot.

Two questions are asked of it. Is there any loss? The exact test of McNemar answers: with no
loss, each changed image is lost or gained as a coin falls. And how large can it be? One-sided
bounds by Tango's score answer, with half an image of continuity correction, so that they
hold on few changed images too (seen by enumeration, see the tests), and on none: zero of 1,000
is not a loss of zero, but of at most 0.36 points.

Source: Q. McNemar, Psychometrika 12, 1947; T. Tango, "Equivalence test and confidence
interval for the difference in proportions for the paired-sample design", Statistics in
Medicine 17, 1998, equations 4 and 5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_IMAGES", "Pairs", "mcnemar_p"]

Flags = npt.NDArray[np.bool_]

MOST_IMAGES = 100_000_000  # beyond, no set of images settles it
# Images. Without, a bound that should fail 5 times in 100 fails 7 times on few changed images.
_BELOW, _ABOVE = 1.0, 0.5
_PRECISION = 1e-9  # of a bound


@dataclass(frozen=True, slots=True)
class Pairs:
    """How many of n images changed for the worse and for the better.

    Attributes:
        lost: Right before, wrong now.
        gained: Wrong before, right now.
        images: All, n ≥ 1; the unchanged ones too.
    """

    lost: int
    gained: int
    images: int

    @classmethod
    def of(cls, before: Flags, now: Flags) -> Pairs:
        """Count two rows of answers to the same images, both (n,)."""
        return cls(int((before & ~now).sum()), int((~before & now).sum()), len(now))

    @property
    def loss(self) -> float:
        """Share of the images that was lost, less the share that was gained."""
        return (self.lost - self.gained) / self.images

    def at_least(self, alpha: float) -> float:
        """Return the bound that the true loss is below with probability ``alpha`` at most."""
        return -_largest(Pairs(self.gained, self.lost, self.images), alpha, _BELOW)

    def at_most(self, alpha: float) -> float:
        """Return the bound that the true loss is above with probability ``alpha`` at most."""
        return _largest(self, alpha, _ABOVE)

    def p_beyond(self, tolerance: float) -> float:
        """Return how probable so large a loss is, at most, while the true one is ``tolerance``.

        Args:
            tolerance: Share of the images, ≥ 0. The result is never below McNemar's p: a
                loss that may be chance is none beyond a tolerance.
        """
        tail = 1 - NormalDist().cdf(_score(self, tolerance, -_BELOW))
        return max(tail, mcnemar_p(self.lost, self.gained))

    def images_needed(self, tolerance: float, alphas: tuple[float, float]) -> int | None:
        """Return how many images would tell, if they changed at the rate of these.

        Args:
            tolerance: Share of the images that may be lost.
            alphas: Of the two sides, "beyond it" and "within it".

        Returns:
            The least number, to some 1 %; None where no set is large enough, the loss being
            as good as the tolerance.
        """
        beyond, within = alphas

        def tells(factor: float) -> bool:
            counts = (self.lost * factor, self.gained * factor, self.images * factor)
            if self.loss > tolerance:
                score = _score_of(*counts, tolerance, -_BELOW)
                return score > NormalDist().inv_cdf(1 - beyond)
            return _score_of(*counts, tolerance, _ABOVE) < NormalDist().inv_cdf(within)

        few, many = 1.0, 1.0
        while not tells(many):
            few, many = many, many * 2
            if many * self.images > MOST_IMAGES:
                return None
        while many / few > 1.01:
            middle = (few + many) / 2
            few, many = (few, middle) if tells(middle) else (middle, many)
        return math.ceil(many * self.images)


def mcnemar_p(lost: int, gained: int) -> float:
    """Return McNemar's exact one-sided p: P(X ≥ lost) for X ~ Binomial(lost + gained, 1/2)."""
    changed = lost + gained
    term = tail = 1  # ways to get all of them lost, then one less, …
    for k in range(changed, lost, -1):
        term = term * k // (changed - k + 1)
        tail += term
    return float(Fraction(tail, 1 << changed))


def _largest(pairs: Pairs, alpha: float, correction: float) -> float:
    """Return the largest loss that so small a one would not be too unlikely under."""
    wanted = NormalDist().inv_cdf(alpha)
    low, high = pairs.loss, 1.0
    while high - low > _PRECISION:
        middle = (low + high) / 2
        if _score(pairs, middle, correction) > wanted:
            low = middle
        else:
            high = middle
    return high


def _score(pairs: Pairs, loss: float, correction: float) -> float:
    return _score_of(pairs.lost, pairs.gained, pairs.images, loss, correction)


def _score_of(lost: float, gained: float, images: float, loss: float, correction: float) -> float:
    """Return Tango's score of a supposed true loss: standard deviations that it is exceeded by.

    Args:
        lost: Images lost.
        gained: Images gained.
        images: All images.
        loss: The supposed one, a share; −1 to 1.
        correction: Added to the images lost, less those gained.
    """
    if loss < 0:
        return -_score_of(gained, lost, images, -loss, -correction)
    # The likeliest share of gained images, if the true loss is the supposed one.
    a = 2 * images
    b = (a - lost + gained) * loss - lost - gained
    c = -gained * loss * (1 - loss)
    share = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
    variance = images * (2 * share + loss * (1 - loss))
    excess = lost - gained - images * loss + correction
    if variance <= 0:  # no image changed, and no loss supposed
        return math.copysign(math.inf, excess) if excess else 0.0
    return excess / math.sqrt(variance)
