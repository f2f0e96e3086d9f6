"""Symmetric INT8 arithmetic as TensorRT defines it, in numpy.

A real value x and its code q are tied by x ≈ scale · q, with zero point 0::

    q = clamp(round_half_even(x / scale), −128, 127)

Source: ONNX QuantizeLinear (opset 19); TensorRT, "Explicit quantization".
The quotient is taken in float32, of float16 data too, as ONNX Runtime takes it: a float16
quotient, or a product with the reciprocal, moves codes that lie on a rounding boundary.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.errors import CalibrationError

__all__ = [
    "QMAX",
    "QMIN",
    "FloatArray",
    "Int8Array",
    "dequantize",
    "fake_quant",
    "quantize",
    "scale_of",
]

QMIN = -128
QMAX = 127

FloatArray = npt.NDArray[np.floating]
Int8Array = npt.NDArray[np.int8]


def scale_of(amax: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Return the scale at which ``amax`` becomes code 127.

    Args:
        amax: Largest magnitude to represent, in real units; any shape.

    Returns:
        amax / 127 in float32, same shape. A channel of zeros gets scale 1: every code
        stays 0, and TensorRT refuses a scale that is not positive.

    Raises:
        CalibrationError: A negative, NaN or infinite amax, or one so small that its
            scale is 0 in float32.
    """
    values = np.asarray(amax, dtype=np.float64)
    if not np.all(np.isfinite(values)) or np.any(values < 0):
        raise CalibrationError(
            f"amax {values.tolist()} is negative or not finite",
            hint="look for NaN or Inf in the weights or the calibration images",
        )
    scale = np.where(values == 0, 1.0, values / QMAX).astype(np.float32)
    # Below float32's smallest normal number the quotient x / scale loses its meaning.
    return np.maximum(scale, np.float32(np.finfo(np.float32).tiny))


def quantize(x: FloatArray, scale: FloatArray | float, axis: int | None = None) -> Int8Array:
    """Quantize to INT8: clamp(round_half_even(x / scale), −128, 127).

    Args:
        x: Real values, any shape, float16, float32 or float64. No NaN.
        scale: Real units per step: one value, or C values along ``axis``.
        axis: Channel axis; None for per-tensor.

    Returns:
        int8 codes, the shape of ``x``.
    """
    wide = x.astype(np.float32) if x.dtype == np.float16 else x
    steps = np.rint(wide / _along(scale, wide, axis))
    return np.clip(steps, QMIN, QMAX).astype(np.int8)


def dequantize(
    codes: Int8Array, scale: FloatArray | float, axis: int | None = None
) -> npt.NDArray[np.float32]:
    """Return the real values of INT8 codes: scale · q, in float32.

    Args:
        codes: int8, any shape.
        scale: Real units per step: one value, or C values along ``axis``.
        axis: Channel axis; None for per-tensor.
    """
    real = codes.astype(np.float32)
    real *= _along(scale, real, axis)
    return real


def fake_quant(
    x: FloatArray, scale: FloatArray | float, axis: int | None = None
) -> npt.NDArray[np.float32]:
    """Quantize and dequantize: the value that an INT8 consumer sees, in float32."""
    return dequantize(quantize(x, scale, axis), scale, axis)


def _along(scale: FloatArray | float, x: FloatArray, axis: int | None) -> FloatArray:
    """Shape the scale for broadcasting over ``x``, in the type of ``x``."""
    values = np.asarray(scale, dtype=x.dtype)
    if axis is None:
        return values.reshape(())
    shape = [1] * x.ndim
    shape[axis] = -1
    return values.reshape(shape)
