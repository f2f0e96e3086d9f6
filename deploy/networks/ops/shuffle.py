"""Operations that only give a tensor another shape or order of axes. None copies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, dims

__all__ = ["Identity", "Shuffle", "Squeeze", "Unsqueeze"]


@dataclass(frozen=True, slots=True)
class Shuffle(Operation):
    """Transpose, reshape, transpose.

    Attributes:
        first: Axes of the first transpose; more than the tensor has are ignored.
        shape: To reshape to, −1 for what is left; None when the second input says it, or
            the shape stays.
        second: Axes of the second transpose.
        zero_copies: A 0 in the shape means the input's length, not an empty axis.
    """

    fresh = False
    exact = True
    first: tuple[int, ...]
    shape: tuple[int, ...] | None
    second: tuple[int, ...]
    zero_copies: bool

    @classmethod
    def read(cls, layer: Any) -> Shuffle:
        """Read an ``IShuffleLayer``."""
        given = layer.num_inputs > 1 and layer.get_input(1) is not None
        first, second = (
            tuple(int(axis) for axis in order)
            for order in (layer.first_transpose, layer.second_transpose)
        )
        shape = None if given else dims(layer.reshape_dims)
        return cls(first, shape, second, bool(layer.zero_is_placeholder))

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Return ``inputs[0]`` in its new shape."""
        del out
        x: Array = inputs[0]
        x = x.transpose(self.first[: x.ndim])
        shape = self.shape
        if len(inputs) > 1 and inputs[1] is not None:
            shape = tuple(int(size) for size in inputs[1])
        if shape is not None:
            if self.zero_copies:
                shape = tuple(size or x.shape[axis] for axis, size in enumerate(shape))
            x = x.reshape(shape)
        result: Array = x.transpose(self.second[: x.ndim])
        return result


@dataclass(frozen=True, slots=True)
class Squeeze(Operation):
    """Remove axes of length 1; the second input names them."""

    fresh = False
    exact = True

    @classmethod
    def read(cls, layer: Any) -> Squeeze:
        """Read an ``ISqueezeLayer``."""
        del layer
        return cls()

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Return ``inputs[0]`` without those axes."""
        del out
        axes = tuple(int(axis) for axis in inputs[1].reshape(-1))
        return np.asarray(np.squeeze(inputs[0], axis=axes))


@dataclass(frozen=True, slots=True)
class Unsqueeze(Operation):
    """Insert axes of length 1; the second input names where they are in the result."""

    fresh = False
    exact = True

    @classmethod
    def read(cls, layer: Any) -> Unsqueeze:
        """Read an ``IUnsqueezeLayer``."""
        del layer
        return cls()

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Return ``inputs[0]`` with those axes."""
        del out
        return np.expand_dims(inputs[0], tuple(int(axis) for axis in inputs[1].reshape(-1)))


@dataclass(frozen=True, slots=True)
class Identity(Operation):
    """The input itself."""

    fresh = False
    exact = True

    @classmethod
    def read(cls, layer: Any) -> Identity:
        """Read an ``IIdentityLayer``."""
        del layer
        return cls()

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Return ``inputs[0]``."""
        del out
        x: Array = inputs[0]
        return x
