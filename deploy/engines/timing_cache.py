"""How long kernels took on a GPU, kept from build to build; of the flavour tensorrt.

TensorRT times many kernels for each layer. With the cache of an earlier build it times
only what is new, and chooses the same kernels again. It takes a cache that it cannot read for
an empty one, with a warning; here that is an error, so that nobody waits for nothing.

Source: NvInfer.h of TensorRT 11 (``createTimingCache``, ``setTimingCache``); that a broken blob
becomes an empty cache and a warning was seen on tensorrt-rtx 1.7.1.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from core.artifacts import regular, sha256_bytes, write_bytes
from core.errors import InputError, OutputError
from deploy.engines.log import TensorrtLog

__all__ = ["TimingCache"]


class TimingCache:
    """A timing cache in a file.

    Args:
        path: The file; it need not exist yet.

    Attributes:
        origin: What the build began with: the file's SHA-256, or ``"new"``.

    Raises:
        InputError: It is there and cannot be read.
        OutputError: It could not be written after the build.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._native: Any = None
        self._data = b""
        try:
            self._data = regular(path).read_bytes()
        except FileNotFoundError:
            _refuse_unwritable(path)
        except OSError as err:
            raise InputError(
                f"--timing-cache {path}: cannot be read ({err.strerror})",
                hint="name a file; it is made where there is none",
            ) from err
        self.origin = sha256_bytes(self._data) if self._data else "new"

    def attach(self, config: Any, log: TensorrtLog) -> None:
        """Give the cache to a builder's configuration.

        Args:
            config: TensorRT's ``IBuilderConfig``.
            log: Where TensorRT's lines go while this runs.

        Raises:
            InputError: It is no cache, or one of another GPU or version.
        """
        before = len(log.warnings), len(log.errors)
        native = config.create_timing_cache(self._data)
        said = [*log.warnings[before[0] :], *log.errors[before[1] :]]
        said = [line for line in said if "cache" in line.lower()]
        if native is None or (self._data and said):
            raise self._foreign("; ".join(said) or "TensorRT cannot read it")
        if not config.set_timing_cache(native, False):
            raise self._foreign("; ".join(said) or "it is of another GPU")
        self._native = native

    def _foreign(self, why: str) -> InputError:
        return InputError(
            f"--timing-cache {self._path}: not a cache for this GPU and this TensorRT ({why})",
            hint="name another file for each GPU and version, or remove it: it is made again",
        )

    def keep(self) -> None:
        """Write what was timed, if anything was.

        Raises:
            OutputError: It cannot be written.
        """
        data = bytes(self._native.serialize())
        if data != self._data:
            write_bytes(self._path, data)


def _refuse_unwritable(path: Path) -> None:
    """Say before the build, which takes minutes, that nothing could be kept after it."""
    there = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as err:
        raise OutputError(
            f"--timing-cache {path}: cannot be written in {there} ({err.strerror or err})",
            hint="name a file in a folder of yours",
        ) from err
