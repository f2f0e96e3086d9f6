"""Resize: nearest, linear and cubic, one axis after the other.

Source: TensorRT's operator documentation, "Resize": coordinates follow from the two
lengths. ONNX takes them from the scale as given, which is the same unless the scale does
not divide: 8 · 1.3 = 10 elements lie 0.8 apart here, 1 / 1.3 in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported, dims

__all__ = ["Resize"]

_COORDINATES = ("ALIGN_CORNERS", "ASYMMETRIC", "HALF_PIXEL")
_ROUNDINGS: Mapping[str, Callable[[Array], Array]] = {
    "HALF_UP": lambda at: np.floor(at + 0.5),
    "HALF_DOWN": lambda at: np.ceil(at - 0.5),
    "FLOOR": np.floor,
    "CEIL": np.ceil,
}


@dataclass(frozen=True, slots=True)
class Resize(Operation):
    """Another number of elements along some axes.

    Attributes:
        mode: ``"NEAREST"``, ``"LINEAR"`` or ``"CUBIC"``.
        coordinates: How an output coordinate becomes one of the input.
        rounding: Of coordinates, for nearest.
        first_of_one: An output of length 1 takes the input's first element.
        cubic: Coefficient of the cubic kernel, and whether it leaves out elements outside.
        shape: Of the output; None when the second input or the scales say it.
        scales: Output length / input length, for each axis; empty when a shape is given.
    """

    mode: str
    coordinates: str
    rounding: str
    first_of_one: bool
    cubic: tuple[float, bool]
    shape: tuple[int, ...] | None
    scales: tuple[float, ...]

    @classmethod
    def read(cls, layer: Any) -> Resize:
        """Read an ``IResizeLayer``."""
        given = layer.num_inputs > 1 and layer.get_input(1) is not None
        scales = () if given else tuple(float(scale) for scale in layer.scales)
        found = cls(
            mode=str(layer.resize_mode.name),
            coordinates=str(layer.coordinate_transformation.name),
            rounding=str(layer.nearest_rounding.name),
            first_of_one=layer.selector_for_single_pixel.name == "UPPER",
            cubic=(float(layer.cubic_coeff), bool(layer.exclude_outside)),
            shape=None if given or scales else dims(layer.shape),
            scales=scales,
        )
        for seen, known in (
            (found.mode, ("NEAREST", "LINEAR", "CUBIC")),
            (found.coordinates, _COORDINATES),
            (found.rounding, _ROUNDINGS),
        ):
            if seen not in known:
                raise Unsupported(f"resize {seen}")
        return found

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Resize ``inputs[0]``, float32."""
        del out
        x: Array = inputs[0]
        for axis, length in enumerate(self._lengths(inputs)):
            if length != x.shape[axis]:
                x = self._along(x, axis, length)
        return x.copy() if x is inputs[0] else x

    def _lengths(self, inputs: Inputs) -> tuple[int, ...]:
        """Return the output's shape."""
        if len(inputs) > 1 and inputs[1] is not None:
            return tuple(int(length) for length in inputs[1])
        if self.shape is not None:
            return self.shape
        lengths = zip(inputs[0].shape, self.scales, strict=True)
        return tuple(int(np.floor(np.float32(length) * np.float32(s))) for length, s in lengths)

    def _along(self, x: Array, axis: int, length: int) -> Array:
        """Resize one axis to ``length``."""
        at = self._origins(x.shape[axis], length)
        last = x.shape[axis] - 1
        if self.mode == "NEAREST":
            nearest = np.clip(_ROUNDINGS[self.rounding](at), 0, last)
            return np.take(x, nearest.astype(np.intp), axis)
        base = np.floor(at)
        offsets = (0, 1) if self.mode == "LINEAR" else (-1, 0, 1, 2)
        factors = self._factors(at - base)
        if self.mode == "CUBIC" and self.cubic[1]:
            outside = [(base + offset < 0) | (base + offset > last) for offset in offsets]
            factors = np.where(outside, 0, factors)
            factors = factors / factors.sum(axis=0)
        total: Array | None = None
        for offset, factor in zip(offsets, factors.astype(np.float32), strict=True):
            taken = np.take(x, np.clip(base + offset, 0, last).astype(np.intp), axis)
            taken *= factor.reshape(-1, *[1] * (x.ndim - axis - 1))
            total = taken if total is None else np.add(total, taken, out=total)
        return x if total is None else total

    def _origins(self, length: int, resized: int) -> Array:
        """Return the input coordinate of each output element of an axis."""
        at = np.arange(resized, dtype=np.float64)
        if resized == 1 and self.first_of_one:
            return at
        if self.coordinates == "ALIGN_CORNERS":
            return at * (length - 1) / (resized - 1) if resized > 1 else at
        if self.coordinates == "ASYMMETRIC":
            return at * length / resized
        return (at + 0.5) * length / resized - 0.5

    def _factors(self, t: Array) -> Array:
        """Return the weight of each neighbour at distance ``t`` behind the second.

        Source for cubic: R. Keys, "Cubic convolution interpolation for digital image
        processing", 1981, with coefficient a.
        """
        if self.mode == "LINEAR":
            return np.stack([1 - t, t])
        a = self.cubic[0]

        def near(d: Array) -> Array:
            return ((a + 2) * d - (a + 3)) * d * d + 1

        def far(d: Array) -> Array:
            return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

        return np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)])
