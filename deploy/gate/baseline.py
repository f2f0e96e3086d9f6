"""What must hold: the value behind ``baseline.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from deploy.evaluation.measures import TOP, calibration_error
from deploy.evaluation.predictions import ModelAnswers, Predictions
from deploy.gate.intervals import (
    Interval,
    interval_of_mean,
    interval_of_median,
    interval_of_share,
)
from deploy.gate.rules import Rules
from deploy.images import DataRecord

__all__ = ["Baseline", "Held", "Layers", "Selection", "labels_digest", "make_baseline"]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which images of the data were taken: how many by which seed; None for all of them."""

    images: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Layers:
    """The own error of a model's layers.

    Attributes:
        images: How many images they were measured on, the first that the selection's seed
            picks.
        sha256: Digest of these.
        own_db: Tensor → its own SQNR in dB, in graph order.
        scales: Quantized tensor → its scale, in graph order; a change of one may move no
            layer's SQNR, and is told all the same.
    """

    images: int
    sha256: str
    own_db: Mapping[str, float]
    scales: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Held:
    """What was measured of one model.

    Attributes:
        model: Its name.
        sha256: Its digest.
        backend: What ran it.
        weights: Digest of the weights it says it has; empty when it does not say.
        metrics: Metric → its value with the interval; shares are 0 to 1. ``agreement`` and
            ``sqnr_db`` are against the first model, which has none.
        layers: Its layers against the first model's; None when they were not measured.
    """

    model: str
    sha256: str
    backend: str
    weights: str
    metrics: Mapping[str, Interval]
    layers: Layers | None = None


@dataclass(frozen=True, slots=True)
class Baseline:
    """A measurement to hold later ones against.

    Attributes:
        data: The images.
        selection: Which images of the source these are.
        labels_sha256: Digest of the images' labels.
        classes: How many logits the models have.
        models: The reference first, then its candidates.
        versions: Library → the version that it was measured with.
        rules: What is allowed.
        answers_sha256: Digest of the file beside it, with the answer to each image.
    """

    data: DataRecord
    selection: Selection
    labels_sha256: str
    classes: int
    models: tuple[Held, ...]
    versions: Mapping[str, str]
    rules: Rules
    answers_sha256: str = ""


def make_baseline(
    predictions: Predictions,
    selection: Selection,
    layers: Mapping[str, Layers],
    versions: Mapping[str, str],
    rules: Rules,
) -> Baseline:
    """Sum up what was measured.

    Args:
        predictions: Of the reference and its candidates.
        selection: Which images these are.
        layers: Model → its layers, of the models of which they were measured.
        versions: Library → version.
        rules: What is allowed.
    """
    reference = predictions.models[0]
    return Baseline(
        data=predictions.data,
        selection=selection,
        labels_sha256=labels_digest(predictions.images.keys),
        classes=predictions.classes,
        models=tuple(
            Held(
                m.name,
                m.sha256,
                m.backend,
                m.weights,
                _metrics(m, reference, rules.confidence),
                layers.get(m.name),
            )
            for m in predictions.models
        ),
        versions=dict(versions),
        rules=rules,
    )


def labels_digest(keys: list[bytes]) -> str:
    """Return a digest of images with their labels, whatever their order."""
    return hashlib.sha256(b"".join(sorted(keys))).hexdigest()


def _metrics(model: ModelAnswers, first: ModelAnswers, confidence: float) -> dict[str, Interval]:
    """Return the metrics of one model."""
    error = calibration_error(model)
    found = {
        "top1": _share(model.right, confidence),
        "top5": _share(model.rank < TOP, confidence),
        "loss": interval_of_mean(model.loss, confidence),
        "ece": Interval(error, error, error),
    }
    if model.sqnr_db is not None:
        found["agreement"] = _share(model.answer == first.answer, confidence)
        found["sqnr_db"] = interval_of_median(model.sqnr_db, confidence)
    return found


def _share(flags: npt.NDArray[np.bool_], confidence: float) -> Interval:
    return interval_of_share(int(flags.sum()), len(flags), confidence)
