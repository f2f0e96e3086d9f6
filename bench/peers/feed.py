"""Stream the images of an ``.npz`` in batches, so that no tool has to hold them all.

Imported in every peer's environment: numpy and the standard library, nothing else.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

__all__ = ["BATCH", "Images", "batches", "count"]

Images = npt.NDArray[np.float32]

BATCH = 8  # images at a time, for every tool that takes more than one


def count(path: Path) -> int:
    """Return how many images the file holds."""
    with _open(path) as (_, shape):
        return shape[0]


def batches(path: Path, size: int = BATCH) -> Iterator[Images]:
    """Yield the images in their order, (size, 3, H, W) float32.

    Raises:
        ValueError: They are not float32, or do not make whole batches.
    """
    with _open(path) as (file, shape):
        if shape[0] % size:
            raise ValueError(f"{path}: {shape[0]} images are no whole batches of {size}")
        values = size * math.prod(shape[1:])
        for _ in range(shape[0] // size):
            part = np.frombuffer(file.read(4 * values), dtype=np.float32)
            yield part.reshape(size, *shape[1:])


@contextmanager
def _open(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """Open the array ``images`` at its first value; give its shape with it."""
    with zipfile.ZipFile(path) as archive, archive.open("images.npy") as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
            version, np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        if dtype != np.float32 or fortran or len(shape) != 4:
            raise ValueError(f"{path}: images are {dtype} {shape}, not float32 N×3×H×W")
        yield file, shape
