"""How the outputs of a check put things: the same words in all of them."""

from __future__ import annotations

import math

from deploy.gate.verdict import Outcome, Row, Verdict
from deploy.inspect.columns import plain

__all__ = ["METRICS", "headline", "row_values", "sentence", "value_text"]

METRICS = {
    "top1": "top-1",
    "agreement": "same answers",
    "sqnr": "logits SQNR",
    "layers": "layers",
    "run": "run",
}


def headline(verdict: Verdict) -> str:
    """Return the verdict in a line."""
    if verdict.drift is not None:
        return f"{verdict.drift.kind}: nothing can be judged"
    counts = ", ".join(f"{count} {outcome.value}" for outcome, count in verdict.counts.items())
    where = ""
    if verdict.data is not None:
        where = f", on {verdict.data.images:,} images of {plain(verdict.data.name)}"
    return f"{verdict.outcome.value}: {counts or 'nothing was run'}{where}"


def value_text(row: Row, value: float | None, *, signed: bool = False) -> str:
    """Write a value of a row in its unit: percents or dB, its losses as they are."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "gone" if signed else "equal" if value > 0 else "none"
    if signed:
        return f"{round(value, 2) + 0.0:+.2f}"  # no −0.00
    return f"{value:.2f} %" if row.unit == "points" else f"{value:.2f} dB"


def row_values(row: Row) -> tuple[str, ...]:
    """Return a row's cells: baseline, now, loss, at least, at most, allowed."""
    losses = (value_text(row, v, signed=True) for v in (row.loss, row.at_least, row.at_most))
    allowed = f"{row.tolerance:g} {row.unit}" if row.unit else "–"
    return (value_text(row, row.before), value_text(row, row.now), *losses, allowed)


def sentence(row: Row) -> str:
    """Say of a row what is not in its cells; empty when there is nothing to say."""
    if row.outcome is Outcome.NOT_RUN:
        return f"not run: {row.note}"
    if row.outcome is Outcome.CANNOT_TELL:
        if row.needed is None:
            return f"no number of images would tell: the loss is as good as the tolerance{_p(row)}"
        return f"some {_rounded(row.needed):,} images would tell, if they changed as these do"
    if row.outcome is Outcome.REGRESSED and row.unit == "points":
        return f"{row.note}{_p(row)}"
    return row.note


def _p(row: Row) -> str:
    return "" if row.p is None else f"; McNemar's p {row.p:.2g}"


def _rounded(count: int) -> int:
    """Round up to two digits: more would promise too much."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
