"""Round float32 values to those of float16, without leaving float32.

Adding a number m of the right size to x pushes the bits that float16 lacks out of the
float32 sum, which rounds them half to even; taking m away again leaves the rounded x::

    e = max(exponent of x, −14)      below 2^−14 float16's steps stay 2^−24
    m = 1.5 · 2^(e + 13)             the sum lies in [2^(e+13), 2^(e+14)): steps of 2^(e−10)
    x → (x + m) − m

Five passes in cache; numpy's own conversion to float16 and back takes six times as long.
"""

from __future__ import annotations

import numpy as np

from deploy.networks.ops.base import Array
from deploy.networks.ops.threads import PART, spread_flat

__all__ = ["round_half"]

_EXPONENT = np.int32(0x7F800000)
_SMALLEST = np.full(PART, (127 - 14) << 23, np.int32)  # an array: numpy is slow with a scalar
_MAGIC = np.int32((13 << 23) + (1 << 22))
_LARGE = (127 + 15) << 23  # from 2^15 on x may round to infinity, or be no number


def round_half(x: Array, out: Array | None = None) -> Array:
    """Round to the nearest float16 value, half to even.

    Args:
        x: float32, any shape.
        out: Where to write; may be ``x``. None for new memory.

    Returns:
        float32, the shape of ``x``; infinite beyond float16's range.
    """
    if out is None or not out.flags.c_contiguous:
        out = np.empty(x.shape, np.float32)
    values, result = x.reshape(-1), out.reshape(-1)
    spread_flat(lambda part: _round_part(values[part], result[part]), values.size)
    return out


def _round_part(x: Array, out: Array) -> None:
    magic = x.view(np.int32) & _EXPONENT
    if magic.max() >= _LARGE:
        with np.errstate(over="ignore"):
            out[...] = x.astype(np.float16)
        return
    np.maximum(magic, _SMALLEST[: x.size], out=magic)
    magic += _MAGIC
    np.add(x, magic.view(np.float32), out=out)
    out -= magic.view(np.float32)
