"""Where the errors of a step go in its plot along the depth of the network.

Heights are the same in a plot for a wide screen and in one for a phone; only the pitch of the
columns differs. All in pixels of the picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from deploy.comparison.values.measures import Errors, Status
from deploy.comparison.values.report import Report, Row

__all__ = ["HEIGHT", "NARROW", "WIDE", "Frame", "Scale", "columns_of", "scale_of", "stages_of"]

HEIGHT = 346
TOP, BOTTOM = 56, 308  # of the part where decibels are told apart
_BEST, _WORST = 40, 326  # lanes for what is beyond: equal or nearly, NaN or not comparable
_ROUNDED_DB, _FLOAT_DB = 80.0, 100.0  # layers that round to fewer bits; rounding of floats
_ELSEWHERE = {Status.ABSENT, Status.ONLY_IN_REFERENCE, Status.ONLY_IN_CANDIDATE}


@dataclass(frozen=True, slots=True)
class Frame:
    """The width of a plot.

    Attributes:
        name: Of its class in the style sheet.
        width: Of the picture.
        left: Of the first column: room for the decibels.
    """

    name: str
    width: int
    left: int

    def pitch(self, columns: int) -> float:
        """Return the width of a column."""
        return (self.width - self.left - 6) / max(columns, 1)

    def middle(self, column: int, columns: int) -> float:
        """Return the middle of a column."""
        return self.left + (column + 0.5) * self.pitch(columns)


WIDE = Frame("wide", 1120, 44)
NARROW = Frame("narrow", 358, 36)


@dataclass(frozen=True, slots=True)
class Scale:
    """From decibels to heights; more is better and higher.

    Attributes:
        low: Decibels at the lower edge.
        high: At the upper edge; what is above shares one lane with what is equal.
    """

    low: float
    high: float

    def height(self, sqnr_db: float) -> float:
        """Return where an SQNR is drawn."""
        if math.isnan(sqnr_db):
            return _WORST
        if sqnr_db > self.high:
            return _BEST
        share = max((sqnr_db - self.low) / (self.high - self.low), 0.0)
        return BOTTOM - share * (BOTTOM - TOP)

    def at(self, errors: Errors | None) -> float | None:
        """Return where errors are drawn."""
        return None if errors is None else round(self.height(errors.sqnr_db), 1)

    def ticks(self) -> list[int]:
        """Return the decibels that have a line."""
        span = self.high - self.low
        every = next((step for step in (5, 10, 20, 50, 100) if span / step <= 7), 200)
        first = math.ceil(self.low / every) * every
        return list(range(first, int(self.high) + 1, every))


def columns_of(report: Report, step: int) -> list[int]:
    """Return the rows that have a column in a step: the tensors that both sides have."""
    return [at for at, row in enumerate(report.rows) if row.cells[step].status not in _ELSEWHERE]


def scale_of(report: Report, step: int) -> Scale:
    """Return the scale that shows what differs in a step.

    Where layers round to codes or halves, an operator that only rounds in float is 100 dB and
    more above them, and its exact height tells nobody anything.
    """
    values = sorted(value for value in _values(report, step) if math.isfinite(value))
    if not values:
        return Scale(0.0, 100.0)
    told = [value for value in values if value < _FLOAT_DB] if values[0] < _ROUNDED_DB else values
    high = 10.0 * math.ceil(told[-1] / 10.0)
    return Scale(min(10.0 * math.floor(told[0] / 10.0), high - 30.0), high)


def _values(report: Report, step: int) -> Iterator[float]:
    blamed = {blame.tensor for blame in report.verdicts[step].blame}
    for row in report.rows:
        cell = row.cells[step]
        if cell.codes is not None and row.tensor in blamed:
            yield cell.codes.rounding_db
        for errors in (cell.own, cell.inherited):
            if errors is not None:
                yield errors.sqnr_db
        if cell.explained is not None and cell.explained.expected_db is not None:
            yield cell.explained.expected_db


def stages_of(report: Report, columns: list[int]) -> list[tuple[str, int, int]]:
    """Return (stage, its first column, how many) along the columns."""
    found, start = [], 0
    for stage, group in groupby(columns, key=lambda at: _row(report, at).stage):
        count = len(list(group))
        found.append((stage, start, count))
        start += count
    return found


def _row(report: Report, at: int) -> Row:
    return report.rows[at]
