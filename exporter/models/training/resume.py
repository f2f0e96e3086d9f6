"""A training's state on disk, so that a run that was stopped carries on."""

from __future__ import annotations

import hashlib
import pickle
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from core.artifacts import write_whole
from exporter.models.training.learner import Learner

__all__ = ["Resume"]

_MOST = 0.05  # of the time goes to saving


class Resume:
    """Keeps and restores a learner's state; a file of another training is ignored.

    Args:
        path: The file; None to keep nothing.
        bound_to: Everything that the result depends on, as text. PyTorch's version is
            added.
        every_s: Seconds between two savings.
    """

    def __init__(self, path: Path | None, bound_to: Sequence[str], *, every_s: float) -> None:
        self._path, self._every_s = path, every_s
        text = "\n".join((torch.__version__, *bound_to))
        self._key = hashlib.sha256(text.encode()).hexdigest()
        self._next = time.monotonic() + every_s

    def load(self, learner: Learner) -> int:
        """Restore the state if there is one of this very training; return the steps done."""
        if self._path is None or not self._path.is_file():
            return 0
        try:
            kept: dict[str, Any] = torch.load(self._path, weights_only=True)
            key, step, state = kept["key"], int(kept["step"]), kept["state"]
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, KeyError, TypeError):
            return 0  # damaged: it is only a shortcut
        if key != self._key:
            return 0
        learner.restore(state)
        return step

    def save(self, learner: Learner, step: int) -> None:
        """Save the state when it is time.

        Raises:
            OutputError: It cannot be written.
        """
        now = time.monotonic()
        if self._path is None or now < self._next:
            return
        with write_whole(self._path) as temporary:
            torch.save({"key": self._key, "step": step, "state": learner.state()}, temporary)
        spent = time.monotonic() - now
        # On a slow disk save more seldom.
        self._next = now + spent + max(self._every_s, spent / _MOST)

    def remove(self) -> None:
        """Remove the file: the training is done."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)
