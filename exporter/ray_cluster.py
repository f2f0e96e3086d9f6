"""Spread the images of a calibration over a Ray cluster.

The images go to the workers in small parts; each worker counts its part as one machine would,
and the counts are added up here. Sums of counts do not depend on who counted, so the result
is that of a run on this machine, byte for byte. Scheduling, and the retrial of a part whose
worker died, is Ray's.

Each node needs Strata, and reads the model and the data by the paths of this machine. What it
read is held against their digests here.
"""

from __future__ import annotations

import math
import os
import platform
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.artifacts import sha256_file
from core.errors import InputError, MissingBackendError, StrataError
from core.progress import Progress
from exporter.collector import Collector
from exporter.session import Session, open_session
from exporter.statistics import Statistics, total
from exporter.work import (
    CalibrationOptions,
    Cluster,
    Image,
    ImageSet,
    Work,
    nothing_counted,
    share_threads,
)

__all__ = ["count_on_cluster"]

_PARTS_A_WORKER = 8  # so that none waits long for the last one
_MOST = 32  # images a part: what is lost when a worker dies
_RETRIES = 3
_CHECKPOINT_SECONDS = 30.0
_KNOCK_SECONDS = 10.0
# Ray reads these when it starts: no usage statistics, no tips on stderr.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


_Parts = dict[Any, tuple[Image, ...]]  # Ray's reference to a result → the images it is of


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What all parts have in common; travels to the workers once."""

    model: str
    data: str
    preprocess: PreprocessSpec | None
    start: Statistics  # of no images
    threads: int


@dataclass(frozen=True, slots=True)
class _Refused:
    """A StrataError on its way back: raised on a worker, Ray would wrap it in its own."""

    kind: type[StrataError]
    problem: str
    hint: str


def count_on_cluster(
    model: Path, data: ImageSet, work: Work, options: CalibrationOptions, progress: Progress
) -> Statistics:
    """Count the activations of the images that are left.

    Args:
        model: ONNX file.
        data: The images; the cluster opens them by ``options.cluster.data``.
        work: What is to be done.
        options: The cluster, threads a worker, where to leave what was done so far.
        progress: Told of each part, by the calling thread.

    Raises:
        CalibrationError, GraphError, InputError: As :func:`exporter.calibrate.calibrate`.
        MissingBackendError: Ray is not installed, no cluster is at the address, or it lost
            the workers of a part again and again.
    """
    cluster, threads = options.cluster or Cluster(""), options.threads or 1
    ray = _load_ray()
    job = _Job(
        str(model.resolve()),
        cluster.data,
        data.preprocess,
        nothing_counted(work.start),
        threads,
    )
    with _connected(ray, cluster.address):
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < threads:
            raise InputError(
                f"a worker of {threads} threads on a Ray cluster of {cpus} CPUs",
                hint="give fewer --threads",
            )
        count = ray.remote(num_cpus=threads, max_retries=_RETRIES)(_count)
        shared = ray.put(job)
        parts = {count.remote(shared, part): part for part in _split(work.left, cpus // threads)}
        return _gather(ray, parts, work, options.partial, progress)


def _split(images: Sequence[Image], workers: int) -> Iterator[tuple[Image, ...]]:
    size = math.ceil(len(images) / (_PARTS_A_WORKER * workers))
    size = max(1, min(_MOST, size))
    for first in range(0, len(images), size):
        yield tuple(images[first : first + size])


def _count(job: _Job, part: tuple[Image, ...]) -> Statistics | _Refused:
    """Count one part: what runs on a worker."""
    try:
        workers, threads = share_threads(job.threads, len(part))
        key = (job.model, job.start.model, job.data, tuple(job.start.tensors), threads)
        session, source = _open(*key)
        collector = Collector(session, source, job.preprocess, job.start, workers)
        collector.run([index for _, index in part], None, lambda _: None)
        return collector.statistics()
    except StrataError as err:
        return _Refused(type(err), err.problem, err.hint)


@lru_cache(maxsize=1)
def _open(
    model: str, sha256: str, data: str, tensors: tuple[str, ...], threads: int
) -> tuple[Session, Source]:
    """Open model and data, once in the life of a worker's process.

    Raises:
        InputError: They are not there, or it is another model.
    """
    if sha256_file(Path(model)) != sha256:
        raise InputError(
            f"{model}: on {platform.node()} another file than here (sha256 not {sha256[:12]}…)",
            hint="let all nodes of the cluster read the same files, by the same paths",
        )
    session = open_session(Path(model), optimize=True, threads=threads, outputs=tensors)
    return session, open_data(data, synthetic=True)


def _gather(
    ray: Any,
    parts: dict[Any, tuple[Image, ...]],
    work: Work,
    partial: Path | None,
    progress: Progress,
) -> Statistics:
    """Add up the parts as they come in; leave what there is when interrupted."""
    found, saved = work.start, time.monotonic()
    waiting = list(parts)
    try:
        while waiting:
            (ready, *_), waiting = ray.wait(waiting, num_returns=1)
            found = total([found, _result(ray, ready, parts.pop(ready))])
            progress(len(found.images), work.total)
            if partial is not None and time.monotonic() - saved >= _CHECKPOINT_SECONDS:
                found.write(partial)
                saved = time.monotonic()
    except BaseException as err:
        for part in parts:
            ray.cancel(part, force=True)
        if partial is not None and found.images and isinstance(err, KeyboardInterrupt):
            found.write(partial)
        raise
    return found


def _result(ray: Any, ready: Any, part: Sequence[Image]) -> Statistics:
    """Return what a worker counted, if it is what was asked of it."""
    try:
        result: Statistics | _Refused = ray.get(ready)
    except ray.exceptions.RayTaskError as err:
        if isinstance(err.cause, ImportError):
            raise MissingBackendError(
                f"a worker of the Ray cluster cannot import what it needs ({err.cause})",
                hint="install the same strata[export,ray] on every node",
            ) from err
        raise  # a bug of ours: its traceback is wanted
    except ray.exceptions.RayError as err:
        text = " ".join(str(err).split())
        raise MissingBackendError(
            f"the Ray cluster lost a part of {len(part)} images again and again ({text[:300]})",
            hint="look at its workers' memory; a run with the same options carries on",
        ) from err
    if isinstance(result, _Refused):
        raise result.kind(result.problem, hint=result.hint)
    digests = [image.digest for image in result.images]
    if digests != [digest for digest, _ in part]:
        raise InputError(
            "a worker of the Ray cluster read other images than are here",
            hint="let all nodes of the cluster read the same files, by the same paths",
        )
    return result


@contextmanager
def _connected(ray: Any, address: str) -> Iterator[None]:
    """Be connected to a cluster; leave it, or stop the one that was started, at the end."""
    if ray.is_initialized():
        yield
        return
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _knock(address)
        ray.init(
            address or None, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
        )
    except (OSError, ImportError, RuntimeError, ValueError) as err:
        text = " ".join(str(err).split())
        raise MissingBackendError(
            f"no Ray cluster at {address or 'RAY_ADDRESS, and none could be started'} ({text})",
            hint="start one with `ray start --head`, or give --ray without an address; where the "
            "cluster asks for a token, set RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH here too",
        ) from err
    finally:
        with suppress(ValueError):  # Ray takes SIGTERM for itself; only a main thread may
            signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens: Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "/" not in host:
        socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()


def _load_ray() -> Any:
    os.environ.update(_QUIET)
    try:
        import ray
    except ImportError as err:
        raise MissingBackendError(
            f"Ray cannot be imported ({err})", hint="pip install 'strata[export,ray]'"
        ) from err
    return ray
