"""Take turns: calls of one model or two, timed, in an order in which a drift cancels.

A round of two models is A B B A, the next one B A A B, and so on: whatever speeds up or slows
down evenly during a round adds the same to both. A turn is some calls in a row, so that some of
them are disturbed by nothing else on the machine; the first call of a turn finds the other model
in the caches, and is not counted.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from core.progress import Progress, silent

__all__ = ["LEAST_ROUNDS", "Aside", "Effort", "Turn", "take_turns"]

Call = Callable[[], object]
Clock = Callable[[], int]
Turn = tuple[float, ...]  # milliseconds of each call

LEAST_ROUNDS = 6  # below, there is no interval of 95 % around a median
_MOST_ROUNDS = 1000
_LONGEST = 6  # times as long as asked, where two models cannot be told apart
_TURN_MS = 20.0  # at least, for calls that are short
_TURN_CALLS = 8  # wanted, as far as the turn stays below:
_LONG_TURN_MS = 200.0
_LEAST_WARM_UP = 3  # calls: the first ones take memory, compile and fill caches


@dataclass(frozen=True, slots=True)
class Effort:
    """How much time to take.

    Attributes:
        seconds: Of timing, at each batch size; at least six rounds are made.
        warm_up: Seconds for each model, before.
    """

    seconds: float = 5.0
    warm_up: float = 0.5


@dataclass(frozen=True, slots=True)
class Aside:
    """What happens beside the timing.

    Attributes:
        between: Called before each round, untimed.
        enough: Given all turns once the time is over: False for more of them, up to six times
            as long as was asked for.
        progress: Told percent of the time.
    """

    between: Callable[[], object] = lambda: None
    enough: Callable[[Sequence[Sequence[Turn]]], bool] = lambda turns: bool(turns)
    progress: Progress = silent


def take_turns(
    calls: Sequence[Call],
    effort: Effort,
    aside: Aside = Aside(),
    *,
    clock: Clock = time.perf_counter_ns,
) -> tuple[tuple[Turn, ...], ...]:
    """Time one or two models.

    Args:
        calls: What to time, one function a model.
        effort: How long.
        aside: What else happens.
        clock: Nanoseconds.

    Returns:
        For each model its turns. With two, round ``r`` is the turns 2 r and 2 r + 1 of each.
    """
    warm = [_warm_up(call, effort, clock) for call in calls]
    counts = [_calls_in_a_turn(ms) for ms in warm]
    turns: list[list[Turn]] = [[] for _ in calls]
    start, rounds = clock(), 0

    def spent() -> float:
        """Return the part of the time that is over: 1 once it is all."""
        return (clock() - start) / 1e9 / max(effort.seconds, 1e-9)

    while rounds < LEAST_ROUNDS or (
        rounds < _MOST_ROUNDS and (spent() < 1 or (spent() < _LONGEST and not aside.enough(turns)))
    ):
        aside.between()
        with _no_garbage():
            for at in _order(len(calls), rounds):
                if len(calls) > 1 and counts[at] > 1:
                    calls[at]()
                turns[at].append(_turn(calls[at], counts[at], clock))
        rounds += 1
        aside.progress(round(100 * min(1.0, spent(), rounds / LEAST_ROUNDS)), 100)
    return tuple(map(tuple, turns))


def _calls_in_a_turn(ms: float) -> int:
    """Return how many calls of some milliseconds make a turn."""
    return max(1, math.ceil(_TURN_MS / ms), min(_TURN_CALLS, int(_LONG_TURN_MS / ms)))


def _order(models: int, number: int) -> tuple[int, ...]:
    """Return who is called in a round, turn by turn."""
    if models == 1:
        return (0,)
    return (0, 1, 1, 0) if number % 2 == 0 else (1, 0, 0, 1)


def _warm_up(call: Call, effort: Effort, clock: Clock) -> float:
    """Call until it runs as it will; return about how many milliseconds a call takes."""
    times: list[float] = []
    start = clock()
    while len(times) < _LEAST_WARM_UP or clock() - start < effort.warm_up * 1e9:
        times += _turn(call, 1, clock)
    return max(min(times[1:]), 1e-3)


def _turn(call: Call, count: int, clock: Clock) -> Turn:
    times = []
    for _ in range(count):
        start = clock()
        call()
        times.append((clock() - start) / 1e6)
    return tuple(times)


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Keep Python's collector from running inside a turn."""
    was = gc.isenabled()
    gc.collect(0)
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
