"""A comparison as text for people: at most 100 columns, worst tensors first."""

from __future__ import annotations

import math
from collections import Counter

from deploy.comparison.report import LayerDiff, Measures, Report, Status
from deploy.inspect.columns import columns

__all__ = ["db_phrase", "db_text", "report_text", "row_text", "shape_text"]

_HEADER = ("tensor", "operator", "shape", "inh. dB", "own dB", "cosine", "max abs")
_WIDTHS = (28, 17, 13, 7, 7, 8, 8)  # with two spaces between: 100
_NUMBERS = 4  # of the columns, on the right


def report_text(report: Report, *, top: int, floor_db: float | None) -> str:
    """Return a report as text.

    Args:
        report: What to tell.
        top: Rows of the table.
        floor_db: Also tell the first tensor whose inherited SQNR is below it; None for not.
    """
    own = any(row.own for row in report.compared)
    rows = report.worst(top, own=own)
    lines = [
        f"{report.reference.file} → {report.candidate.file}: {_counts(report)}",
        f"on {report.data.images} images of {report.data.name}",
        "",
        columns(_HEADER, _WIDTHS, _NUMBERS),
        *(columns(_cells(row), _WIDTHS, _NUMBERS) for row in rows),
        "",
        f"worst {len(rows)} by {'own' if own else 'inherited'} error; "
        f"median inherited (inh.) {db_phrase(report.median_db(own=False))}"
        + (f", own {db_phrase(report.median_db(own=True))}" if own else ""),
    ]
    if floor_db is not None:
        lines.append(_verdict(report, floor_db))
    return "\n".join(lines)


def db_text(value: float | None) -> str:
    """Write decibels: two decimals, "equal" where nothing differs, "–" where unknown."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    return "equal" if value == math.inf else f"{value:.2f}"


def db_phrase(value: float | None) -> str:
    """Write decibels in a sentence."""
    text = db_text(value)
    return f"{text} dB" if text[-1:].isdigit() else text


def _counts(report: Report) -> str:
    """Say how many tensors were compared, and why the others were not."""
    counts = Counter(row.status for row in report.rows)
    folded = sum(row.into is not None for row in report.rows)
    others = [
        f"{counts[status]} {status.value}"
        + (f" ({folded} folded)" if status is Status.ONLY_IN_REFERENCE and folded else "")
        for status in Status
        if counts[status] and status is not Status.COMPARED
    ]
    return ", ".join([f"{counts[Status.COMPARED]} tensors compared", *others])


def _verdict(report: Report, floor_db: float) -> str:
    """Say which tensor is the first below the floor."""
    first = report.first_below(floor_db)
    if first is None:
        return f"no tensor below {floor_db:g} dB"
    return f"first below {floor_db:g} dB in graph order: {first.tensor} ({row_text(first)})"


def row_text(row: LayerDiff) -> str:
    """Say both errors of a row in a few words."""
    inherited = row.inherited.sqnr_db if row.inherited else None
    own = f", own {db_phrase(row.own.sqnr_db)}" if row.own else ""
    return f"inherited {db_phrase(inherited)}{own}"


def shape_text(row: LayerDiff) -> str:
    """Write the shape for one image: 64×56×56."""
    return "×".join(str(size) for size in (row.shape or ())[1:])


def _cells(row: LayerDiff) -> tuple[str, ...]:
    """Return the cells of a row."""
    measures = row.inherited or Measures(math.nan, math.nan, math.nan)
    return (
        row.tensor,
        row.op_type,
        shape_text(row),
        db_text(measures.sqnr_db),
        db_text(row.own.sqnr_db if row.own else None),
        f"{measures.cosine:.5f}",
        f"{measures.max_abs:.2g}",
    )
