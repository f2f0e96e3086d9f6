"""Scale: (x · scale + shift) ^ power, by tensor, by channel or by element.

BatchNormalization is parsed to it, with the four parameters folded into two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported, weights

__all__ = ["Scale"]


@dataclass(frozen=True, slots=True, eq=False)
class Scale(Operation):
    """An affine map and a power.

    Attributes:
        mode: ``"UNIFORM"``, ``"CHANNEL"`` or ``"ELEMENTWISE"``: what the weights run over.
        axis: Of the channels.
        scale: float32, one, C or an element's worth; None for 1.
        shift: The same; None for 0.
        power: The same; None for 1.
    """

    mode: str
    axis: int
    scale: Array | None
    shift: Array | None
    power: Array | None

    @classmethod
    def read(cls, layer: Any) -> Scale:
        """Read an ``IScaleLayer``."""
        mode = str(layer.mode.name)
        if mode not in ("UNIFORM", "CHANNEL", "ELEMENTWISE"):
            raise Unsupported(f"scale mode {mode}")
        parts = weights(layer.scale), weights(layer.shift), weights(layer.power)
        return cls(mode, int(layer.channel_axis), *parts)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of float32, any shape."""
        del out
        x = inputs[0]
        result: Array = x.copy() if self.scale is None else x * self._along(self.scale, x)
        if self.shift is not None:
            result += self._along(self.shift, x)
        if self.power is not None and not np.all(self.power == 1):
            np.power(result, self._along(self.power, x), out=result)
        return result

    def _along(self, values: Array, x: Array) -> Array:
        """Shape weights so that they broadcast over ``x``."""
        if self.mode == "UNIFORM":
            return values.reshape(())
        if self.mode == "CHANNEL":
            return values.reshape(-1, *[1] * (x.ndim - self.axis - 1))
        return values.reshape(x.shape[self.axis :])
