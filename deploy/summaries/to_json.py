"""A summary for machines: ``strata summary --json``."""

from __future__ import annotations

from typing import Any

from deploy.comparison.values.report import Report, Row
from deploy.engines.manifest import Manifest
from deploy.evaluation.accuracy import accuracy_to_json
from deploy.numbers import json_number
from deploy.summaries.summary import Summary

__all__ = ["summary_to_json"]

SCHEMA = "strata.summary/1"
_WORST = 10


def summary_to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as a JSON object; null for what was not made."""
    table = summary.calibration
    return {
        "schema": SCHEMA,
        "folder": str(summary.folder),
        "weights": dict(summary.weights),
        "synthetic": summary.synthetic,
        "caveats": list(summary.caveats),
        "calibration": table
        and {
            "method": table.method,
            "images": table.images,
            "images_sha256": table.images_sha256,
            "tensors": len(table.tensors),
        },
        "accuracy": summary.accuracy and accuracy_to_json(summary.accuracy),
        "layers": summary.layers and _layers(summary.layers),
        "engines": {name: _engine(manifest) for name, manifest in summary.engines.items()},
        "stages": [
            {"stage": stage.name, "files": dict(stage.files), "seconds": stage.seconds}
            for stage in summary.stages
        ],
    }


def _layers(report: Report) -> dict[str, Any]:
    own = report.has_own()
    return {
        "reference": report.reference.name,
        "candidate": report.candidate.name,
        "images": report.data.images,
        "compared": len(report.compared()),
        "median_db": _number(report.median_db(own=False)),
        "median_own_db": _number(report.median_db(own=True)),
        "worst": [_row(row) for row in report.worst(_WORST, own=own)],
    }


def _row(row: Row) -> dict[str, Any]:
    inherited, own = row.cells[-1].inherited, row.cells[-1].own
    return {
        "tensor": row.tensor,
        "op": row.op,
        "sqnr_db": _number(inherited.sqnr_db if inherited else None),
        "own_db": _number(own.sqnr_db if own else None),
    }


def _engine(manifest: Manifest) -> dict[str, Any]:
    return {
        "sha256": manifest.plan_sha256,
        "flavour": manifest.flavour,
        "version": manifest.version,
        "targets": list(manifest.targets),
        "int8_layers": manifest.count("int8"),
    }


def _number(value: float | None) -> float | str | None:
    return None if value is None else json_number(round(value, 3))
