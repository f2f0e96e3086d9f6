"""An evaluation as text for people: at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.comparison.output.numbers_text import db_text
from deploy.evaluation.accuracy import Accuracy, Answers, ClassRow
from deploy.inspect.columns import columns, fit, paragraph

__all__ = ["accuracy_text", "classes_text"]

_NAME_WIDTH = 28
_CLASS_WIDTHS = (20, 6, 8, 9)
_TAKEN = 3  # classes that one is taken for


def accuracy_text(accuracy: Accuracy) -> str:
    """Return an evaluation as a table."""
    images = accuracy.data.images
    names = [fit(answers.model, _NAME_WIDTH) for answers in accuracy.models]
    width = max(5, *map(len, names))
    lines = [
        f"{images} images of {accuracy.data.name}",
        "",
        f"{'model':<{width}}   top-1 %   top-5 %     loss    ECE %          changed   logits dB",
    ]
    for name, answers in zip(names, accuracy.models, strict=True):
        lines.append(f"{name:<{width}}  {_numbers(answers, images)}")
    lines += [paragraph(f"{missing.model}: not run: {missing.why}") for missing in accuracy.not_run]
    return "\n".join(lines)


def _numbers(a: Answers, images: int) -> str:
    """Return the cells of a model."""
    changed, decibels = "–", "–"
    if a.changed:
        changed = f"{a.changed.answers} ({a.changed.answers / images:.2%})"
        decibels = db_text(a.changed.sqnr_db)
    error = "–" if a.ece is None else f"{a.ece:.2%}"
    return (
        f"{a.top1 / images:8.2%}  {a.top5 / images:8.2%}  {a.loss:7.4f}  {error:>7}  "
        f"{changed:>15}  {decibels:>10}"
    )


def classes_text(accuracy: Accuracy) -> str:
    """Return a table of classes for each model."""
    return "\n\n".join("\n".join(_classes(answers)) for answers in accuracy.models)


def _classes(answers: Answers) -> Iterator[str]:
    yield fit(answers.model, 100)
    yield columns(("class", "images", "right", "precision"), _CLASS_WIDTHS, 3) + "  taken for"
    for row in answers.classes:
        shares = _share(row.right, row.images), _share(row.right, row.answered)
        cells = (row.name, str(row.images), *shares)
        yield f"{columns(cells, _CLASS_WIDTHS, 3)}  {_taken_for(row)}".rstrip()


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "–"


def _taken_for(row: ClassRow) -> str:
    """Say what a class is taken for most."""
    first = list(row.taken_for.items())[:_TAKEN]
    return ", ".join(f"{fit(name, 12)} {count}" for name, count in first)
