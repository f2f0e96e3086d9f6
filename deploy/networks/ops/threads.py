"""Spread the blocks of a layer over the CPUs.

numpy's BLAS would spread each matrix product by itself. But its threads spin while they wait
for one another: where other processes want the CPUs too, that takes many times as long as
one thread alone, and all work between two products stays on one CPU. So BLAS is held to one
thread while a layer is computed, and the blocks of the layer run side by side.

The BLAS inside numpy's own wheels can be held. With any other, blocks run one after the
other, and products as that BLAS likes.
"""

from __future__ import annotations

import contextvars
import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

__all__ = ["ONE_BLAS_THREAD", "PART", "spread", "spread_flat", "workers"]

PART = 1 << 15  # elements in work at a time; a few such arrays fit a core's cache

_FEWEST_PARTS = 12  # worth waking another thread for
_PREFIX = "scipy_openblas"  # how numpy's wheels rename OpenBLAS's symbols
_SUFFIXES = ("64_", "")  # with 64-bit and 32-bit integers

Part = TypeVar("Part")
_Count = Callable[..., int]


@cache
def workers() -> int:
    """Return how many blocks run side by side: as many as BLAS would take threads."""
    controls = _controls()
    return max(1, min(controls[0](), len(os.sched_getaffinity(0)))) if controls else 1


def spread(work: Callable[[Part], None], parts: Sequence[Part]) -> None:
    """Call ``work`` with each part, on all CPUs; return when all is done.

    Args:
        work: Writes to memory that no other part touches; spends its time in numpy.
        parts: Blocks of work, best a few for each worker.

    Raises:
        Exception: What ``work`` raises.
    """
    queue = iter(parts)

    def drain() -> None:
        for part in queue:
            work(part)

    helpers = min(workers(), len(parts)) - 1
    # A copy of the context for each: numpy's error state lives in it.
    jobs = [_pool().submit(contextvars.copy_context().run, drain) for _ in range(helpers)]
    try:
        drain()
    finally:
        failures = [job.exception() for job in jobs]  # waits: nobody writes behind our back
    for failure in failures:
        if failure is not None:
            raise failure


def spread_flat(work: Callable[[slice], None], size: int) -> None:
    """Call ``work`` with each part of a flat array of ``size`` elements.

    Each part has :data:`PART` elements, but for the last; few parts stay on one CPU.
    """
    parts = [slice(first, min(first + PART, size)) for first in range(0, size, PART)]
    if len(parts) < _FEWEST_PARTS:
        for part in parts:
            work(part)
    else:
        spread(work, parts)


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers() - 1, thread_name_prefix="strata-layer")


class _OneBlasThread:
    """A context in which BLAS takes one thread; any number of threads may be in it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = 0

    def __enter__(self) -> None:
        workers()  # asks BLAS for its number while it still has it
        with self._lock:
            if not self._inside and (controls := _controls()):
                self._before = controls[0]()
                controls[1](1)
            self._inside += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and (controls := _controls()):
                controls[1](self._before)


ONE_BLAS_THREAD = _OneBlasThread()


@cache
def _controls() -> tuple[_Count, _Count] | None:
    """Return what asks for and what sets BLAS's number of threads; None where not known."""
    folder = Path(np.__file__).parents[1] / "numpy.libs"
    for path in sorted(folder.glob("*openblas*")):
        try:
            library: Any = ctypes.CDLL(str(path))
        except OSError:
            continue
        for suffix in _SUFFIXES:
            count, hold = (
                getattr(library, f"{_PREFIX}_{verb}_num_threads{suffix}", None)
                for verb in ("get", "set")
            )
            if count and hold:
                return count, hold
    return None
