"""Run models over labelled images, and keep what they answer to each.

The images stream: each batch is decoded once, answered by every model in turn, and dropped.
What is kept is some 50 bytes an image, and the logits as long as they are few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from calib_data.sources import Labels, require_labels
from core.errors import GraphError, InputError
from core.progress import Progress, silent
from deploy.evaluation.predictions import ImageTable, ModelAnswers, Predictions, set_digest
from deploy.images import DataRecord, ImageRequest, Images, open_images
from deploy.runners import Model

__all__ = ["MOST_LOGITS", "open_part", "predict", "sqnr_db", "table_of", "weights_of"]

Logits = npt.NDArray[np.float64]

MOST_LOGITS = 4_000_000  # values of one model that are kept: 16 MB


@dataclass(slots=True)
class _Answered:
    """What one model has answered so far, batch by batch."""

    parts: dict[str, list[npt.NDArray[np.generic]]] = field(default_factory=dict)

    def add(self, logits: Logits, labels: Labels) -> None:
        """Note a batch: logits (n, classes), labels (n,)."""
        rows = np.arange(len(labels))
        own = logits[rows, labels][:, None]
        # How many classes come before the right one; equal logits in order of class, as
        # argmax has it.
        earlier = np.arange(logits.shape[1]) < labels[:, None]
        rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
        highest = logits.max(axis=1, keepdims=True)
        log_sum = np.log(np.exp(logits - highest).sum(axis=1))
        self._note("answer", logits.argmax(axis=1).astype(np.int32))
        self._note("rank", rank.astype(np.int32))
        self._note("loss", (log_sum - (own - highest)[:, 0]).astype(np.float32))
        self._note("confidence", np.exp(-log_sum).astype(np.float32))

    def compare(self, logits: Logits, reference: Logits) -> None:
        """Note a batch against the first model's: both (n, classes)."""
        self._note("sqnr_db", sqnr_db(reference, logits))

    def keep(self, logits: Logits) -> None:
        """Keep a batch of logits."""
        self._note("logits", logits.astype(np.float32))

    def _note(self, name: str, values: npt.NDArray[np.generic]) -> None:
        self.parts.setdefault(name, []).append(values)

    def answers(self, model: Model, order: npt.NDArray[np.int64]) -> ModelAnswers:
        """Return all of it, in order."""
        arrays = {name: np.concatenate(parts)[order] for name, parts in self.parts.items()}
        facts = (model.name, model.sha256, model.backend, weights_of(model))
        return ModelAnswers(*facts, **arrays)  # type: ignore[arg-type]


def predict(models: Sequence[Model], images: Images, *, progress: Progress = silent) -> Predictions:
    """Let each model answer the same labelled images.

    Args:
        models: One or more classifiers; the logits of the others are held against the first's.
        images: Which images (see :func:`open_part`).
        progress: Told the images done.

    Raises:
        InputError: No labels; labels of other classes than the models'; images that a
            model cannot take.
        GraphError: A model failed, or answered with NaN or Inf.
    """
    labels = require_labels(images.source)
    answered = [_Answered() for _ in models]
    classes = done = 0
    for indices, batch in images.batches():
        reference: Logits | None = None
        for model, kept in zip(models, answered, strict=True):
            logits = _answer(model, images, indices, batch)
            classes = logits.shape[1]
            kept.add(logits, labels[indices])
            if reference is None:
                reference = logits
            else:
                kept.compare(logits, reference)
            if classes * len(images) <= MOST_LOGITS:
                kept.keep(logits)
        done += len(batch)
        progress(done, len(images))
    order = np.argsort(images.indices, kind="stable")
    table = table_of(images)
    spec = images.spec.to_json() if images.spec else None
    data = DataRecord(images.source.name, set_digest(table.digests), len(table), spec)
    found = tuple(kept.answers(m, order) for m, kept in zip(models, answered, strict=True))
    return Predictions(data, classes, table, found)


def weights_of(model: Model) -> str:
    """Return the digest of the weights that a model says it has; empty when it does not say."""
    if model.card.stage == "weights":  # it is the weights
        return model.sha256
    return model.card.weights.get("sha256", "")


def open_part(
    models: Sequence[Model], request: ImageRequest, shard: tuple[int, int] = (1, 1)
) -> Images:
    """Open the images that were asked for, or a part of them.

    Args:
        models: Who is to answer.
        request: Which images.
        shard: (i, n): only every n-th of them, from the i-th on, counted from 1.

    Raises:
        InputError: No such data, an empty shard, or images that two models want prepared
            differently.
    """
    images = open_images(request, {model.name: model.card.preprocess for model in models})
    part, parts = shard
    mine = images.indices[part - 1 :: parts]
    if not len(mine):
        raise InputError(
            f"shard {part}/{parts} of {len(images)} images is empty", hint="make fewer shards"
        )
    return Images(images.source, mine, images.spec, images.batch)


def table_of(images: Images) -> ImageTable:
    """Return the images one by one, in the order of their source.

    Raises:
        InputError: No labels, or an image that cannot be read.
    """
    indices = np.sort(images.indices, kind="stable")
    source = images.source
    digests = b"".join(bytes.fromhex(source.digest(int(index))) for index in indices)
    rows = np.frombuffer(digests, np.uint8).reshape(-1, 32)
    return ImageTable(indices, rows, require_labels(source)[indices], tuple(source.class_names))


def sqnr_db(
    reference: npt.NDArray[np.floating], logits: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Return the SQNR of each image's logits in dB, (n,); both (n, classes)."""
    exact = reference.astype(np.float64, copy=False)
    noise = ((exact - logits) ** 2).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # equal: infinite, 0/0 included
        ratio = np.where(noise == 0, np.inf, (exact**2).sum(axis=1) / noise)
        decibels: npt.NDArray[np.float32] = (10 * np.log10(ratio)).astype(np.float32)
    return decibels


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
