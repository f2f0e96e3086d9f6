"""Decibels, shapes, operators and bars as text."""

from __future__ import annotations

import math

from deploy.comparison.values.measures import Cell
from deploy.comparison.values.report import Row

__all__ = ["bar", "db_phrase", "db_text", "op_text", "row_text", "shape_text"]

_CLEAN_DB = 80.0  # from here on a bar is empty
_SHORT = {
    "AveragePool": "AvgPool",
    "BatchNormalization": "BatchNorm",
    "DequantizeLinear": "Dequantize",
    "GlobalAveragePool": "GlobalPool",
    "LayerNormalization": "LayerNorm",
    "QuantizeLinear": "Quantize",
}
_EIGHTHS = " ▏▎▍▌▋▊▉█"


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


def row_text(cell: Cell) -> str:
    """Say both errors of a row in a few words."""
    inherited = cell.inherited.sqnr_db if cell.inherited else None
    own = f", own {db_phrase(cell.own.sqnr_db)}" if cell.own else ""
    return f"inherited {db_phrase(inherited)}{own}"


def shape_text(row: Row) -> str:
    """Write the shape for one image: 64×56×56."""
    return "×".join(str(size) for size in (row.shape or ())[1:])


def bar(sqnr_db: float | None, width: int) -> str:
    """Draw an error: nothing at 80 dB and above, full at 0 dB, below it, and for NaN.

    Args:
        sqnr_db: None draws nothing.
        width: Columns of a full bar.
    """
    if sqnr_db is None:
        return ""
    share = 1.0 if math.isnan(sqnr_db) else min(max(1.0 - sqnr_db / _CLEAN_DB, 0.0), 1.0)
    eighths = round(share * width * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def op_text(op: str, width: int) -> str:
    """Return an operator's name in so many columns: the usual short form, or its beginning."""
    if len(op) > width:
        op = _SHORT.get(op, op)
    return op if len(op) <= width else f"{op[: width - 1]}…"
