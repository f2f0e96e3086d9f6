"""Slice and Padding: elements at regular coordinates, inside the tensor or beyond it.

Source: TensorRT's operator documentation, "Slice". Output coordinate y takes the input's
coordinate x = start + stride · y; where that lies outside, the mode says what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported, dims

__all__ = ["Padding", "Slice"]

Dims = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Slice(Operation):
    """Take ``size`` elements along each axis, ``stride`` apart, from ``start`` on.

    Attributes:
        mode: ``STRICT_BOUNDS``, ``FILL``, ``CLAMP``, ``WRAP`` or ``REFLECT``.
        start: None when the second input says it.
        size: None when the third input says it.
        stride: None when the fourth input says it.
        axes: What the three apply to; None for all axes, or when the sixth input says it.
    """

    fresh = False
    exact = True
    mode: str
    start: Dims | None
    size: Dims | None
    stride: Dims | None
    axes: Dims | None

    @classmethod
    def read(cls, layer: Any) -> Slice:
        """Read an ``ISliceLayer``."""
        mode = str(layer.mode.name)
        if mode not in ("STRICT_BOUNDS", "FILL", *_OUTSIDE):
            raise Unsupported(f"slice mode {mode}")
        own = [
            # TensorRT complains in its log when asked for what an input says; before 10.3 a
            # slice has no axes.
            None if _is_given(layer, at) else dims(getattr(layer, name, None))
            for at, name in ((1, "start"), (2, "shape"), (3, "stride"), (5, "axes"))
        ]
        return cls(mode, *own)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Slice ``inputs[0]``.

        Raises:
            ValueError: STRICT_BOUNDS, and a coordinate outside.
        """
        del out
        x: Array = inputs[0]
        fill = inputs[4].reshape(()) if len(inputs) > 4 and inputs[4] is not None else 0
        axes = _given(inputs, 5, self.axes)
        start, size, stride = (
            _given(inputs, at, own)
            for at, own in ((1, self.start), (2, self.size), (3, self.stride))
        )
        if start is None or size is None or stride is None:
            raise ValueError("it says neither start, size and stride nor where they come from")
        for axis, *part in zip(axes or range(x.ndim), start, size, stride, strict=True):
            x = _take(x, axis % x.ndim, (part[0], part[1], part[2]), self.mode, fill)
        return x


@dataclass(frozen=True, slots=True)
class Padding(Operation):
    """Pad the last axes with zeros; negative padding crops."""

    fresh = False
    exact = True
    before: Dims
    after: Dims

    @classmethod
    def read(cls, layer: Any) -> Padding:
        """Read an ``IPaddingLayer``."""
        return cls(dims(layer.pre_padding_nd) or (), dims(layer.post_padding_nd) or ())

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Pad ``inputs[0]``."""
        del out
        x: Array = inputs[0]
        first = x.ndim - len(self.before)
        for axis, (before, after) in enumerate(zip(self.before, self.after, strict=True), first):
            x = _take(x, axis, (-before, x.shape[axis] + before + after, 1), "FILL", 0)
        return x


def _is_given(layer: Any, at: int) -> bool:
    return layer.num_inputs > at and layer.get_input(at) is not None


def _given(inputs: Inputs, at: int, own: Dims | None) -> Dims | None:
    """Return what an input says in place of the layer's own."""
    if len(inputs) > at and inputs[at] is not None:
        return tuple(int(value) for value in inputs[at].reshape(-1))
    return own


def _take(x: Array, axis: int, part: tuple[int, int, int], mode: str, fill: Any) -> Array:
    """Slice one axis by (start, size, stride)."""
    start, size, stride = part
    length = x.shape[axis]
    at = start + stride * np.arange(size)
    inside = (at >= 0) & (at < length)
    if inside.all():
        return _inside(x, axis, part)
    if mode == "STRICT_BOUNDS":
        raise ValueError(f"slice {part} leaves axis {axis} of length {length}")
    if mode != "FILL":
        return np.take(x, _OUTSIDE[mode](at, length), axis)
    filled = np.full((*x.shape[:axis], size, *x.shape[axis + 1 :]), fill, x.dtype)
    if inside.any():
        first, count = int(np.argmax(inside)), int(inside.sum())  # stride ≠ 0: side by side
        lead = (slice(None),) * axis
        kept = _inside(x, axis, (int(at[first]), count, stride))
        filled[(*lead, slice(first, first + count))] = kept
    return filled


def _inside(x: Array, axis: int, part: tuple[int, int, int]) -> Array:
    """Slice one axis where all coordinates lie inside, without copying."""
    start, size, stride = part
    lead = (slice(None),) * axis
    if stride == 0:
        one = x[(*lead, slice(start, start + 1))]
        return np.broadcast_to(one, (*x.shape[:axis], size, *x.shape[axis + 1 :]))
    stop = start + stride * size
    return x[(*lead, slice(start, None if stop < 0 else stop, stride))]


def _reflect(at: Array, length: int) -> Array:
    if length == 1:
        return np.zeros_like(at)
    folded = np.abs(at) % (2 * length - 2)
    return np.where(folded >= length, 2 * length - 2 - folded, folded)


# Where a coordinate outside is taken from.
_OUTSIDE: Mapping[str, Callable[[Array, int], Array]] = {
    "CLAMP": lambda at, length: np.clip(at, 0, length - 1),
    "WRAP": lambda at, length: at % length,
    "REFLECT": _reflect,
}
