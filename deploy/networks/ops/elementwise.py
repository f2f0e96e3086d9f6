"""Operations of two or three tensors, element by element, with broadcasting.

TensorRT broadcasts tensors of one rank along axes of length 1, as numpy does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported
from deploy.networks.ops.threads import spread_flat

__all__ = ["ElementWise", "Select"]


@dataclass(frozen=True, slots=True)
class ElementWise(Operation):
    """A function of two tensors."""

    in_place = True
    kind: str

    @classmethod
    def read(cls, layer: Any) -> ElementWise:
        """Read an ``IElementWiseLayer``."""
        kind = str(layer.op.name)
        if kind not in _UFUNCS and kind not in _FUNCTIONS:
            raise Unsupported(f"elementwise operation {kind}")
        return cls(kind)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of two tensors that can be broadcast together."""
        a, b = inputs
        if self.kind in _FUNCTIONS and (self.kind != "DIV" or a.dtype.kind != "f"):
            return np.asarray(_FUNCTIONS[self.kind](a, b))
        shape = np.broadcast_shapes(a.shape, b.shape)
        if out is None or out.shape != shape:
            out = np.empty(shape, a.dtype)
        ufunc = _UFUNCS[self.kind]
        if not (a.shape == b.shape and all(t.flags.c_contiguous for t in (a, b, out))):
            ufunc(a, b, out=out)
            return out
        x, y, result = a.reshape(-1), b.reshape(-1), out.reshape(-1)
        spread_flat(lambda part: ufunc(x[part], y[part], out=result[part]), result.size)
        return out


@dataclass(frozen=True, slots=True)
class Select(Operation):
    """The second input where the first is true, the third elsewhere."""

    exact = True

    @classmethod
    def read(cls, layer: Any) -> Select:
        """Read an ``ISelectLayer``."""
        del layer
        return cls()

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of a bool tensor and two of any type."""
        del out
        condition, then, otherwise = inputs
        return np.asarray(np.where(condition, then, otherwise))


def _divide_integers(a: Array, b: Array) -> Array:
    """Divide toward zero."""
    quotient = np.floor_divide(a, b)
    toward_zero: Array = quotient + ((quotient < 0) & (quotient * b != a))
    return toward_zero.astype(a.dtype)


# Those that may write over an input: their result has its type (DIV: of reals).
_UFUNCS: Mapping[str, np.ufunc] = {
    "SUM": np.add,
    "PROD": np.multiply,
    "MAX": np.maximum,
    "MIN": np.minimum,
    "SUB": np.subtract,
    "DIV": np.divide,
    "POW": np.power,
}
_FUNCTIONS: Mapping[str, Callable[[Array, Array], Any]] = {
    "DIV": _divide_integers,
    "FLOOR_DIV": np.floor_divide,
    "AND": np.logical_and,
    "OR": np.logical_or,
    "XOR": np.logical_xor,
    "EQUAL": np.equal,
    "GREATER": np.greater,
    "LESS": np.less,
}
