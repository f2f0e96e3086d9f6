"""What an evaluation comes to: right answers, loss, calibration, classes.

Source: expected calibration error by C. Guo, G. Pleiss, Y. Sun, K. Weinberger, "On
Calibration of Modern Neural Networks", 2017, section 2, with their 15 bins.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from deploy.evaluation.accuracy import Accuracy, Answers, Changed, ClassRow
from deploy.evaluation.predictions import ModelAnswers, Predictions

__all__ = ["TOP", "accuracy_of", "calibration_error", "confusion"]

TOP = 5
_BINS = 15


def accuracy_of(predictions: Predictions) -> Accuracy:
    """Sum up predictions."""
    first = predictions.models[0]
    models = tuple(_answers(predictions, model, first) for model in predictions.models)
    return Accuracy(predictions.data, models)


def _answers(predictions: Predictions, model: ModelAnswers, first: ModelAnswers) -> Answers:
    """Sum up what a model answered."""
    changed = None
    if model.sqnr_db is not None:
        count = int((model.answer != first.answer).sum())
        changed = Changed(count, float(np.median(model.sqnr_db.astype(np.float64))))
    return Answers(
        model=model.name,
        sha256=model.sha256,
        backend=model.backend,
        top1=int(model.right.sum()),
        top5=int((model.rank < TOP).sum()),
        loss=float(model.loss.mean(dtype=np.float64)),
        changed=changed,
        ece=calibration_error(model),
        classes=_classes(predictions, model),
    )


def calibration_error(model: ModelAnswers) -> float:
    """Return the expected calibration error, 0 to 1.

    The images are put in 15 bins by how sure the answer is; in each, the mean probability
    and the share of right answers should be equal.
    """
    bins = np.clip(np.ceil(model.confidence.astype(np.float64) * _BINS) - 1, 0, _BINS - 1)
    counted = [
        np.bincount(bins.astype(np.int64), weights=values, minlength=_BINS)
        for values in (model.confidence.astype(np.float64), model.right.astype(np.float64))
    ]
    return float(np.abs(counted[0] - counted[1]).sum() / len(bins))


def confusion(predictions: Predictions, model: ModelAnswers) -> npt.NDArray[np.int64]:
    """Return how often class i was answered with class j: (classes, classes)."""
    size = predictions.classes
    cells = predictions.images.labels * size + model.answer
    return np.bincount(cells, minlength=size * size).reshape(size, size)


def _classes(predictions: Predictions, model: ModelAnswers) -> tuple[ClassRow, ...]:
    """Return a row for each class that has images or was answered."""
    size = predictions.classes
    labels = predictions.images.labels
    images = np.bincount(labels, minlength=size)
    answered = np.bincount(model.answer, minlength=size)
    right = np.bincount(labels[model.right], minlength=size)
    return tuple(
        ClassRow(
            predictions.images.name(label),
            int(images[label]),
            int(right[label]),
            int(answered[label]),
            _taken_for(predictions, model, label),
        )
        for label in map(int, np.flatnonzero(images + answered))
    )


def _taken_for(predictions: Predictions, model: ModelAnswers, label: int) -> dict[str, int]:
    """Return what a class was taken for: class → images, most first."""
    wrong = model.answer[(predictions.images.labels == label) & ~model.right]
    found, counts = np.unique(wrong, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {predictions.images.name(int(found[at])): int(counts[at]) for at in order}
