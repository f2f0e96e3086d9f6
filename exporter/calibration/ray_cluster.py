"""Spread the images of a calibration over a Ray cluster.

The images go to the workers in small parts; each worker counts its part as one machine would,
and the counts are added up here. Sums of counts do not depend on who counted, so the result
is that of a run on this machine, byte for byte.

Each node needs Strata, and reads the model and the data by the paths of this machine. What it
read is held against their digests here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.artifacts import sha256_file
from core.progress import Progress
from exporter.calibration.collector import Collector
from exporter.calibration.merging import total
from exporter.calibration.network import Network
from exporter.calibration.statistics import Statistics
from exporter.calibration.work import (
    CalibrationOptions,
    Cluster,
    Image,
    ImageSet,
    Taps,
    Work,
    count_workers,
    nothing_counted,
)
from exporter.ray_parts import Spread, other_file, other_images, spread

__all__ = ["count_on_cluster"]

_PARTS_A_WORKER = 8  # so that none waits long for the last one
_MOST = 32  # images a part: what is lost when a worker dies
_CHECKPOINT_SECONDS = 30.0

_Part = tuple[Image, ...]
_TapsKey = tuple[tuple[str, ...], tuple[tuple[str, str], ...]]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What all parts have in common."""

    model: str
    data: str
    preprocess: PreprocessSpec | None
    start: Statistics  # of no images
    threads: int


def count_on_cluster(
    model: Path, data: ImageSet, work: Work, options: CalibrationOptions, progress: Progress
) -> Statistics:
    """Count the activations of the images that are left; leave what there is when interrupted.

    Args:
        model: ONNX file.
        data: The images; the cluster opens them by ``options.cluster.data``.
        work: What is to be done.
        options: The cluster, threads a worker, where to leave what was done so far.
        progress: Told of each part, by the calling thread.

    Raises:
        CalibrationError, GraphError, InputError: As :func:`exporter.calibrate.calibrate`.
        MissingBackendError: As :func:`exporter.ray_parts.spread`.
    """
    cluster, threads = options.cluster or Cluster(""), options.threads or 1
    start = nothing_counted(work.start)
    job = _Job(str(model.resolve()), cluster.data, data.preprocess, start, threads)
    where = Spread(cluster.address, threads, "a run with the same options carries on")
    found, saved = work.start, time.monotonic()
    with closing(spread(_count, job, lambda n: _split(work.left, n), where)) as results:
        try:
            for _, result in results:
                found = total([found, result])
                progress(len(found.images), work.total)
                if options.partial and time.monotonic() - saved >= _CHECKPOINT_SECONDS:
                    found.write(options.partial)
                    saved = time.monotonic()
        except KeyboardInterrupt:
            if options.partial is not None and found.images:
                found.write(options.partial)
            raise
    return found


def _split(images: Sequence[Image], workers: int) -> Iterator[_Part]:
    size = math.ceil(len(images) / (_PARTS_A_WORKER * workers))
    size = max(1, min(_MOST, size))
    for first in range(0, len(images), size):
        yield tuple(images[first : first + size])


def _count(job: _Job, part: _Part) -> Statistics:
    """Count one part: what runs on a worker."""
    taps = tuple(job.start.tensors), tuple(job.start.passed.items())
    network, source = _open(job.model, job.start.model, job.data, taps)
    if any(index >= len(source) or source.digest(index) != digest for digest, index in part):
        raise other_images()
    workers = count_workers(job.threads, len(part))
    collector = Collector(network, source, job.preprocess, job.start, workers)
    collector.run(part, None, lambda _: None)
    return collector.statistics()


@lru_cache(maxsize=1)
def _open(model: str, sha256: str, data: str, taps: _TapsKey) -> tuple[Network, Source]:
    """Open model and data, once in the life of a worker's process.

    Raises:
        InputError: They are not there, or it is another model.
    """
    if sha256_file(Path(model)) != sha256:
        raise other_file(model, sha256)
    tensors, passed = taps
    network = Network(Path(model), Taps(tensors, dict(passed)))
    return network, open_data(data, synthetic=True)
