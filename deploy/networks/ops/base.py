"""What an operation of the CPU evaluation is, and how it reads a layer of TensorRT.

float16 tensors are held as float32 arrays whose values float16 can represent: the same
numbers, without a conversion before and after each layer. The network rounds what a layer
made to the layer's own type (:mod:`deploy.networks.ops.half`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

__all__ = ["Array", "Inputs", "Operation", "Unsupported", "axes_of", "dims", "weights"]

Array = npt.NDArray[Any]
Inputs = Sequence[Any]  # one array for each input of the layer; None where it has none


class Unsupported(Exception):  # noqa: N818 - caught where the layer's name is known
    """The evaluation has no arithmetic for what a layer asks for."""


class Operation(ABC):
    """The arithmetic of one layer, with its weights.

    Attributes:
        fresh: What it returns is new memory, shared with no input and no weight.
        exact: It only moves or picks values: what comes of float16 is float16.
        in_place: It may overwrite ``out`` with its result.
    """

    __slots__ = ()
    fresh: ClassVar[bool] = True
    exact: ClassVar[bool] = False
    in_place: ClassVar[bool] = False

    @abstractmethod
    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute the layer's output.

        Args:
            inputs: Its input tensors.
            out: One of them that nobody needs any more; only given if ``in_place``.
        """


def weights(value: Any) -> Array | None:
    """Copy weights out of TensorRT; None when the layer has none.

    Raises:
        Unsupported: They are of a type that numpy lacks.
    """
    if not isinstance(value, np.ndarray):
        if value is None or not value.size:
            return None
        raise Unsupported(f"weights of type {value.dtype.name}")
    if not value.size:
        return None
    return value.astype(np.float32) if value.dtype == np.float16 else value.copy()


def dims(value: Any) -> tuple[int, ...] | None:
    """Return TensorRT's ``Dims`` as a tuple; None when they are not set."""
    return None if value is None else tuple(int(size) for size in value)


def axes_of(mask: int) -> tuple[int, ...]:
    """Return the axes that a bit mask of TensorRT names, in order."""
    return tuple(axis for axis in range(mask.bit_length()) if mask >> axis & 1)
