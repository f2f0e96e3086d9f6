"""From an amax to the scale that the graph holds, and from a weight to its codes.

In a float16 graph a scale is a float16; weights are quantized with the rounded one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.errors import GraphError
from core.int8 import quantize, scale_of
from exporter.passes.base import Array
from exporter.quantization.plan import Weight

__all__ = ["graph_scale", "weight_codes"]

_Scales = npt.NDArray[np.float32]


def graph_scale(amax: npt.ArrayLike, name: str, *, half: bool) -> _Scales:
    """Return the scale of each amax, float32 of the same shape; that of 0 is 1.

    Args:
        amax: Magnitude that becomes code 127, real units, ≥ 0.
        name: Of the tensor, for the error text.
        half: Take scales that float16 holds too.

    Raises:
        CalibrationError: An amax is negative or not finite.
        GraphError: A scale is too large for float16.
    """
    scale = scale_of(amax)
    if not half:
        return scale
    with np.errstate(over="ignore"):
        rounded = scale.astype(np.float16)
    # Rounded down, the scale of tiny values could clip them.
    low = rounded.astype(np.float64) * 127.5 < np.asarray(amax)
    rounded = np.where(low, np.nextafter(rounded, np.float16(np.inf)), rounded)
    if not np.isfinite(rounded).all():
        raise GraphError(
            f"{name!r}: amax {np.max(amax):g} needs a scale beyond float16's 65504",
            hint="keep the rest of the graph in float32: --float fp32",
        )
    return rounded.astype(np.float32)


def weight_codes(
    weight: Weight, array: Array, *, half: bool
) -> tuple[_Scales, npt.NDArray[np.int8]]:
    """Return a weight's scales, (C,) float32, and its codes, int8 of its shape.

    Args:
        weight: The plan's entry.
        array: Its values, float32.
        half: As in :func:`graph_scale`.

    Raises:
        GraphError: Not float32, no such axis, or a value that is not finite.
    """
    if not -array.ndim <= weight.axis < array.ndim or array.dtype != np.float32:
        raise GraphError(
            f"weight {weight.tensor!r} is {array.dtype} {array.shape}: no float32 axis "
            f"{weight.axis} to quantize along",
            hint="correct the axis in the plan, or remove the weight from it",
        )
    floats = array.astype(np.float32, copy=False)
    others = tuple(i for i in range(array.ndim) if i != weight.axis % array.ndim)
    amax = np.abs(floats).max(axis=others)
    if not np.isfinite(amax).all():
        bad = int(np.flatnonzero(~np.isfinite(amax))[0])
        raise GraphError(
            f"weight {weight.tensor!r}: channel {bad} holds NaN or Inf",
            hint="train again, or load a sound checkpoint",
        )
    scale = graph_scale(amax, weight.tensor, half=half)
    return scale, quantize(floats, scale, weight.axis)
