"""TensorRT's nested build phases, folded into one bar; and a way to stop a build.

A phase takes its place in its parent's current step: six steps of "Building engine", the
fourth of which holds thirty of "Optimizing graph", and so on. The bar never goes back.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from core.progress import Progress

__all__ = ["TOTAL", "BuildProgress", "deferred_interrupt"]

TOTAL = 100


@dataclass(slots=True)
class _Phase:
    start: float  # of the whole build, 0 to 1
    width: float
    steps: int
    done: int = 0

    def step(self) -> tuple[float, float]:
        """Return where the current step begins, and how wide it is."""
        width = self.width / max(1, self.steps)
        return self.start + width * min(self.done, self.steps), width


class BuildProgress:
    """What a progress monitor of TensorRT calls; never lets an exception out into TensorRT.

    Attributes:
        error: What ``progress`` raised, to be raised again once the build has ended.
    """

    def __init__(self, progress: Progress, stop: threading.Event) -> None:
        self.error: BaseException | None = None
        self._progress = progress
        self._stop = stop
        self._phases: dict[str, _Phase] = {}
        self._best = 0.0
        self._lock = threading.Lock()  # TensorRT may build in several threads

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """Enter a phase of ``steps`` steps inside ``parent``'s current step."""
        with self._lock:
            outer = self._phases.get(parent or "")
            begin, width = outer.step() if outer else (0.0, 1.0)
            self._phases[name] = _Phase(begin, width, steps)
            self._report(begin, name)

    def step(self, name: str, index: int) -> bool:
        """Finish step ``index`` of a phase; False asks TensorRT to stop."""
        with self._lock:
            phase = self._phases.get(name)
            if phase is not None:
                phase.done = index + 1
                self._report(phase.step()[0], name)
            return self.error is None and not self._stop.is_set()

    def finish(self, name: str) -> None:
        """Leave a phase."""
        with self._lock:
            phase = self._phases.pop(name, None)
            if phase is not None:
                self._report(phase.start + phase.width, name)

    def _report(self, reached: float, name: str) -> None:
        self._best = max(self._best, min(1.0, reached))
        if self.error is None:
            try:
                self._progress(int(self._best * TOTAL + 1e-9), TOTAL, name)
            except BaseException as err:  # noqa: BLE001 - it must not unwind through C++
                self.error = err


@contextmanager
def deferred_interrupt() -> Iterator[threading.Event]:
    """Hold Ctrl-C and SIGTERM back while native code runs, as an event to look at.

    Python would raise KeyboardInterrupt inside TensorRT's call into our code, where C++
    can only abort. A second signal ends the process at once: nothing was written yet.

    Raises:
        KeyboardInterrupt: On leaving, when a signal came.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop  # signals reach the main thread alone
        return

    def note(signum: int, frame: FrameType | None) -> None:
        del frame
        if stop.is_set():
            signal.signal(signum, signal.SIG_DFL)
            signal.raise_signal(signum)
        stop.set()

    old: dict[int, Any] = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}
    for number in old:
        signal.signal(number, note)
    try:
        yield stop
    except Exception as err:
        if stop.is_set():  # the failure of a build that was told to stop
            raise KeyboardInterrupt from err
        raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
    if stop.is_set():
        raise KeyboardInterrupt
