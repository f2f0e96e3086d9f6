"""How a network holds its tensors: channel by channel over a factor, and less a constant.

An INT8 network may hold a tensor T as

    T.equalized.shifted  =  T / f − c,      f of each channel, c of all

with either or both of them (:mod:`exporter.quantization.scale_channels`,
:mod:`exporter.quantization.shift`). A comparison knows the tensor by its own name T and
as it is, in the reference's units; here are the names, and the way there and back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from exporter.card import Card
from exporter.quantization.channel_steps import factors_of
from exporter.quantization.held_names import EQUALIZED, SHIFTED

__all__ = ["AS_IT_IS", "Held", "Holding", "Holdings", "Made", "holdings_of", "whole_of"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Holding:
    """How one tensor is held.

    Attributes:
        name: What the network calls it; empty for its own name.
        shift: The constant c that it is less of, in the units in which it is held.
        factors: f of each channel, (C,) float64, each exactly a float32; None where all are 1.
        where: The file that says so, for error texts.
    """

    name: str = ""
    shift: float = 0.0
    factors: Array | None = None
    where: str = ""

    def inside(self, array: Array) -> Array:
        """Return a tensor as the network holds it, the same shape.

        Raises:
            InputError: It has other channels than factors.
        """
        if self.as_it_is:
            return array
        from deploy.comparison.graphs.units_kernel import to_held

        return to_held(array, self.factors_of(array.shape), self.shift)

    def whole(self, array: Array) -> Array:
        """Return what the network holds as the tensor that it stands for, the same shape.

        Raises:
            InputError: It has other channels than factors.
        """
        if self.as_it_is:
            return array
        from deploy.comparison.graphs.units_kernel import to_whole

        return to_whole(array, self.factors_of(array.shape), self.shift)

    def each(self, channels: int) -> Array:
        """Return f of each channel, (channels,) float64; ones where nothing is known.

        Raises:
            InputError: There are other channels than factors.
        """
        if self.factors is None:
            return np.ones(channels)
        if len(self.factors) != channels:
            raise InputError(
                f"{self.where}: {self.name!r} has {channels} channels, and factors of "
                f"{len(self.factors)}",
                hint="its entry strata.equalized was edited, or is another file's: quantize again",
            )
        return self.factors

    @property
    def as_it_is(self) -> bool:
        """Whether there is neither a constant nor a factor."""
        return self.factors is None and not self.shift

    def factors_of(self, shape: tuple[int, ...]) -> Array:
        """Return f of each channel of an array of this shape, (channels,) float32."""
        return self.each(shape[1] if len(shape) > 1 else 1).astype(np.float32)


AS_IT_IS = Holding()


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A tensor as a network holds it, and how that is.

    To make the tensor that it stands for takes as long as to sum it up: that is left to those
    who need it.
    """

    array: Array
    holding: Holding

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type in which it is held."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return self.array.ndim

    def whole(self) -> Array:
        """Return the tensor that it stands for."""
        return self.holding.whole(self.array)


Made = Mapping[str, Array | Held]  # what a network made, by the tensors' own names


def whole_of(tensor: Array | Held) -> Array:
    """Return a tensor as it is."""
    return tensor.whole() if isinstance(tensor, Held) else tensor


Holdings = Mapping[str, Holding]  # by the tensor's own name; those that are held as they are lack


def holdings_of(card: Card, there: Collection[str], where: str = "") -> dict[str, Holding]:
    """Return how a network holds its tensors, where that is not as they are.

    Args:
        card: What its file says of it.
        there: Names of the network's tensors.
        where: The file, for error texts.
    """
    found: dict[str, Holding] = {}
    for name in sorted(card.shifts.keys() | card.equalized.keys()):
        steps, shift = card.equalized.get(name), card.shifts.get(name, 0.0)
        held = f"{name}{'' if steps is None else EQUALIZED}"
        held += SHIFTED if name in card.shifts else ""
        if held in there and name not in there:
            factors = None if steps is None else factors_of(steps)
            found[name] = Holding(held, shift, factors, where)
    return found
