"""``layers.json``: a comparison as a file.

Schema ``strata.layers/1``::

    {"schema": "strata.layers/1",
     "reference": {"file": …, "sha256": …, "stage": …}, "candidate": {the same},
     "data": {"name": …, "sha256": …, "images": …, "preprocess": …},
     "rows": [{"tensor": …, "status": …, "into": …,
               "reference": {"node": …, "op": …, "type": …, "shape": ["N", …]}, "candidate": {…},
               "inherited": {"sqnr_db": …, "cosine": …, "max_abs": …}, "own": {…}}, …]}

Rows stand in the order of the graph. What is not known is null; NaN and infinities are
written by :func:`~deploy.numbers.json_number`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.artifacts import read_json, write_json
from core.errors import InputError
from deploy.comparison.report import LayerDiff, Made, Measures, Report, Status, Subject
from deploy.images import DataRecord
from deploy.numbers import json_number

__all__ = ["SCHEMA", "read_report", "report_to_json", "write_report"]

SCHEMA = "strata.layers/1"


def write_report(report: Report, path: Path) -> None:
    """Write ``layers.json``, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_json(path, report_to_json(report))


def report_to_json(report: Report) -> dict[str, Any]:
    """Return a report as the JSON object that the module describes."""
    return {
        "schema": SCHEMA,
        "reference": _subject_to_json(report.reference),
        "candidate": _subject_to_json(report.candidate),
        "data": report.data.to_json(),
        "rows": [_row_to_json(row) for row in report.rows],
    }


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
        return Report(
            reference=_subject_from_json(value["reference"]),
            candidate=_subject_from_json(value["candidate"]),
            data=DataRecord.from_json(value["data"]),
            rows=tuple(_row_from_json(row) for row in value["rows"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InputError(
            f"{path}: not a comparison ({type(err).__name__}: {err})",
            hint="remove it and make it again with strata compare",
        ) from err


def _subject_to_json(subject: Subject) -> dict[str, Any]:
    return {"file": subject.file, "sha256": subject.sha256, "stage": subject.stage}


def _subject_from_json(value: Mapping[str, Any]) -> Subject:
    return Subject(value["file"], value["sha256"], value["stage"])


def _row_to_json(row: LayerDiff) -> dict[str, Any]:
    return {
        "tensor": row.tensor,
        "status": row.status.value,
        "into": row.into,
        "reference": _made_to_json(row.reference),
        "candidate": _made_to_json(row.candidate),
        "inherited": _measures_to_json(row.inherited),
        "own": _measures_to_json(row.own),
    }


def _row_from_json(value: Mapping[str, Any]) -> LayerDiff:
    return LayerDiff(
        tensor=value["tensor"],
        status=Status(value["status"]),
        reference=_made_from_json(value["reference"]),
        candidate=_made_from_json(value["candidate"]),
        into=value["into"],
        inherited=_measures_from_json(value["inherited"]),
        own=_measures_from_json(value["own"]),
    )


def _made_to_json(made: Made | None) -> dict[str, Any] | None:
    if made is None:
        return None
    shape = None if made.shape is None else list(made.shape)
    return {"node": made.node, "op": made.op_type, "type": made.dtype, "shape": shape}


def _made_from_json(value: Mapping[str, Any] | None) -> Made | None:
    if value is None:
        return None
    shape = None if value["shape"] is None else tuple(value["shape"])
    return Made(value["node"], value["op"], value["type"], shape)


def _measures_to_json(measures: Measures | None) -> dict[str, Any] | None:
    """Return the measures to the digits that mean something, so that files can be diffed."""
    if measures is None:
        return None
    return {
        "sqnr_db": json_number(round(measures.sqnr_db, 3)),
        "cosine": json_number(round(measures.cosine, 8)),
        "max_abs": json_number(float(f"{measures.max_abs:.6g}")),
    }


def _measures_from_json(value: Mapping[str, Any] | None) -> Measures | None:
    if value is None:
        return None
    return Measures(*(float(value[key]) for key in ("sqnr_db", "cosine", "max_abs")))
