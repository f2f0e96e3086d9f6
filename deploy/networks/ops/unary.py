"""Functions of one tensor, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported

__all__ = ["Unary", "erf"]

_ERF_STEPS = 128  # table entries in one unit of x
_ERF_END = 6.0  # beyond, 1 − erf is below 1e-16


@dataclass(frozen=True, slots=True)
class Unary(Operation):
    """A function of one tensor."""

    kind: str

    @classmethod
    def read(cls, layer: Any) -> Unary:
        """Read an ``IUnaryLayer``."""
        kind = str(layer.op.name)
        if kind not in _FUNCTIONS:
            raise Unsupported(f"unary operation {kind}")
        return cls(kind)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it, any shape."""
        del out
        return _FUNCTIONS[self.kind](inputs[0])


def erf(x: Array) -> Array:
    """Return the error function of float32 values, in float32.

    From the nearest entry g of a table, with d = x − g, by Taylor's series::

        erf(g + d) = erf(g) + 2/√π · exp(−g²) · d · (1 − g·d + (2g² − 1)·d²/3) + O(d⁴)

    |d| ≤ 1/256 leaves an error below 1e-9.
    """
    table, slope = _erf_table()
    clipped = np.clip(x.astype(np.float64), -_ERF_END, _ERF_END)
    nearest = np.rint(clipped * _ERF_STEPS)
    g = nearest / _ERF_STEPS
    d = clipped - g
    # A NaN has no entry; it comes out by d all the same.
    entry = np.nan_to_num(nearest).astype(np.intp) + len(table) // 2
    step = d * (1 - g * d + (2 * g * g - 1) * d * d / 3)
    return (table[entry] + slope[entry] * step).astype(np.float32)


@cache
def _erf_table() -> tuple[Array, Array]:
    """Return erf and its derivative at the multiples of 1/128 from −6 to 6."""
    last = int(_ERF_END * _ERF_STEPS)
    at = np.arange(-last, last + 1) / _ERF_STEPS
    return np.array([math.erf(g) for g in at]), 2 / math.sqrt(math.pi) * np.exp(-at * at)


_FUNCTIONS: Mapping[str, Callable[[Array], Array]] = {
    "EXP": np.exp,
    "LOG": np.log,
    "SQRT": np.sqrt,
    "RECIP": lambda x: np.float32(1) / x,
    "ABS": np.abs,
    "NEG": np.negative,
    "SIN": np.sin,
    "COS": np.cos,
    "TAN": np.tan,
    "SINH": np.sinh,
    "COSH": np.cosh,
    "ASIN": np.arcsin,
    "ACOS": np.arccos,
    "ATAN": np.arctan,
    "ASINH": np.arcsinh,
    "ACOSH": np.arccosh,
    "ATANH": np.arctanh,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "ERF": erf,
    "NOT": np.logical_not,
    "SIGN": np.sign,
    "ROUND": np.rint,
    "ISINF": np.isinf,
    "ISNAN": np.isnan,
}
