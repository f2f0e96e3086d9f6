"""Matrix products over the last two axes, with broadcasting over the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.network_ops.base import Array, Inputs, Operation, Unsupported

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
        product: Array = np.matmul(a, b)
        if self.forms[1] == "VECTOR":
            product = product[..., 0]
            return product[..., 0] if self.forms[0] == "VECTOR" else product
        return product[..., 0, :] if self.forms[0] == "VECTOR" else product
