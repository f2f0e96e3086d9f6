"""The compiled loops between a tensor as it is and as a network holds it: one read, one write."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import AS_WRITTEN, compiled

__all__ = ["to_held", "to_whole"]

Array = npt.NDArray[Any]


def to_held(array: Array, factors: Array, shift: float) -> Array:
    """Return x / f − c.

    Args:
        array: x, (n, channels, …), a float type; computed in float32 at least.
        factors: f, (channels,) float32.
        shift: c.
    """
    return _converted(_to_held, array, factors, shift)


def to_whole(array: Array, factors: Array, shift: float) -> Array:
    """Return (x + c)·f, arguments as for :func:`to_held`."""
    return _converted(_to_whole, array, factors, shift)


def _converted(loop: Any, array: Array, factors: Array, shift: float) -> Array:
    kind = np.result_type(array.dtype, np.float32)
    wide = np.ascontiguousarray(array, kind)
    length = math.prod(wide.shape[2:])
    rows = wide.reshape(-1, len(factors), length)
    out = np.empty(rows.shape, kind)
    loop(rows, factors.astype(kind), kind.type(np.float32(shift)), out)
    return out.reshape(array.shape)


@compiled(AS_WRITTEN)
def _to_held(x: Any, factors: Any, shift: Any, out: Any) -> None:
    images, channels, length = x.shape
    for n in range(images):
        for k in range(channels):
            f = factors[k]
            for i in range(length):
                out[n, k, i] = x[n, k, i] / f - shift


@compiled(AS_WRITTEN)
def _to_whole(x: Any, factors: Any, shift: Any, out: Any) -> None:
    images, channels, length = x.shape
    for n in range(images):
        for k in range(channels):
            f = factors[k]
            for i in range(length):
                out[n, k, i] = (x[n, k, i] + shift) * f
