"""Kernels that TensorRT-RTX compiled on this GPU, kept for the next start.

A plan of TensorRT-RTX is compiled to its last step on the machine that runs it, at every
start, unless it is handed what it compiled before. TensorRT-RTX itself looks whether that
fits: its version, the GPU, the driver; what does not fit is compiled again and replaced.

Source: TensorRT-RTX documentation, "Working with Runtime Cache"; docstrings of
``IRuntimeCache`` in tensorrt-rtx 1.7.1. Never run here: no GPU was at hand.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from core.artifacts import write_bytes
from core.errors import OutputError

__all__ = ["KernelCache"]


class KernelCache:
    """The compiled kernels of one plan, in one file.

    Args:
        path: Where they are kept; None to keep nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._native: Any = None
        self._known = b""
        self._first = True

    def context(self, engine: Any) -> Any:
        """Return an execution context of an engine, with the kernels that are kept.

        TensorRT, which compiles nothing at run time, has no such cache; nor has an engine
        whose context is refused.
        """
        if self._path is None or not hasattr(engine, "create_runtime_config"):
            return engine.create_execution_context()
        config = engine.create_runtime_config()
        if not hasattr(config, "create_runtime_cache"):
            return engine.create_execution_context()
        self._native = config.create_runtime_cache()
        with suppress(OSError):  # none yet
            self._known = self._path.read_bytes()
            if not self._native.deserialize(self._known):
                self._known = b""
        config.set_runtime_cache(self._native)
        return engine.create_execution_context(config)

    def keep_first(self) -> None:
        """Keep what the first answer took; later ones compile little, and need not wait for it."""
        if self._first:
            self._first = False
            self.keep()

    def keep(self) -> None:
        """Write what was compiled since, if anything was; a full disk is no reason to fail."""
        if self._native is None or self._path is None:
            return
        data = bytes(self._native.serialize())
        if data != self._known:
            with suppress(OutputError):
                write_bytes(self._path, data)
                self._known = data
