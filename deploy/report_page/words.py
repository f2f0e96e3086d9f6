"""Numbers and verdicts of a comparison as words."""

from __future__ import annotations

import math
from collections import Counter

from deploy.comparison.output.numbers_text import db_phrase
from deploy.comparison.values.measures import Cell, Place
from deploy.comparison.values.report import Report, Row
from deploy.comparison.values.verdict import Verdict

__all__ = [
    "beyond_text",
    "bound_db",
    "brief",
    "excess_text",
    "number",
    "place_text",
    "precisions",
    "share",
    "step_name",
    "verdict_text",
]


def step_name(report: Report, step: int) -> str:
    """Return ``optimized.onnx → int8.onnx``."""
    return f"{report.models[step].name} → {report.models[step + 1].name}"


def share(value: float | None) -> str:
    """Return a share in percent, as exact as it is near to none or all."""
    if value is None or math.isnan(value):
        return "–"
    near = min(value, 1.0 - value)
    digits = 0 if near == 0.0 else 2 if near >= 1e-4 else 4
    return f"{100.0 * value:.{digits}f} %"


def number(value: float | None) -> str:
    """Return a value in a tensor's own units."""
    return "–" if value is None else f"{value:.4g}".replace("-", "−")


def excess_text(value: float | None) -> str:
    """Return how far an error is beyond what explains it, signed."""
    if value is None:
        return "–"
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "none"
    return f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"


def beyond_text(value: float | None) -> str:
    """Return the same with its unit, for a sentence."""
    said = excess_text(value)
    return f"{said} dB" if said[-1:].isdigit() else said


def place_text(place: Place | None) -> str:
    """Return ``image 12, channel 3, y 5, x 9``."""
    if place is None:
        return "nowhere"
    words = ("channel", "y", "x") if len(place.index) <= 3 else ()
    named = [f"{word} {at}" for word, at in zip(words, place.index, strict=False)]
    rest = [str(at) for at in place.index] if not words else []
    return ", ".join([f"image {place.image}", *named, *rest])


def brief(cell: Cell) -> str:
    """Say in a few words how far a tensor is off."""
    if cell.inherited is None and cell.own is None:
        into = f", folded into {cell.into}" if cell.into else ""
        return f"{cell.status.value}{into}"
    parts = [
        f"{kind} {db_phrase(errors.sqnr_db)}"
        for kind, errors in (("own", cell.own), ("inherited", cell.inherited))
        if errors is not None
    ]
    return ", ".join(parts)


def bound_db(report: Report, row: Row, step: int) -> float | None:
    """Return the own SQNR that a layer is held to in a step; None when it is held to none."""
    made, cell = row.made[step + 1], row.cells[step]
    if made is None or made.precision is None or cell.explained is None:
        return None
    expected = cell.explained.expected_db
    if expected is None:
        return report.bounds.own_db.get(made.precision)
    allowed = report.bounds.excess_db.get(made.precision)
    return None if allowed is None else expected - allowed


def precisions(report: Report, model: int) -> str:
    """Return ``54 INT8, 12 FP32``: how many layers of a model compute in what."""
    kinds = Counter(
        made.precision for row in report.rows if (made := row.made[model]) and made.precision
    )
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()) or "–"


def verdict_text(report: Report, step: int) -> str:
    """Say what is concluded of a step where no layer is to blame, in a sentence."""
    verdict: Verdict = report.verdicts[step]
    floor = report.bounds.floor_db
    if verdict.first_below is not None:
        return f"{verdict.first_below} is the first tensor below {floor:g} dB."
    if verdict.first is not None:
        return f"{verdict.first} is the first tensor at fault."
    below = f" No tensor is below {floor:g} dB." if floor is not None else ""
    if not report.has_own(step):
        return f"Own errors were not measured, so no layer is judged.{below}"
    return f"No layer to blame: each does what its precision and scales explain.{below}"
