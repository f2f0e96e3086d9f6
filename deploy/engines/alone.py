"""Build where nothing else asks for memory, so that two builds give the same bytes.

For a range of batch sizes TensorRT-RTX 1.7.1 lays out its arithmetic on shapes in the order
of its objects' addresses. A thread has a heap of its own, empty when it starts (glibc gives
one to each), and addresses there follow the order of requests. So TensorRT builds in a thread
that does nothing else: what it reports is noted in few words of the same size each time, and
told to the caller by the thread that waits, which may draw a bar or print as it likes.

What is settled only when a process starts is settled for the command line by
:mod:`deploy.cli.steady_memory`; without it the heaps still mix.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from core.progress import Progress
from deploy.engines.log import Listener, Severity

__all__ = ["Relay", "run_alone"]

_SECONDS = 0.05  # between two looks at whether the work has ended
T = TypeVar("T")


class Relay:
    """What the building thread reports, until the thread that waits tells it.

    All is kept to the end, told or not: what is freed in between leaves a hole to fill.
    """

    def __init__(self, progress: Progress, listen: Listener | None) -> None:
        self._progress = progress
        self._listen = listen
        self._steps: list[tuple[int, int, str]] = []
        self._lines: list[tuple[Severity, str]] = []
        self._steps_told = self._lines_told = 0
        self._news = threading.Event()
        self._failure: BaseException | None = None

    def fail(self, error: BaseException) -> None:
        """Let the next step raise this, which ends the build."""
        self._failure = error

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Note how far the build is; raises what :meth:`fail` was told."""
        if self._failure is not None:
            raise self._failure
        self._steps.append((done, total, note))
        self._news.set()

    def listen(self, severity: Severity, text: str) -> None:
        """Note a line of TensorRT's log."""
        self._lines.append((severity, text))

    def wait(self) -> None:
        """Wait for a step, for a moment."""
        self._news.wait(_SECONDS)
        self._news.clear()

    def tell(self, stop: threading.Event) -> None:
        """Tell what is new in the thread that calls this; no steps once ``stop`` is set."""
        lines = self._lines[self._lines_told :]
        self._lines_told += len(lines)
        if self._listen is not None:
            for line in lines:
                self._listen(*line)
        steps = self._steps[self._steps_told :]
        self._steps_told += len(steps)
        for step in steps:
            if not stop.is_set():
                self._progress(*step)


def run_alone(work: Callable[[], T], relay: Relay, stop: threading.Event) -> T:
    """Return what ``work`` returns, or raise what it raises, from a thread of its own.

    Args:
        work: Done once.
        relay: Told of while waiting. Where that raises, the next step of the work raises it
            too, the work is waited for, and the same raised here.
        stop: Set by a signal that tells ``work`` to end early.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="strata-build") as pool:
        future = pool.submit(work)
        try:
            while not future.done():
                relay.wait()
                relay.tell(stop)
            relay.tell(stop)
        except BaseException as err:
            relay.fail(err)
            raise
        return future.result()
