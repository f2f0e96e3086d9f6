"""The values of an evaluation, image by image: what later runs are paired with."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from deploy.images import DataRecord

__all__ = ["MOST_LOGITS", "ImageTable", "ModelAnswers", "Predictions", "merge", "set_digest"]

MOST_LOGITS = 4_000_000  # values of one model that are kept: 16 MB

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class ImageTable:
    """Which images were asked, in the order of their source.

    Attributes:
        indices: Their numbers in the source, int64 (n,), rising.
        digests: SHA-256 of each image's content, uint8 (n, 32).
        labels: Their classes, int64 (n,).
        class_names: Name of each class; empty when unknown.
    """

    indices: npt.NDArray[np.int64]
    digests: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def keys(self) -> list[bytes]:
        """Digest and label of each image: what makes two images the same question."""
        labels = self.labels.astype(">i8")
        return [
            digest.tobytes() + label.tobytes()
            for digest, label in zip(self.digests, labels, strict=True)
        ]

    def name(self, label: int) -> str:
        """Return how a class is called."""
        return self.class_names[label] if label < len(self.class_names) else str(label)


@dataclass(frozen=True, slots=True, eq=False)
class ModelAnswers:
    """What one model answered; row i of each array is of image i.

    Attributes:
        name: The model's name.
        sha256: Its digest.
        backend: What ran it.
        weights: Digest of the weights it says it has; empty when it does not say.
        answer: Class of the largest logit, int32 (n,).
        rank: How many classes come before the right one, int32 (n,).
        loss: Cross-entropy in nats, float32 (n,).
        confidence: Probability of the answer, float32 (n,).
        sqnr_db: SQNR of the logits against the first model's, float32 (n,); None for the
            first itself.
        logits: float32 (n, classes); None where they were not kept.
    """

    name: str
    sha256: str
    backend: str
    weights: str
    answer: npt.NDArray[np.int32]
    rank: npt.NDArray[np.int32]
    loss: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    sqnr_db: npt.NDArray[np.float32] | None = None
    logits: npt.NDArray[np.float32] | None = None

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Which images were answered rightly, (n,)."""
        right: npt.NDArray[np.bool_] = self.rank == 0
        return right

    def take(self, rows: npt.NDArray[np.int64]) -> ModelAnswers:
        """Return the answers to some of the images, in that order."""
        taken: dict[str, Any] = {name: array[rows] for name, array in arrays_of(self).items()}
        return replace(self, **taken)


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What one or more models answered to the same images.

    Attributes:
        data: The images as artifacts record them.
        classes: How many logits the models have.
        images: The images one by one.
        models: Their answers; ``sqnr_db`` is against the first.
    """

    data: DataRecord
    classes: int
    images: ImageTable
    models: tuple[ModelAnswers, ...]


ARRAYS = ("answer", "rank", "loss", "confidence", "sqnr_db", "logits")


def arrays_of(answers: ModelAnswers) -> dict[str, Array]:
    """Return the arrays that are there, by name."""
    found = {name: getattr(answers, name) for name in ARRAYS}
    return {name: array for name, array in found.items() if array is not None}


def set_digest(digests: npt.NDArray[np.uint8]) -> str:
    """Return the digest of a set of images; equals ``calib_data.batches.data_digest``.

    Args:
        digests: SHA-256 of each image, uint8 (n, 32).
    """
    texts = sorted(digest.tobytes().hex() for digest in digests)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def merge(parts: Sequence[Predictions], names: Sequence[str]) -> Predictions:
    """Put the shards of one evaluation together, in any order.

    Args:
        parts: At least one.
        names: What each is called, for the error text.

    Raises:
        InputError: Shards of other models, data or preprocessing, or with a common image.
    """
    first = parts[0]
    for part, name in zip(parts[1:], names[1:], strict=True):
        for what, one, other in _facts(first, part):
            if one != other:
                raise InputError(
                    f"{names[0]} and {name}: predictions of different {what}",
                    hint="merge the shards of one evaluation: same models and data options",
                )
    if len(parts) == 1:
        return first
    indices = np.concatenate([part.images.indices for part in parts])
    order = np.argsort(indices, kind="stable")
    twice = np.flatnonzero(np.diff(indices[order]) == 0)
    if twice.size:
        raise InputError(
            f"{', '.join(names)}: {len(twice)} images are in two of them, such as image "
            f"{indices[order][twice[0]]}",
            hint="merge each shard once; shards are strata evaluate --shard 1/4 … 4/4",
        )
    digests = np.concatenate([part.images.digests for part in parts])[order]
    labels = np.concatenate([part.images.labels for part in parts])[order]
    images = ImageTable(indices[order], digests, labels, first.images.class_names)
    models = tuple(
        _joined([part.models[at] for part in parts], order) for at in range(len(first.models))
    )
    if first.classes * len(images) > MOST_LOGITS:  # each shard's may have been few enough
        models = tuple(replace(model, logits=None) for model in models)
    data = replace(first.data, sha256=set_digest(digests), images=len(images))
    return Predictions(data, first.classes, images, models)


def _facts(one: Predictions, other: Predictions) -> list[tuple[str, object, object]]:
    """Return what shards must have in common."""
    ours, theirs = ([(m.name, m.sha256, m.backend) for m in p.models] for p in (one, other))
    return [
        ("models", ours, theirs),
        ("data", one.data.name, other.data.name),
        ("preprocessing", one.data.preprocess, other.data.preprocess),
        ("classes", one.images.class_names, other.images.class_names),
    ]


def _joined(parts: Sequence[ModelAnswers], order: npt.NDArray[np.int64]) -> ModelAnswers:
    """Put one model's answers together; logits only where all parts have them."""
    found = [arrays_of(part) for part in parts]
    common = [name for name in ARRAYS if all(name in arrays for arrays in found)]
    joined: dict[str, Any] = dict.fromkeys(ARRAYS)
    joined |= {name: np.concatenate([a[name] for a in found])[order] for name in common}
    return replace(parts[0], **joined)
