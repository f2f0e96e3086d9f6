"""An array as the compiled loops take it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["as_channels", "three"]

Array = npt.NDArray[Any]


def as_channels(array: Array) -> Array:
    """Return an array as the kernels take it: (images, channels, elements), a real type."""
    real = array if array.dtype in (np.float32, np.float64) else array.astype(_real(array.dtype))
    shaped = real.reshape(three(real.shape))
    return np.ascontiguousarray(shaped)


def _real(dtype: np.dtype[Any]) -> type[np.floating[Any]]:
    """Return the type that holds all values of one exactly, or nearly so."""
    return np.float32 if dtype.itemsize <= 2 else np.float64


def three(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape as images, channels and elements."""
    images = shape[0] if shape else 1
    channels = shape[1] if len(shape) > 1 else 1
    return images, channels, math.prod(shape[2:])
