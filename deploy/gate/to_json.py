"""A check for machines.

Schema ``strata.check/1``::

    {"schema": "strata.check/1", "outcome": "held" | "regressed" | "cannot tell" | "not run" |
     "drift", "baseline": "baseline.json", "data": null | {…}, "rules": {…},
     "drift": null | {"kind": …, "problem": …, "hint": …, "exit_code": 12},
     "rows": [{"model": …, "metric": …, "outcome": …, "unit": …, "tolerance": …, "before": …,
               "now": …, "loss": …, "at_least": …, "at_most": …, "p": …, "needed": …,
               "note": …}, …],
     "layers": [{"model": …, "tensor": …, "before_db": …, "now_db": …}, …],
     "changed": [{"model": …, "image": …, "label": …, "answer": …}, …], "notes": […]}
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from deploy.gate.verdict import Verdict
from deploy.numbers import json_number

__all__ = ["verdict_to_json"]

SCHEMA = "strata.check/1"
_DIGITS = 6


def verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    """Return a check as the JSON object that the module describes."""
    return {
        "schema": SCHEMA,
        "outcome": verdict.outcome.value,
        "baseline": verdict.baseline,
        "data": verdict.data and verdict.data.to_json(),
        "rules": verdict.rules.to_json(),
        "drift": verdict.drift and asdict(verdict.drift),
        "rows": [_plain(asdict(row)) for row in verdict.rows],
        "layers": [_plain(asdict(move)) for move in verdict.layers],
        "changed": [asdict(changed) for changed in verdict.changed],
        "notes": list(verdict.notes),
    }


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """Write floats as JSON can say them."""
    return {
        key: json_number(v if abs(v) < 1e-6 else round(v, _DIGITS)) if isinstance(v, float) else v
        for key, v in value.items()
    }
