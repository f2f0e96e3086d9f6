"""Spread parts of some work over a Ray cluster, and get their results as they come.

Scheduling, and the retrial of a part whose worker died, is Ray's. What goes back and forth is
pickled; an error of ours is raised here as it was there.
"""

from __future__ import annotations

import os
import platform
import signal
import socket
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from core.errors import InputError, MissingBackendError, StrataError

__all__ = ["Spread", "load_ray", "other_file", "other_images", "spread"]

Job = TypeVar("Job")
Part = TypeVar("Part")
Result = TypeVar("Result")

_RETRIES = 3
_KNOCK_SECONDS = 10.0
_SAME_FILES = "let all nodes of the cluster read the same files, by the same paths"
# Ray reads these when it starts: no usage statistics, no tips on stderr.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the work is done.

    Attributes:
        address: Of the cluster, as ``ray.init`` takes it; empty for Ray's own choice: that of
            RAY_ADDRESS, one that runs on this machine, or one started for the purpose.
        threads: CPUs of each worker.
        when_lost: What to do when a part is lost again and again.
    """

    address: str
    threads: int
    when_lost: str


@dataclass(frozen=True, slots=True)
class _Refused:
    """A StrataError on its way back: raised on a worker, Ray would wrap it in its own."""

    kind: type[StrataError]
    problem: str
    hint: str


def spread(
    work: Callable[[Job, Part], Result],
    job: Job,
    split: Callable[[int], Iterable[Part]],
    where: Spread,
) -> Generator[tuple[Part, Result], None, None]:
    """Yield each part with its result, in the order in which they are done.

    What is not done yet is called off when the iterator is closed, or at an error.

    Args:
        work: A function of a module, called with the job and a part by a worker.
        job: What all parts have in common; travels to the workers once.
        split: Makes the parts for so many workers.
        where: The cluster.

    Raises:
        StrataError: What ``work`` raised.
        InputError: The cluster has too few CPUs for a worker.
        MissingBackendError: Ray is not installed, here or what a worker needs there; no
            cluster is at the address, or it lost the workers of a part again and again.
    """
    ray = load_ray()
    with _connected(ray, where.address):
        cpus = int(ray.cluster_resources().get("CPU", 0))
        if cpus < where.threads:
            raise InputError(
                f"a worker of {where.threads} threads on a Ray cluster of {cpus} CPUs",
                hint="give fewer --threads",
            )
        remote = ray.remote(num_cpus=where.threads, max_retries=_RETRIES)(_part)
        shared = ray.put(job)
        parts = split(cpus // where.threads)
        waiting = {remote.remote(work, shared, part): part for part in parts}
        try:
            while waiting:
                ready = ray.wait(list(waiting), num_returns=1)[0][0]
                yield waiting.pop(ready), _result(ray, ready, where)
        finally:
            for left in waiting:
                ray.cancel(left, force=True)


def other_file(path: str, sha256: str) -> InputError:
    """Return what to raise on a worker that found another file at a path."""
    return InputError(
        f"{path}: on {platform.node()} another file than here (sha256 not {sha256[:12]}…)",
        hint=_SAME_FILES,
    )


def other_images() -> InputError:
    """Return what to raise where a worker's images are not those that it was to take."""
    return InputError(
        "a worker of the Ray cluster read other images than are here", hint=_SAME_FILES
    )


def _part(work: Callable[[Job, Part], Result], job: Job, part: Part) -> Result | _Refused:
    """Do one part: what runs on a worker."""
    try:
        return work(job, part)
    except StrataError as err:
        return _Refused(type(err), err.problem, err.hint)


def _result(ray: Any, ready: Any, where: Spread) -> Any:
    """Return what a worker found."""
    try:
        result = ray.get(ready)
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
            f"the Ray cluster lost a part of the images again and again ({text[:300]})",
            hint=f"look at its workers' memory; {where.when_lost}",
        ) from err
    if isinstance(result, _Refused):
        raise result.kind(result.problem, hint=result.hint)
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


def load_ray() -> Any:
    """Import Ray, quiet.

    Raises:
        MissingBackendError: It is not installed.
    """
    os.environ.update(_QUIET)
    try:
        import ray
    except ImportError as err:
        raise MissingBackendError(
            f"Ray cannot be imported ({err})", hint="pip install 'strata[export,ray]'"
        ) from err
    return ray
