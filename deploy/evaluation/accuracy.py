"""The values of an evaluation, and ``accuracy.json``.

Schema ``strata.accuracy/2``::

    {"schema": "strata.accuracy/2",
     "data": {"name": …, "sha256": …, "images": …, "preprocess": …},
     "models": [{"model": "optimized.onnx", "sha256": …, "backend": "onnxruntime",
                 "top1": 8841, "top5": 9975, "loss": 0.345, "ece": 0.012,
                 "changed": null | {"answers": 31, "sqnr_db": 38.2},
                 "classes": [{"class": "Shirt", "images": 1000, "right": 712, "answered": 930,
                              "taken_for": {"T-shirt/top": 121, …}}, …]}, …],
     "not_run": [{"model": "int8.engine", "why": …}, …]}

top1 and top5 count right answers; ece is the expected calibration error; changed is against
the first model; taken_for is a row of the confusion table without its right answers. What only
decibels can say may be a string (see :func:`~deploy.numbers.json_number`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from core.artifacts import read_json, write_json
from core.errors import InputError
from deploy.images import DataRecord
from deploy.numbers import json_number

__all__ = [
    "Accuracy",
    "Answers",
    "Changed",
    "ClassRow",
    "NotRun",
    "accuracy_to_json",
    "read_accuracy",
    "write_accuracy",
]

SCHEMA = "strata.accuracy/2"


@dataclass(frozen=True, slots=True)
class Changed:
    """How one model's answers differ from the first one's.

    Attributes:
        answers: Images with another top-1 class.
        sqnr_db: Median over the images of the logits' SQNR.
    """

    answers: int
    sqnr_db: float


@dataclass(frozen=True, slots=True)
class ClassRow:
    """How the images of one class were answered.

    Attributes:
        name: The class.
        images: How many images it has.
        right: How many of them were answered rightly.
        answered: How many images, right or wrong, were taken for this class.
        taken_for: Other class → how many of its images were taken for that, most first.
    """

    name: str
    images: int
    right: int
    answered: int
    taken_for: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NotRun:
    """A model that was asked for and could not run here: its name, and why."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Answers:
    """How one model answered.

    Attributes:
        model: Its name.
        sha256: Its digest.
        backend: What ran it.
        top1: Images whose class had the largest logit.
        top5: Images whose class was among the five largest.
        loss: Mean cross-entropy, in nats.
        changed: Against the first model; None for the first itself.
        ece: Expected calibration error, 0 to 1; None when it was not measured.
        classes: Class by class.
    """

    model: str
    sha256: str
    backend: str
    top1: int
    top5: int
    loss: float
    changed: Changed | None = None
    ece: float | None = None
    classes: tuple[ClassRow, ...] = ()


@dataclass(frozen=True, slots=True)
class Accuracy:
    """An evaluation: on which images, how each model answered, and which could not run."""

    data: DataRecord
    models: tuple[Answers, ...]
    not_run: tuple[NotRun, ...] = ()


def write_accuracy(accuracy: Accuracy, path: Path) -> None:
    """Write ``accuracy.json``, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_json(path, accuracy_to_json(accuracy))


def accuracy_to_json(accuracy: Accuracy) -> dict[str, Any]:
    """Return an evaluation as the JSON object that the module describes."""
    return {
        "schema": SCHEMA,
        "data": accuracy.data.to_json(),
        "models": [_answers_to_json(answers) for answers in accuracy.models],
        "not_run": [asdict(missing) for missing in accuracy.not_run],
    }


def read_accuracy(path: Path) -> Accuracy:
    """Read ``accuracy.json``.

    Raises:
        InputError: Missing, of another schema, or not what :func:`write_accuracy` writes.
    """
    value = read_json(path, what="evaluation")
    if value.get("schema") != SCHEMA:
        raise InputError(
            f"{path}: schema {value.get('schema')!r}, not {SCHEMA!r}",
            hint=f"make it again: strata evaluate MODEL… --json {path.name}",
        )
    try:
        models = tuple(_answers_from_json(answers) for answers in value["models"])
        not_run = tuple(NotRun(str(m["model"]), str(m["why"])) for m in value["not_run"])
        return Accuracy(DataRecord.from_json(value["data"]), models, not_run)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise InputError(
            f"{path}: not an evaluation ({type(err).__name__}: {err})",
            hint="remove it and make it again with strata evaluate",
        ) from err


def _answers_to_json(answers: Answers) -> dict[str, Any]:
    changed = answers.changed
    return {
        "model": answers.model,
        "sha256": answers.sha256,
        "backend": answers.backend,
        "top1": answers.top1,
        "top5": answers.top5,
        "loss": json_number(round(answers.loss, 6)),
        "ece": None if answers.ece is None else round(answers.ece, 6),
        "changed": changed
        and {"answers": changed.answers, "sqnr_db": json_number(round(changed.sqnr_db, 3))},
        "classes": [
            {
                "class": row.name,
                "images": row.images,
                "right": row.right,
                "answered": row.answered,
                "taken_for": dict(row.taken_for),
            }
            for row in answers.classes
        ],
    }


def _answers_from_json(value: Mapping[str, Any]) -> Answers:
    changed = value["changed"]
    return Answers(
        model=str(value["model"]),
        sha256=str(value["sha256"]),
        backend=str(value["backend"]),
        top1=int(value["top1"]),
        top5=int(value["top5"]),
        loss=float(value["loss"]),
        changed=None
        if changed is None
        else Changed(int(changed["answers"]), float(changed["sqnr_db"])),
        ece=None if value["ece"] is None else float(value["ece"]),
        classes=tuple(map(_class_from_json, value["classes"])),
    )


def _class_from_json(value: Mapping[str, Any]) -> ClassRow:
    images, right, answered = (int(value[key]) for key in ("images", "right", "answered"))
    taken = {str(name): int(count) for name, count in value["taken_for"].items()}
    return ClassRow(str(value["class"]), images, right, answered, taken)
