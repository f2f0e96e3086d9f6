"""Max and average pooling, one axis after the other.

Source: NvInfer.h, ``IPoolingLayer``: an average divides by what the window shares with the
input, or, when padding counts, with the padded input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported
from deploy.networks.ops.window import Span, Window, pad

__all__ = ["AveragePooling", "MaxPooling", "read_pooling"]


@dataclass(frozen=True, slots=True)
class MaxPooling(Operation):
    """The largest element of each window; padding never is."""

    exact = True
    window: Window

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Pool ``inputs[0]``, (n, channels, height, width)."""
        del out
        x = inputs[0]
        spans = self.window.place(x.shape[2:])
        least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
        return _slide(np.maximum, pad(x, spans, least), self.window, spans)


@dataclass(frozen=True, slots=True)
class AveragePooling(Operation):
    """The mean of each window.

    Attributes:
        count_padding: Padding counts as zeros; otherwise it does not count.
    """

    window: Window
    count_padding: bool

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Pool ``inputs[0]``, float32 (n, channels, height, width)."""
        del out
        x = inputs[0]
        spans = self.window.place(x.shape[2:])
        result = _slide(np.add, pad(x, spans, 0), self.window, spans)
        down, across = (self._counts(axis, x.shape[2 + axis], spans[axis]) for axis in (0, 1))
        result /= np.outer(down, across).astype(np.float32)
        return result

    def _counts(self, axis: int, length: int, span: Span) -> Array:
        """Return how many elements of an axis count in each window."""
        first = np.arange(span.outputs) * self.window.stride[axis] - span.before
        last = first + self.window.size[axis]
        low, high = (-span.before, length + span.after) if self.count_padding else (0, length)
        return np.minimum(last, high) - np.maximum(first, low)


def read_pooling(layer: Any) -> Operation:
    """Read an ``IPoolingLayer``."""
    window = Window.read(layer, layer.window_size_nd)
    kind = str(layer.type.name)
    if kind == "MAX":
        return MaxPooling(window)
    if kind == "AVERAGE":
        return AveragePooling(window, not layer.average_count_excludes_padding)
    raise Unsupported(f"pooling {kind}")


def _slide(ufunc: np.ufunc, x: Array, window: Window, spans: tuple[Span, Span]) -> Array:
    """Fold each window with ``ufunc``: first down the rows, then across the columns."""
    (height, width), (down, across) = window.size, window.stride
    rows, columns = spans[0].outputs, spans[1].outputs
    tall = _fold(ufunc, [x[:, :, r : r + (rows - 1) * down + 1 : down] for r in range(height)])
    return _fold(
        ufunc, [tall[..., s : s + (columns - 1) * across + 1 : across] for s in range(width)]
    )


def _fold(ufunc: np.ufunc, parts: list[Array]) -> Array:
    """Return the parts folded into new memory."""
    if len(parts) == 1:
        return parts[0].copy()
    total: Array = ufunc(parts[0], parts[1])
    for part in parts[2:]:
        ufunc(total, part, out=total)
    return total
