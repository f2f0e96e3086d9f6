"""Matrix products over the last two axes, with broadcasting over the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported
from deploy.networks.ops.products import spread_product

__all__ = ["MatrixMultiply"]

_FORMS = ("NONE", "TRANSPOSE", "VECTOR")


@dataclass(frozen=True, slots=True)
class MatrixMultiply(Operation):
    """The product of two tensors.

    Attributes:
        forms: How each is read: ``"NONE"`` as matrices, ``"TRANSPOSE"`` as transposed
            matrices, ``"VECTOR"`` as vectors along the last axis.
    """

    forms: tuple[str, str]

    @classmethod
    def read(cls, layer: Any) -> MatrixMultiply:
        """Read an ``IMatrixMultiplyLayer``."""
        forms = str(layer.op0.name), str(layer.op1.name)
        for form in forms:
            if form not in _FORMS:
                raise Unsupported(f"matrix operation {form}")
        return cls(forms)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Multiply two float32 tensors."""
        del out
        a, b = inputs
        if self.forms[0] != "NONE":
            a = a[..., None, :] if self.forms[0] == "VECTOR" else np.swapaxes(a, -1, -2)
        if self.forms[1] != "NONE":
            b = b[..., None] if self.forms[1] == "VECTOR" else np.swapaxes(b, -1, -2)
        result = _multiply(a, b)
        if self.forms[1] == "VECTOR":
            result = result[..., 0]
            return result[..., 0] if self.forms[0] == "VECTOR" else result
        return result[..., 0, :] if self.forms[0] == "VECTOR" else result


def _multiply(a: Array, b: Array) -> Array:
    """Return a · b; the rows of all matrices of ``a`` side by side where ``b`` is one matrix."""
    if b.ndim > a.ndim or any(length != 1 for length in b.shape[:-2]):
        return np.asarray(np.matmul(a, b))
    rows = a.reshape(1, -1, a.shape[-1])
    result = np.empty((1, rows.shape[1], b.shape[-1]), np.float32)
    spread_product(rows, b.reshape(1, *b.shape[-2:]), None, result)
    return result.reshape(*a.shape[:-1], b.shape[-1])
