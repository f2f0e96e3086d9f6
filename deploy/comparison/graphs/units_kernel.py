"""The compiled loops between a tensor as it is, as a network holds it, and as its codes say.

One read, one write.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import AS_WRITTEN, compiled

__all__ = ["to_held", "to_rounded", "to_whole"]

Array = npt.NDArray[Any]

# Of the mantissa, by the bytes of a float: what is added to so much is rounded half to even.
_BITS = {4: 23, 8: 52}


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


def to_rounded(
    array: Array, factors: Array, shift: float, rule: tuple[float, float, int, int]
) -> Array:
    """Return what the codes of a tensor stand for.

    Args:
        array: x, (n, channels, …), a float type; computed in float32 at least.
        factors: f, (channels,) float32.
        shift: c; what is quantized is x / f − c.
        rule: The scale of Q and that of DQ, the smallest and the largest code.
    """
    kind = np.result_type(array.dtype, np.float32)
    numbers = *(kind.type(np.float32(n)) for n in rule), kind.type(1.5 * 2 ** _BITS[kind.itemsize])

    def loop(x: Array, f: Array, c: Any, out: Array) -> None:
        _to_rounded(x, f, c, numbers, out)

    return _converted(loop, array, factors, shift)


def _converted(loop: Any, array: Array, factors: Array, shift: float) -> Array:
    kind = np.result_type(array.dtype, np.float32)
    wide = np.ascontiguousarray(array, kind)
    if not wide.size:
        return wide
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


@compiled(AS_WRITTEN)
def _to_rounded(x: Any, factors: Any, shift: Any, numbers: Any, out: Any) -> None:
    images, channels, length = x.shape
    scale, back, low, high, rounder = numbers
    for n in range(images):
        for k in range(channels):
            f = factors[k]
            for i in range(length):
                v = (x[n, k, i] / f - shift) / scale
                v = low if v < low else v  # NaN stays
                v = high if v > high else v
                out[n, k, i] = (((v + rounder) - rounder) * back + shift) * f
