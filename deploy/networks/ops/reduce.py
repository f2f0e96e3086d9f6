"""Reductions over axes, and SoftMax. Sums are taken in float64."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported, axes_of

__all__ = ["Reduce", "SoftMax"]

_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "SUM": np.sum,
    "PROD": np.prod,
    "MAX": np.max,
    "MIN": np.min,
    "AVG": np.mean,
}


@dataclass(frozen=True, slots=True)
class Reduce(Operation):
    """Fold axes into one value each."""

    kind: str
    axes: tuple[int, ...]
    keep: bool

    @classmethod
    def read(cls, layer: Any) -> Reduce:
        """Read an ``IReduceLayer``."""
        kind = str(layer.op.name)
        if kind not in _REDUCTIONS:
            raise Unsupported(f"reduction {kind}")
        return cls(kind, axes_of(layer.axes), bool(layer.keep_dims))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Reduce ``inputs[0]``; integers stay integers."""
        del out
        x = inputs[0]
        wide = {"dtype": np.float64} if self.kind in ("SUM", "PROD", "AVG") else {}
        if x.dtype.kind != "f":
            wide = {}
        folded = _REDUCTIONS[self.kind](x, axis=self.axes, keepdims=self.keep, **wide)
        return np.asarray(folded).astype(x.dtype)


@dataclass(frozen=True, slots=True)
class SoftMax(Operation):
    """exp(x) / Σ exp(x) along one axis."""

    axis: int

    @classmethod
    def read(cls, layer: Any) -> SoftMax:
        """Read an ``ISoftMaxLayer``."""
        axes = axes_of(layer.axes)
        if len(axes) != 1:
            raise Unsupported(f"softmax over axes {axes}")
        return cls(axes[0])

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of float32, any shape."""
        del out
        x = inputs[0]
        powers = np.exp(x - x.max(axis=self.axis, keepdims=True))
        total = powers.sum(axis=self.axis, keepdims=True, dtype=np.float64)
        powers /= total.astype(np.float32)
        return np.asarray(powers)
