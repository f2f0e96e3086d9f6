"""Normalization over axes: layer, instance and group normalization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, axes_of

__all__ = ["Normalization"]


@dataclass(frozen=True, slots=True)
class Normalization(Operation):
    """(x − mean) / √(variance + epsilon) · scale + bias; inputs: x, scale, bias.

    Attributes:
        axes: What mean and variance are taken over.
        groups: Into how many the channels (axis 1) are divided; 1 for no division.
        epsilon: Added to the variance.
    """

    axes: tuple[int, ...]
    groups: int
    epsilon: float

    @classmethod
    def read(cls, layer: Any) -> Normalization:
        """Read an ``INormalizationLayer``."""
        return cls(axes_of(layer.axes), int(layer.num_groups), float(layer.epsilon))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Normalize ``inputs[0]``, float32, any shape; statistics are taken in float64."""
        del out
        x, scale, bias = inputs
        grouped, axes = x, self.axes
        if self.groups > 1:
            grouped = x.reshape(len(x), self.groups, -1, *x.shape[2:])
            axes = (2, *(axis + 1 for axis in self.axes))
        mean = grouped.mean(axis=axes, keepdims=True, dtype=np.float64)
        variance = np.square(grouped - mean).mean(axis=axes, keepdims=True)
        normal = ((grouped - mean) / np.sqrt(variance + self.epsilon)).reshape(x.shape)
        result: Array = normal * self._spread(scale, x) + self._spread(bias, x)
        return result.astype(np.float32)

    def _spread(self, values: Array, x: Array) -> Array:
        """Repeat values given for each group over its channels."""
        if self.groups > 1 and values.shape[1] == self.groups != x.shape[1]:
            return np.repeat(values, x.shape[1] // self.groups, axis=1)
        return values
