"""The images of a calibration, handed out to its threads in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence

from core.errors import StrataError
from exporter.calibration.work import Image

__all__ = ["Queue"]


class Queue:
    """Hands out images in order, for a while at a time."""

    def __init__(self, chunks: Iterable[Sequence[Image]]) -> None:
        self.lock = threading.Lock()
        self._left = list(enumerate(chunks))[::-1]
        self._deadline = 0.0
        self._failures: list[tuple[int, StrataError]] = []

    def open_for(self, seconds: float) -> bool:
        """Hand out for this long; return whether anything is left."""
        self._deadline = time.monotonic() + seconds
        return self.any_left

    @property
    def any_left(self) -> bool:
        """Whether there are images that nobody took."""
        return bool(self._left)

    def close(self) -> None:
        """Hand out nothing more."""
        self._deadline = 0.0

    def take(self) -> tuple[int, Sequence[Image]] | None:
        """Return the next images with their position; None to stop."""
        with self.lock:
            if not self._left or time.monotonic() >= self._deadline:
                return None
            return self._left.pop()

    def fail(self, position: int, error: StrataError) -> None:
        """Note a failure, and close."""
        with self.lock:
            self._failures.append((position, error))
            self.close()

    def raise_first(self) -> None:
        """Raise the failure of the earliest images: the same one however threads raced."""
        if self._failures:
            raise min(self._failures, key=lambda failure: failure[0])[1]
