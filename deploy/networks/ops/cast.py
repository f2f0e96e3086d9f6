"""Element types: TensorRT's and numpy's, and the cast from one to another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported

__all__ = ["Cast", "element_type", "held_type"]

_TYPES: Mapping[str, np.dtype[Any]] = {
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
    "INT8": np.dtype(np.int8),
    "INT32": np.dtype(np.int32),
    "INT64": np.dtype(np.int64),
    "UINT8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}


def element_type(dtype: Any) -> np.dtype[Any]:
    """Return numpy's type for a ``DataType`` of TensorRT.

    Raises:
        Unsupported: numpy has none.
    """
    known = _TYPES.get(str(dtype.name))
    if known is None:
        raise Unsupported(f"elements of type {dtype.name}")
    return known


def held_type(dtype: Any) -> np.dtype[Any]:
    """Return the type in which tensors of a ``DataType`` are held: float32 for HALF."""
    known = element_type(dtype)
    return np.dtype(np.float32) if known == np.float16 else known


@dataclass(frozen=True, slots=True)
class Cast(Operation):
    """The same values in another type; reals become integers toward zero."""

    fresh = False
    held: np.dtype[Any]

    @classmethod
    def read(cls, layer: Any) -> Cast:
        """Read an ``ICastLayer``."""
        return cls(held_type(layer.to_type))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Cast ``inputs[0]``; the network rounds to float16 where that is asked for."""
        del out
        x: Array = inputs[0]
        return x.astype(self.held, copy=False)
