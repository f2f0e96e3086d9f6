"""Operations on shapes and indices: Shape, Gather, Concatenation, Constant and Fill."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported, dims, weights
from deploy.networks.ops.cast import held_type

__all__ = ["Concatenation", "Constant", "Fill", "Gather", "Shape"]


@dataclass(frozen=True, slots=True, eq=False)
class Constant(Operation):
    """A tensor of weights."""

    fresh = False
    exact = True
    value: Array

    @classmethod
    def read(cls, layer: Any) -> Constant:
        """Read an ``IConstantLayer``."""
        kind = held_type(layer.get_output(0).dtype)
        value = weights(layer.weights)
        shape = dims(layer.shape) or ()
        return cls(np.empty(shape, kind) if value is None else value.reshape(shape))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Return the weights."""
        del inputs, out
        return self.value


@dataclass(frozen=True, slots=True)
class Shape(Operation):
    """The lengths of the input's axes, int64."""

    exact = True

    @classmethod
    def read(cls, layer: Any) -> Shape:
        """Read an ``IShapeLayer``."""
        del layer
        return cls()

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Return them."""
        del out
        return np.array(inputs[0].shape, np.int64)


@dataclass(frozen=True, slots=True)
class Gather(Operation):
    """Entries of the first input along an axis; the second input names them."""

    exact = True
    axis: int

    @classmethod
    def read(cls, layer: Any) -> Gather:
        """Read an ``IGatherLayer``."""
        mode = str(layer.mode.name)
        if mode != "DEFAULT" or layer.num_elementwise_dims:
            raise Unsupported(f"gather mode {mode} ({layer.num_elementwise_dims} batch axes)")
        return cls(int(layer.axis))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Gather from a tensor of any type by int32 or int64 indices."""
        del out
        x, indices = inputs
        return np.asarray(np.take(x, indices, self.axis))


@dataclass(frozen=True, slots=True)
class Concatenation(Operation):
    """All inputs one behind the other along an axis."""

    exact = True
    axis: int

    @classmethod
    def read(cls, layer: Any) -> Concatenation:
        """Read an ``IConcatenationLayer``."""
        return cls(int(layer.axis))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Join tensors of one type."""
        del out
        return np.concatenate(inputs, axis=self.axis)


@dataclass(frozen=True, slots=True)
class Fill(Operation):
    """alpha + Σ beta[axis] · coordinate[axis].

    Attributes:
        dtype: Of the result.
        shape: None when the first input says it.
        alpha: Unless the second input says it.
        beta: Unless the third input says it.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    alpha: float
    beta: float

    @classmethod
    def read(cls, layer: Any) -> Fill:
        """Read an ``IFillLayer``."""
        if layer.operation.name != "LINSPACE":
            raise Unsupported(f"fill operation {layer.operation.name}")
        given = layer.num_inputs > 0 and layer.get_input(0) is not None
        shape = None if given else dims(layer.shape)
        return cls(held_type(layer.get_output(0).dtype), shape, layer.alpha, layer.beta)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it; inputs: shape, alpha, beta, each if given."""
        del out
        given = [*inputs, None, None, None][:3]
        shape = self.shape if given[0] is None else tuple(int(size) for size in given[0])
        if shape is None:
            raise ValueError("it says neither its shape nor where that comes from")
        total = np.full(shape, self.alpha if given[1] is None else given[1].reshape(()), self.dtype)
        steps = np.full(len(shape), self.beta) if given[2] is None else given[2].reshape(-1)
        for axis, step in enumerate(steps.astype(self.dtype)):
            at = np.arange(shape[axis], dtype=self.dtype)
            total += step * at.reshape(-1, *[1] * (len(shape) - axis - 1))
        return total
