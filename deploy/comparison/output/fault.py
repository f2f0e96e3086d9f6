"""The error of a comparison that does not hold: the first layer at fault, and what to do."""

from __future__ import annotations

from core.errors import AccuracyError
from deploy.comparison.output.numbers_text import row_text
from deploy.comparison.values.report import Report

__all__ = ["fault_of"]


def fault_of(report: Report) -> AccuracyError:
    """Return the error that names the first tensor out of bounds.

    Args:
        report: One that does not hold.
    """
    step = next(at for at, verdict in enumerate(report.verdicts) if not verdict.holds)
    verdict, name = report.verdicts[step], report.models[step + 1].name
    if verdict.blame:
        blame = next(b for b in verdict.blame if b.tensor == verdict.first)
        return AccuracyError(
            f"{name}: {blame.tensor}: {blame.reason}: {blame.text}", hint=blame.next_step
        )
    row = next(row for row in report.rows if row.tensor == verdict.first_below)
    worst = next(iter(report.worst(1, own=True, step=step)), row)
    return AccuracyError(
        f"{name}: {row.tensor}: {row_text(row.cells[step])}; "
        f"the floor is {report.bounds.floor_db:g} dB",
        hint=f"largest own error: {worst.tensor} ({row_text(worst.cells[step])}); keep a layer "
        "in float, or calibrate it by another method",
    )
