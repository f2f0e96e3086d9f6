"""Accuracy over a labelled set of images, of several models at once.

The images stream: each batch is decoded once, answered by every model in turn, counted and
dropped. The first model is the one that the answers of the others are held against.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calib_data.sources import Labels, require_labels
from core.errors import GraphError, InputError
from core.progress import Progress, silent
from deploy.accuracy import Accuracy, Answers, Changed
from deploy.images import ImageRequest, Images, open_images
from deploy.runners import Model

__all__ = ["evaluate"]

_TOP = 5

Logits = npt.NDArray[np.float64]


@dataclass(slots=True)
class _Tally:
    """What one model has answered so far."""

    top1: int = 0
    top5: int = 0
    loss: float = 0.0  # sum, in nats
    changed: int = 0
    sqnr_db: list[Logits] = field(default_factory=list)

    def add(self, logits: Logits, labels: Labels) -> None:
        """Count a batch: logits (n, classes), labels (n,)."""
        rows = np.arange(len(labels))
        own = logits[rows, labels][:, None]
        # How many classes come before the right one; equal logits in order of class, as
        # argmax has it.
        earlier = np.arange(logits.shape[1]) < labels[:, None]
        rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
        self.top1 += int((rank == 0).sum())
        self.top5 += int((rank < _TOP).sum())
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(axis=1))
        self.loss += float((log_sum - shifted[rows, labels]).sum())

    def compare(self, logits: Logits, reference: Logits) -> None:
        """Hold a batch against the first model's: both (n, classes)."""
        self.changed += int((logits.argmax(axis=1) != reference.argmax(axis=1)).sum())
        noise = ((reference - logits) ** 2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):  # equal: infinite, 0/0 included
            ratio = np.where(noise == 0, np.inf, (reference**2).sum(axis=1) / noise)
            self.sqnr_db.append(10 * np.log10(ratio))


def evaluate(
    models: Sequence[Model], request: ImageRequest, *, progress: Progress = silent
) -> Accuracy:
    """Count the right answers of each model on the same labelled images.

    Args:
        models: One or more classifiers; the others are compared with the first.
        request: Which images.
        progress: Told the images done.

    Raises:
        InputError: No labels; labels of other classes than the models'; images that a
            model cannot take, or that two models want prepared differently.
        GraphError: A model failed, or answered with NaN or Inf.
    """
    images = open_images(request, {model.name: model.card.preprocess for model in models})
    labels = require_labels(images.source)
    tallies = [_Tally() for _ in models]
    done = 0
    for indices, batch in images.batches():
        reference: Logits | None = None
        for model, tally in zip(models, tallies, strict=True):
            logits = _answer(model, images, indices, batch)
            tally.add(logits, labels[indices])
            if reference is not None:
                tally.compare(logits, reference)
            else:
                reference = logits
        done += len(batch)
        progress(done, len(images))
    answers = tuple(map(_answers, models, tallies, [len(images)] * len(models)))
    return Accuracy(images.record(), answers)


def _answer(
    model: Model,
    images: Images,
    indices: npt.NDArray[np.int64],
    batch: npt.NDArray[np.float32],
) -> Logits:
    """Return a model's logits for a batch, once they make sense for these labels."""
    logits = model.logits(batch)
    names, labels = images.source.class_names, require_labels(images.source)
    classes = len(names) or int(labels.max()) + 1
    if logits.shape[1] != classes if names else logits.shape[1] < classes:
        raise InputError(
            f"{images.source.name} has {classes} classes, {model.name} answers "
            f"for {logits.shape[1]}",
            hint="evaluate on the data set whose classes the model knows",
        )
    bad = np.flatnonzero(~np.isfinite(logits).all(axis=1))
    if bad.size:
        raise GraphError(
            f"{model.name}: answers NaN or Inf for {images.source.where(int(indices[bad[0]]))}",
            hint="strata compare names the first tensor where they appear",
        )
    return logits


def _answers(model: Model, tally: _Tally, images: int) -> Answers:
    """Sum up what a model answered."""
    changed = None
    if tally.sqnr_db:
        changed = Changed(tally.changed, float(np.median(np.concatenate(tally.sqnr_db))))
    return Answers(
        model=model.name,
        sha256=model.sha256,
        backend=model.backend,
        top1=tally.top1,
        top5=tally.top5,
        loss=tally.loss / images,
        changed=changed,
    )
