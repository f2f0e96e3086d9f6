"""Run models over labelled images, and keep what they answer to each.

The images stream: each batch is decoded once, answered by every model in turn, and dropped.
What is kept is some 50 bytes an image, and the logits as long as they are few.

Where all models may be called by several threads at once, each thread takes a part of a batch,
so that no more images are in memory than in a batch, or a few a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from calib_data.sources import Labels, require_labels
from core.errors import GraphError, InputError
from core.progress import Progress, silent
from deploy.evaluation.at_once import in_order
from deploy.evaluation.predictions import (
    MOST_LOGITS,
    ImageTable,
    ModelAnswers,
    Predictions,
    set_digest,
)
from deploy.images import DataRecord, ImageRequest, Images, open_images
from deploy.runners import Model

__all__ = ["open_part", "predict", "sqnr_db", "table_of", "weights_of"]

Logits = npt.NDArray[np.float64]
Answered = dict[str, npt.NDArray[Any]]  # what is kept of answers to a batch, by name
Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]  # indices, network inputs

_LEAST = 8  # images a thread takes: fewer are slower


@dataclass(frozen=True, slots=True)
class _Part:
    """What each model answered to a batch, and for how many classes."""

    classes: int
    answered: list[Answered]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who answers what; any thread may ask."""

    models: Sequence[Model]
    turns: tuple[AbstractContextManager[object], ...]  # of the models that take no two calls
    images: Images
    labels: Labels

    def __call__(self, batch: Batch) -> _Part:
        """Return what each model answers to a batch."""
        reference: Logits | None = None
        found: list[Answered] = []
        classes = 0
        for model, turn in zip(self.models, self.turns, strict=True):
            with turn:
                logits = _answer(model, self.images, *batch)
            classes = logits.shape[1]
            keep = classes * len(self.images) <= MOST_LOGITS
            found.append(measured(logits, self.labels[batch[0]], reference, keep=keep))
            if reference is None:
                reference = logits
        return _Part(classes, found)


def measured(logits: Logits, labels: Labels, reference: Logits | None, *, keep: bool) -> Answered:
    """Return what is kept of a model's answers to a batch, by name.

    Args:
        logits: (n, classes).
        labels: (n,).
        reference: The first model's logits, (n, classes); None for the first itself.
        keep: Keep the logits too.
    """
    rows = np.arange(len(labels))
    own = logits[rows, labels][:, None]
    # How many classes come before the right one; equal logits in order of class, as
    # argmax has it.
    earlier = np.arange(logits.shape[1]) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & earlier)).sum(axis=1)
    highest = logits.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(logits - highest).sum(axis=1))
    found: Answered = {
        "answer": logits.argmax(axis=1).astype(np.int32),
        "rank": rank.astype(np.int32),
        "loss": (log_sum - (own - highest)[:, 0]).astype(np.float32),
        "confidence": np.exp(-log_sum).astype(np.float32),
    }
    if reference is not None:
        found["sqnr_db"] = sqnr_db(reference, logits)
    if keep:
        found["logits"] = logits.astype(np.float32)
    return found


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
    turns = tuple(Lock() if model.calls == 1 else nullcontext() for model in models)
    ask = _Asked(models, turns, images, require_labels(images.source))
    workers = max(model.calls for model in models)
    size = images.batch
    if all(model.calls > 1 for model in models):
        size = min(size, max(_LEAST, -(-size // workers)))
    parts: list[_Part] = []
    done = 0
    for part in in_order(ask, replace(images, batch=size).batches(), workers=workers):
        parts.append(part)
        done += len(part.answered[0]["answer"])
        progress(done, len(images))
    return _put_together(models, images, parts)


def _put_together(models: Sequence[Model], images: Images, parts: Sequence[_Part]) -> Predictions:
    """Join the batches, in the order of the images' source."""
    order = np.argsort(images.indices, kind="stable")
    table = table_of(images)
    spec = images.spec.to_json() if images.spec else None
    data = DataRecord(images.source.name, set_digest(table.digests), len(table), spec)
    found: list[ModelAnswers] = []
    for at, model in enumerate(models):
        arrays: dict[str, Any] = {
            name: np.concatenate([part.answered[at][name] for part in parts])[order]
            for name in parts[0].answered[at]
        }
        facts = (model.name, model.sha256, model.backend, weights_of(model))
        found.append(ModelAnswers(*facts, **arrays))
    return Predictions(data, parts[0].classes, table, tuple(found))


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
        InputError: No such data, an empty shard, classes that are not the models', or
            images that two models want prepared differently.
    """
    specs = {model.name: model.card.preprocess for model in models}
    images = open_images(request, specs, {model.name: model.card.labels for model in models})
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
