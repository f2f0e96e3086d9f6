"""Spread the images of an evaluation over a Ray cluster.

Each worker answers for its part as one machine would. An answer of ONNX Runtime does not
depend on its neighbours, nor on the number of CPUs, so the predictions are those of a run on
this machine, byte for byte.

Each node needs Strata, and reads the models and the data by the paths of this machine. What it
read is held against their digests here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from calib_data.batches import Indices
from calib_data.classes import numbered_as
from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import InputError
from core.progress import Progress, silent
from deploy.evaluation.opening import is_engine, open_models
from deploy.evaluation.predict import predict, table_of
from deploy.evaluation.predictions import ImageTable, Predictions, merge
from deploy.images import Images
from deploy.runners import Model
from exporter.calibration.work import Cluster
from exporter.ray_parts import Spread, other_file, other_images, spread

__all__ = ["predict_on_cluster"]

_PARTS_A_WORKER = 8  # so that none waits long for the last one
_MOST = 256  # images a part, or one batch: what is lost when a worker dies
_KINDS = ("torch", "trt-network")  # what stands before the path of a file


@dataclass(frozen=True, slots=True)
class _Job:
    """What all parts have in common: models with their digests, data, and how to read them."""

    models: tuple[tuple[str, str], ...]
    fast: bool
    data: str
    preprocess: PreprocessSpec | None
    batch: int


def predict_on_cluster(
    models: Mapping[str, Model],
    images: Images,
    cluster: Cluster,
    *,
    fast: bool = False,
    progress: Progress = silent,
) -> Predictions:
    """Let each model answer the same labelled images, as ``predict`` does.

    Args:
        models: By what the user named them; opened here, for what they say of themselves.
        images: Which images; the cluster opens them by ``cluster.data``.
        cluster: Where to run.
        fast: As :func:`~deploy.evaluation.opening.open_models` takes it.
        progress: Told of each part that is done.

    Raises:
        InputError: As ``predict`` does; an engine; or a worker reads other files.
        GraphError: A model failed, or answered with NaN or Inf.
        MissingBackendError: As :func:`exporter.ray_parts.spread`.
    """
    for text in filter(is_engine, models):
        raise InputError(
            f"{text}: an engine runs on the GPU it was built for, not anywhere on a cluster",
            hint="on each machine with that GPU: strata evaluate --shard I/N --predictions FILE",
        )
    table = table_of(images)
    named = tuple((_absolute(text), model.sha256) for text, model in models.items())
    job = _Job(named, fast, cluster.data, images.spec, images.batch)
    found: list[Predictions] = []
    done = 0
    where = Spread(cluster.address, 1, "give a smaller --batch")
    with closing(spread(_answer, job, lambda n: _split(images, n), where)) as results:
        for _, part in results:
            found.append(_checked(part, table))
            done += len(part.images)
            progress(done, len(images))
    return merge(found, ["a part"] * len(found))


def _split(images: Images, workers: int) -> Iterator[Indices]:
    """Yield the images of each part: whole batches of a run on one machine."""
    share = len(images) // (_PARTS_A_WORKER * workers)
    size = max(1, min(share, _MOST) // images.batch) * images.batch
    for first in range(0, len(images), size):
        yield images.indices[first : first + size]


def _answer(job: _Job, part: Indices) -> Predictions:
    """Answer for one part: what runs on a worker, on one CPU."""
    models, source = _open(job.models, job.fast, job.data)
    return predict(models, Images(source, part, job.preprocess, job.batch))


@lru_cache(maxsize=1)
def _open(
    named: tuple[tuple[str, str], ...], fast: bool, data: str
) -> tuple[tuple[Model, ...], Source]:
    """Open models and data, once in the life of a worker's process.

    Raises:
        StrataError: They are not there, or are others than here.
    """
    opened = open_models([text for text, _ in named], fast=fast).models
    for text, sha256 in named:
        if opened[text].sha256 != sha256:
            raise other_file(text, sha256)
    source = numbered_as(open_data(data), {m.name: m.card.labels for m in opened.values()})
    return tuple(replace(model, calls=1) for model in opened.values()), source


def _checked(part: Predictions, table: ImageTable) -> Predictions:
    """Return a worker's answers, if they are to the images that are here."""
    rows = np.searchsorted(table.indices, part.images.indices)
    same = (
        np.array_equal(part.images.digests, table.digests[rows])
        and np.array_equal(part.images.labels, table.labels[rows])
        and part.images.class_names == table.class_names
    )
    if not same:
        raise other_images()
    return part


def _absolute(text: str) -> str:
    """Return what names the same model from any working folder."""
    kind, colon, rest = text.partition(":")
    prefix, path = (kind + colon, rest) if kind in _KINDS else ("", text)
    return f"{prefix}{Path(path).resolve()}" if Path(path).is_file() else text
