"""Quantize and Dequantize, per tensor or per channel, with zero point 0.

::

    q = clamp(round_half_even(x / scale), −128, 127)
    x = scale · q

The quotient is taken in float32, of float16 tensors too, as ONNX Runtime takes it.
Multiplying by 1 / scale would move codes that lie on a rounding boundary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from core.int8 import QMAX, QMIN
from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported
from deploy.networks.ops.threads import PART, spread_flat

__all__ = ["Dequantize", "Quantize"]

# Arrays, since numpy compares with them three times as fast as with a number.
_LOW = np.full(PART, QMIN, np.float32)
_HIGH = np.full(PART, QMAX, np.float32)


@dataclass(frozen=True, slots=True)
class Quantize(Operation):
    """Real values to int8 codes; inputs: x, scale and, if given, a zero point of 0."""

    axis: int

    @classmethod
    def read(cls, layer: Any) -> Quantize:
        """Read an ``IQuantizeLayer``."""
        _refuse_code(layer.get_output(0))
        return cls(int(layer.axis))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Quantize float32, any shape.

        Raises:
            ValueError: A NaN, which has no code; or a zero point that is not 0.
        """
        del out
        x = inputs[0]
        scale = _scale(inputs, x, self.axis)
        codes = np.empty(x.shape, np.int8)
        try:
            with np.errstate(invalid="raise"):
                if scale.size == 1:
                    _quantize_flat(x.reshape(-1), scale, codes.reshape(-1))
                else:
                    steps = np.rint(x / scale)
                    np.clip(steps, QMIN, QMAX, out=steps)
                    codes[...] = steps
        except FloatingPointError as err:
            raise ValueError("its input holds a NaN, which has no INT8 code") from err
        return codes


@dataclass(frozen=True, slots=True)
class Dequantize(Operation):
    """int8 codes to real values; inputs: codes, scale and, if given, a zero point of 0."""

    axis: int

    @classmethod
    def read(cls, layer: Any) -> Dequantize:
        """Read an ``IDequantizeLayer``."""
        _refuse_code(layer.get_input(0))
        return cls(int(layer.axis))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Dequantize int8, any shape, to float32."""
        del out
        codes = inputs[0]
        scale = _scale(inputs, codes, self.axis)
        if scale.size > 1:
            return np.multiply(codes, scale, dtype=np.float32)
        real = np.empty(codes.shape, np.float32)
        flat, result = codes.reshape(-1), real.reshape(-1)

        def work(part: slice) -> None:
            np.multiply(flat[part], scale, out=result[part])

        spread_flat(work, flat.size)
        return real


def _refuse_code(tensor: Any) -> None:
    """Refuse codes of another type than INT8."""
    if tensor.dtype.name != "INT8":
        raise Unsupported(f"codes of type {tensor.dtype.name}")


def _scale(inputs: Inputs, x: Array, axis: int) -> Array:
    """Return the scale, shaped to broadcast over ``x``."""
    scale, zero = inputs[1], inputs[2] if len(inputs) > 2 else None
    if zero is not None and np.any(zero):
        raise ValueError(f"zero point {zero.reshape(-1)[0]}; TensorRT has zero point 0 only")
    shape = () if scale.size == 1 else (-1, *[1] * (x.ndim - axis - 1))
    shaped: Array = scale.reshape(shape)
    return shaped


def _quantize_flat(x: Array, scale: Array, codes: Array) -> None:
    """Quantize flat ``x`` by one scale, part by part."""

    def work(part: slice) -> None:
        steps = np.divide(x[part], scale)
        np.rint(steps, out=steps)
        np.maximum(steps, _LOW[: steps.size], out=steps)
        np.minimum(steps, _HIGH[: steps.size], out=steps)
        codes[part] = steps

    spread_flat(work, x.size)
