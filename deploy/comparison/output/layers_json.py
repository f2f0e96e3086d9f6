"""``layers.json``: a comparison as a file, schema ``strata.layers/2`` (``docs/layers.md``).

The fields are those of :class:`~deploy.comparison.values.report.Report` and of the values in it, by
name. What is not known is null; NaN and infinities are written by
:func:`~deploy.numbers.json_number`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.artifacts import read_json, write_json
from core.errors import InputError
from deploy.comparison.output.codec import from_json, to_json
from deploy.comparison.values.report import Report

__all__ = ["SCHEMA", "read_report", "report_to_json", "write_report"]

SCHEMA = "strata.layers/2"


def write_report(report: Report, path: Path) -> None:
    """Write ``layers.json``, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_json(path, report_to_json(report))


def report_to_json(report: Report) -> dict[str, Any]:
    """Return a report as the JSON object that ``docs/layers.md`` describes."""
    return {"schema": SCHEMA, **to_json(report)}


def read_report(path: Path) -> Report:
    """Read ``layers.json``.

    Raises:
        InputError: Missing, of another schema, or not what :func:`write_report` writes.
    """
    value = read_json(path, what="comparison")
    if value.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema {value.get('schema')!r}, not {SCHEMA!r}",
            hint="make it again: strata compare REFERENCE CANDIDATE --json " + path.name,
        )
    try:
        report: Report = from_json(Report, value)
        _check(report)
    except (KeyError, TypeError, ValueError, OverflowError) as err:
        raise InputError(
            f"{path}: not a comparison ({type(err).__name__}: {err})",
            hint="remove it and make it again with strata compare",
        ) from err
    return report


def _check(report: Report) -> None:
    """Refuse a file whose lists are not as long as each other."""
    models, steps = len(report.models), report.steps
    lengths = (len(report.verdicts), *(len(row.cells) for row in report.rows))
    sides = [len(row.made) for row in report.rows] + [len(a.top) for a in report.answers]
    if steps < 1 or set(lengths) != {steps} or not set(sides) <= {models}:
        raise ValueError(f"lists that do not fit {models} models")
