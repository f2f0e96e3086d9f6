"""Predictions laid down by hand, for the tests of the gate."""

import hashlib

import numpy as np

from deploy.evaluation.predictions import ImageTable, ModelAnswers, Predictions, set_digest
from deploy.gate.baseline import Selection, make_baseline
from deploy.gate.baseline_file import read_baseline, write_baseline
from deploy.gate.hold import Run, hold
from deploy.gate.rules import Rules
from deploy.images import DataRecord

CLASSES = 10
SPEC = (
    '{"resize":[32,32],"crop":null,"interpolation":"bilinear",'
    '"mean":[0.5,0.5,0.5],"std":[0.25,0.25,0.25]}'
)


def digest(text):
    return hashlib.sha256(text.encode()).digest()


def table(count, *, prefix="image", labels=None):
    """Images of classes 0, 1, … in turn."""
    digests = b"".join(digest(f"{prefix} {at}") for at in range(count))
    return ImageTable(
        np.arange(count),
        np.frombuffer(digests, np.uint8).reshape(-1, 32),
        np.arange(count) % CLASSES if labels is None else np.asarray(labels),
        tuple(f"class {at}" for at in range(CLASSES)),
    )


def answers(name, images, *, wrong=(), sqnr=40.0, logits=True, sha256=None, weights="w" * 64):
    """A model that is right but for the images in ``wrong``."""
    answer = images.labels.astype(np.int32).copy()
    answer[list(wrong)] = (answer[list(wrong)] + 1) % CLASSES
    count = len(images)
    decibels = np.broadcast_to(np.float32(sqnr), count).astype(np.float32)
    rows = np.zeros((count, CLASSES), np.float32)
    rows[np.arange(count), answer] = 1 + np.arange(count) / count
    if name != "float.onnx":
        # So much noise on a class that changes no answer.
        rows[:, 0] += np.linalg.norm(rows, axis=1) * 10 ** (-decibels / 20)
    return ModelAnswers(
        name,
        sha256 or hashlib.sha256(f"{name} {sorted(wrong)} {sqnr}".encode()).hexdigest(),
        "by hand",
        weights,
        answer,
        (answer != images.labels).astype(np.int32),
        np.full(count, 0.25, np.float32),
        np.full(count, 0.75, np.float32),
        None if name == "float.onnx" else decibels,
        rows if logits else None,
    )


def predictions(images, *models, preprocess=SPEC):
    data = DataRecord("by hand", set_digest(images.digests), len(images), preprocess)
    return Predictions(data, CLASSES, images, models)


def write(path, found, rules=None, layers=None):
    """Write a baseline of predictions; return it as it is read."""
    baseline = make_baseline(found, Selection(), layers or {}, {"strata": "0"}, rules or Rules())
    write_baseline(baseline, found, path)
    return read_baseline(path)


def check(held, found, *, entries=None, not_run=None, **options):
    """Hold predictions against a baseline that was read."""
    names = entries or tuple(model.name for model in found.models)
    run = Run(found, names, not_run or {}, lambda index: f"image {index}", **options)
    return hold("baseline.json", *held, run)
