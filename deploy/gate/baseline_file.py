"""``baseline.json``, and ``baseline.answers.npz`` beside it.

Schema ``strata.baseline/1``::

    {"schema": "strata.baseline/1",
     "rules": {"confidence": 0.95, "top1": 0.25, "agreement": 0.5, "sqnr": 1.0, "layers": 0.3},
     "data": {"name": …, "sha256": …, "images": …, "preprocess": …,
              "selected": null | n, "seed": 0, "labels_sha256": …, "classes": 10},
     "versions": {"strata": …, "onnxruntime": …, …},
     "models": [{"model": "int8.onnx", "sha256": …, "backend": …, "weights": …,
                 "metrics": {"top1": [0.9022, 0.8962, 0.9079], …},
                 "layers": null | {"images": 32, "sha256": …, "own_db": {"bn1": 48.67, …},
                                    "scales": {"input": 0.0187, …}}}, …],
     "answers_sha256": …, "seal": …}

A metric is [value, low, high]. The ``rules`` may be edited by hand: they are policy. Everything
else was measured, and ``seal`` is a digest of it, so that an edit is noticed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.artifacts import read_json, sha256_bytes, sha256_file, write_bytes, write_text
from core.errors import EditedBaselineError, InputError, StrataError
from deploy.evaluation.predictions import Predictions
from deploy.evaluation.predictions_file import predictions_to_bytes, read_predictions
from deploy.gate.baseline import Baseline, Held, Layers, Selection, labels_digest
from deploy.gate.intervals import Interval
from deploy.gate.rules import Rules
from deploy.images import DataRecord
from deploy.numbers import json_number

__all__ = ["answers_path", "read_baseline", "write_baseline"]

SCHEMA = "strata.baseline/1"
_POLICY = ("rules", "seal")  # what the seal does not cover
_ROUNDED = 6  # digits of a metric
_AGAIN = "restore it from version control, or measure it again: strata baseline --update"


def answers_path(path: Path) -> Path:
    """Return where the answers of a baseline lie."""
    return path.with_name(f"{path.stem}.answers.npz")


def write_baseline(baseline: Baseline, answers: Predictions, path: Path) -> None:
    """Write both files, each whole or not at all; the answers take their place first.

    Raises:
        OutputError: One cannot be written.
    """
    packed = predictions_to_bytes(answers)
    value = _to_json(baseline) | {"answers_sha256": sha256_bytes(packed)}
    text = json.dumps(value | {"seal": _seal(value)}, indent=2, ensure_ascii=False, allow_nan=False)
    # A metric on one line. A text cannot match: JSON has no line break inside one.
    number = r'(?:-?[\d.e+-]+|"-?Infinity"|"NaN")'
    triple = re.compile(rf"\[\n\s+({number}),\n\s+({number}),\n\s+({number})\n\s+\]")
    write_bytes(answers_path(path), packed)
    write_text(path, triple.sub(r"[\1, \2, \3]", text) + "\n")


def read_baseline(path: Path) -> tuple[Baseline, Predictions]:
    """Read a baseline and its answers, and check that they belong together.

    Raises:
        InputError: Missing, unreadable, or not a baseline.
        EditedBaselineError: What was measured was changed, or the answers are others.
    """
    value = read_json(path, what="baseline")
    if value.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema {value.get('schema')!r}, not {SCHEMA!r}",
            hint="make it again: strata baseline REFERENCE CANDIDATE… -o " + path.name,
        )
    if value.get("seal") != _seal(value):
        raise EditedBaselineError(
            f"{path}: what it says of a measurement was changed afterwards (its seal does not "
            "fit); only its rules may be edited",
            hint=_AGAIN,
        )
    try:
        baseline = _from_json(value)
    except (
        *(KeyError, TypeError, ValueError, AttributeError, OverflowError),
        StrataError,
    ) as err:
        raise InputError(
            f"{path}: not a baseline ({type(err).__name__}: {err})",
            hint="check its rules; or restore it, or make it again with strata baseline",
        ) from err
    return baseline, _answers(path, baseline)


def _answers(path: Path, baseline: Baseline) -> Predictions:
    """Read the answers beside a baseline."""
    beside = answers_path(path)
    if not beside.is_file():
        raise InputError(
            f"{beside}: is missing; {path.name} says what must hold, this file of which images",
            hint="commit both files; or measure them again: strata baseline --update",
        )
    if sha256_file(beside) != baseline.answers_sha256:
        raise EditedBaselineError(
            f"{beside}: is not the file that {path.name} was measured with (sha256 "
            f"{sha256_file(beside)[:12]}…, not {baseline.answers_sha256[:12]}…)",
            hint=_AGAIN,
        )
    answers = read_predictions(beside)
    models = [(held.model, held.sha256) for held in baseline.models]
    if models != [(m.name, m.sha256) for m in answers.models] or (
        baseline.labels_sha256 != labels_digest(answers.images.keys)
    ):
        raise EditedBaselineError(f"{beside}: is of other models or labels", hint=_AGAIN)
    return answers


def _seal(value: Mapping[str, Any]) -> str:
    """Return a digest of what was measured."""
    measured = {key: v for key, v in value.items() if key not in _POLICY}
    text = json.dumps(measured, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _to_json(baseline: Baseline) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "rules": baseline.rules.to_json(),
        "data": baseline.data.to_json()
        | {
            "selected": baseline.selection.images,
            "seed": baseline.selection.seed,
            "labels_sha256": baseline.labels_sha256,
            "classes": baseline.classes,
        },
        "versions": dict(baseline.versions),
        "models": [_held_to_json(held) for held in baseline.models],
    }


def _held_to_json(held: Held) -> dict[str, Any]:
    layers = held.layers
    return {
        "model": held.model,
        "sha256": held.sha256,
        "backend": held.backend,
        "weights": held.weights,
        "metrics": {
            name: [_number(v) for v in (metric.value, metric.low, metric.high)]
            for name, metric in held.metrics.items()
        },
        "layers": layers
        and {
            "images": layers.images,
            "sha256": layers.sha256,
            "own_db": {name: _number(db, 3) for name, db in layers.own_db.items()},
            "scales": {name: _number(v, 9) for name, v in layers.scales.items()},
        },
    }


def _number(value: float, digits: int = _ROUNDED) -> float | str:
    return json_number(round(value, digits) if math.isfinite(value) else value)


def _from_json(value: Mapping[str, Any]) -> Baseline:
    data = value["data"]
    selected = data["selected"]
    return Baseline(
        data=DataRecord.from_json(data),
        selection=Selection(None if selected is None else int(selected), int(data["seed"])),
        labels_sha256=str(data["labels_sha256"]),
        classes=int(data["classes"]),
        models=tuple(_held_from_json(held) for held in value["models"]),
        versions={str(name): str(v) for name, v in value["versions"].items()},
        rules=Rules.from_json(value["rules"]),
        answers_sha256=str(value["answers_sha256"]),
    )


def _held_from_json(value: Mapping[str, Any]) -> Held:
    layers = value["layers"]
    model, sha256, backend, weights = (
        str(value[key]) for key in ("model", "sha256", "backend", "weights")
    )
    return Held(
        *(model, sha256, backend, weights),
        metrics={name: Interval(*map(float, triple)) for name, triple in value["metrics"].items()},
        layers=layers
        and Layers(
            int(layers["images"]),
            str(layers["sha256"]),
            *(
                {str(name): float(value) for name, value in layers[key].items()}
                for key in ("own_db", "scales")
            ),
        ),
    )
