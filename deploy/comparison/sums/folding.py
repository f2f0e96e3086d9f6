"""Two tensors into all the sums that are kept of them, in one go over both."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.holding import AS_IT_IS, Held, Holding, whole_of
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.as_channels import as_channels
from deploy.comparison.sums.codes import Rounding, Same
from deploy.comparison.sums.pair_kernel import CODES, fold_pair
from deploy.comparison.sums.pair_sums import PairSums, SideSums

__all__ = ["Into", "Rule", "fold"]

Array = npt.NDArray[Any]
Indices = npt.NDArray[np.int64]

_COUNTED = 1 << 13  # values of an image, or more, whose magnitudes are counted
_STRIDES = (1, 3, 5, 11, 23, 47, 97)  # primes: in rows of any usual length all places come by
_NO_BOUNDS = np.zeros((0, 4))
_NO_ROUNDING = np.zeros((0, 2)), np.zeros(CODES, np.int64)
_NOT_MADE = np.zeros((0, 0, 0), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Into:
    """What two tensors are folded into.

    Attributes:
        pair: Their differences.
        sides: Bounds of the reference's and of the candidate's; None for those not wanted.
        same: Codes of both, where there is a quantizer.
        rounding: What the quantizer makes of the reference's; None where not wanted.
        least: What smaller values are taken for in all differences, on both sides; NaN stays.
    """

    pair: PairSums = field(default_factory=PairSums)
    sides: tuple[SideSums | None, SideSums | None] = (None, None)
    same: Same | None = None
    rounding: Rounding | None = None
    least: float = -math.inf


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """How a candidate holds a tensor, and how it quantizes it then.

    Attributes:
        holding: How it holds it.
        quantizer: Of the same holding; None where there is none.
    """

    holding: Holding = AS_IT_IS
    quantizer: Quantizer | None = None

    def numbers(self, start: float) -> tuple[np.float32, ...]:
        """Return its numbers as the loops take them.

        Args:
            start: From which code on magnitudes count.
        """
        q, shift = self.quantizer, self.holding.shift
        numbers = (q.scale, q.back, shift, q.low, q.high) if q else (0, 0, shift, 0, 0)
        return tuple(map(np.float32, (*numbers, start)))


_AS_IT_IS = Rule()


def fold(
    reference: Array,
    candidate: Array | Held,
    images: Indices,
    into: Into,
    rule: Rule = _AS_IT_IS,
    *,
    inside: bool = False,
) -> Array:
    """Fold one batch of two tensors.

    Args:
        reference: Any shape and real type.
        candidate: The same shape, or one that stands for it.
        images: Index of each image in the data.
        into: What is added to.
        rule: How the candidate holds and quantizes it.
        inside: Whether to return the reference as the candidate holds it.

    Returns:
        That, of the same shape; or the reference.

    Raises:
        InputError: The tensor has other channels than the candidate holds it by.
    """
    r, c, held = _pair(reference, candidate, rule.holding)
    if r.shape != c.shape or not into.pair.takes(r.shape[1]):  # the loops would not notice
        raise ValueError(f"{c.shape} held against {r.shape}, {len(into.pair.sums)} channels so far")
    inside &= not rule.holding.as_it_is
    on_the_way = inside and r.dtype == np.float32
    made = np.empty(r.shape, np.float32) if on_the_way else _NOT_MADE
    rounding, tallies, start, before = into.rounding, _NO_ROUNDING, 0.0, len(into.pair.noises)
    if rounding is not None and rule.quantizer is not None:
        rounding.begin(r, rule.quantizer)
        tallies, start = (rounding.sums, rounding.tally), rounding.start
    bounds = (_NO_BOUNDS if side is None else side.of(r.shape[1]) for side in into.sides)
    noises, kind = into.pair.begin(r.shape), c.dtype.type
    factors = rule.holding.factors_of(reference.shape)
    # In the candidate's own type, as the network itself computes.
    units = (factors if held else np.ones_like(factors)).astype(kind, copy=False)
    offset = kind(np.float32(rule.holding.shift if held else 0.0))
    largest, at, total, equal, furthest, beyond = fold_pair(
        *(r, c, units, offset, kind(into.least), factors, rule.numbers(start)),
        *(into.pair.sums, noises, into.pair.worst, *bounds, *tallies, made, held),
        *(before, _stride(r.shape[1] * r.shape[2])),
    )
    into.pair.note(noises, (largest, at), reference.shape, images)
    if not math.isfinite(total):
        with np.errstate(all="ignore"):
            whole = (c + offset) * units[:, None]
        into.pair.nonfinite += _nonfinite(r, whole, into.least)
    if into.same is not None and rule.quantizer is not None:
        into.same.note(r.size, equal, furthest)
    if rounding is not None:
        rounding.saturated += beyond
    if inside and not on_the_way:
        return rule.holding.inside(reference)
    return made.reshape(reference.shape) if inside else reference


def _pair(reference: Array, candidate: Array | Held, holding: Holding) -> tuple[Array, Array, bool]:
    """Return two tensors for the loops, of one type, and whether the second is as it is held."""
    held = isinstance(candidate, Held) and candidate.holding is holding
    near = candidate.array if isinstance(candidate, Held) and held else whole_of(candidate)
    r, c = as_channels(reference), as_channels(near)
    if c.dtype == r.dtype:
        return r, c, held
    return r.astype(np.float64), as_channels(whole_of(candidate)).astype(np.float64), False


def _stride(values: int) -> int:
    """Return of how many values one is counted, in an image of so many."""
    return max(stride for stride in _STRIDES if stride == 1 or stride * _COUNTED <= values)


def _nonfinite(r: Array, c: Array, least: float) -> int:
    """Count the values that are NaN or infinite on either side, in what they are taken for."""
    finite = np.logical_and(*(np.isfinite(np.maximum(side, least)) for side in (r, c)))
    return r.size - int(np.count_nonzero(finite))
