"""Floats in JSON: it has no word for NaN and infinities, so they travel as strings."""

from __future__ import annotations

import math

__all__ = ["json_number"]


def json_number(value: float) -> float | str:
    """Return a float as JSON can say it.

    NaN and infinities become "NaN", "Infinity" and "-Infinity", which ``float()`` of Python
    and ``Number()`` of JavaScript both read.
    """
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
