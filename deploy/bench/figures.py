"""Figures out of times: percentiles, throughput, and the ratio of two models with an interval.

Nothing here averages: on a machine that does other things too, a few calls take many times as
long as the rest, and a mean follows them.

Source: H. A. David, H. N. Nagaraja, "Order Statistics", 2003, section 7.1 (the interval of a
median needs no distribution).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.bench.turns import Turn

__all__ = [
    "CONFIDENCE",
    "Latency",
    "Ratio",
    "latency_of",
    "median_ranks",
    "percentile",
    "ratio_of",
    "round_ratios",
    "turn_ms",
]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Latency:
    """What a call takes, in milliseconds; None where the calls are too few to say.

    Attributes:
        calls: How many were timed.
        images_per_s: Images of all calls over the time of all calls, one call at a time.
    """

    calls: int
    p50: float
    p90: float | None
    p99: float | None
    images_per_s: float


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as long the second model takes as the first.

    Attributes:
        value: Median over the rounds.
        low: Lower end of its interval.
        high: Upper end of it.
        rounds: How many there were.
    """

    value: float
    low: float
    high: float
    rounds: int


def percentile(ordered: Sequence[float], percent: int) -> float | None:
    """Return the value that ``percent`` of sorted values do not exceed (nearest rank).

    None when there are too few for one of them to lie above: p99 takes 100 values.
    """
    if len(ordered) * (100 - percent) < 100:
        return None
    return ordered[math.ceil(len(ordered) * percent / 100) - 1]


def latency_of(turns: Sequence[Turn], batch: int) -> Latency:
    """Return the figures of one model.

    Args:
        turns: Milliseconds of its calls.
        batch: Images in a call.
    """
    times = sorted(ms for turn in turns for ms in turn)
    return Latency(
        calls=len(times),
        p50=statistics.median(times),
        p90=percentile(times, 90),
        p99=percentile(times, 99),
        images_per_s=batch * len(times) / (sum(times) / 1e3),
    )


def ratio_of(first: Sequence[Turn], second: Sequence[Turn]) -> Ratio:
    """Hold two models against one another, round by round.

    A turn counts as :func:`turn_ms` says, a round as the geometric mean of the ratios of its
    two pairs; so the ratio of B to A is one over that of A to B.

    Args:
        first: Turns of the first model, two a round.
        second: Those of the second.
    """
    rounds = sorted(map(math.log, round_ratios(*(list(map(turn_ms, t)) for t in (first, second)))))
    low, high = median_ranks(len(rounds))
    middle = statistics.median(rounds)
    return Ratio(math.exp(middle), math.exp(rounds[low]), math.exp(rounds[high]), len(rounds))


def turn_ms(turn: Turn) -> float:
    """Return what a turn counts as: the lower quartile of its calls.

    On a machine that does other things too, most calls may be disturbed; those below the
    quartile tell best what the model itself takes.
    """
    return sorted(turn)[(len(turn) - 1) // 4]


def round_ratios(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Return the ratio of each round, second model over first, from what the turns count as."""
    return [
        math.sqrt(second[at] * second[at + 1] / (first[at] * first[at + 1]))
        for at in range(0, len(first) - 1, 2)
    ]


def median_ranks(count: int) -> tuple[int, int]:
    """Return between which of ``count`` sorted values the median lies, with 95 % confidence.

    Each value lies below the true median with probability 1/2, whatever the distribution. With
    fewer than six values no pair is so far apart, and the outermost ones are returned.

    >>> median_ranks(10)
    (1, 8)
    """
    tail, low = 0.5**count, 0
    while tail + math.comb(count, low + 1) * 0.5**count <= (1 - CONFIDENCE) / 2:
        low += 1
        tail += math.comb(count, low) * 0.5**count
    return low, count - 1 - low
