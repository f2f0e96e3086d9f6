"""What a ratio of times means, in plain words."""

from __future__ import annotations

from typing import Literal

from deploy.bench.figures import Ratio

__all__ = ["MARGIN", "Verdict", "is_settled", "verdict_of", "verdict_text"]

# Two sessions of one file differ by so much now and then: by where their memory lies.
MARGIN = 1.03

Verdict = Literal["slower", "faster", "equal", "undecided"]


def is_settled(ratio: Ratio) -> bool:
    """Tell whether more rounds would say nothing new.

    The interval lies beyond the margin, or is so narrow that models would be told apart that
    differ by it.
    """
    beyond = ratio.low > MARGIN or ratio.high < 1 / MARGIN
    return beyond or ratio.high / ratio.low <= MARGIN**2


def verdict_of(ratio: Ratio) -> Verdict:
    """Say what a ratio (second model over first) tells of the second model."""
    if ratio.low > 1 and ratio.value > MARGIN:
        return "slower"
    if ratio.high < 1 and ratio.value < 1 / MARGIN:
        return "faster"
    if ratio.low > 1 / MARGIN and ratio.high < MARGIN:
        return "equal"
    return "undecided"


def verdict_text(ratio: Ratio, first: str, second: str) -> str:
    """Return ``B is slower here: 1.18× the time of A (95 % interval 1.16 to 1.20)``."""
    between = f"95 % interval {ratio.low:.2f} to {ratio.high:.2f}, {ratio.rounds} rounds"
    verdict = verdict_of(ratio)
    if verdict == "slower":
        return f"{second} is slower here: {ratio.value:.2f}× the time of {first} ({between})"
    if verdict == "faster":
        times = 1 / ratio.value
        return (
            f"{second} is faster here: {ratio.value:.2f}× the time of {first}, "
            f"{times:.2f}× its speed ({between})"
        )
    took = f"{second} took {ratio.value:.2f}× the time of {first} ({between})"
    if verdict == "equal":
        return f"no difference beyond 3 %: {took}"
    return f"no difference that this run can tell: {took}; more --seconds or a quiet machine tell"
