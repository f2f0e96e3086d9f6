"""Where the windows of a convolution or a pooling fall.

Source: NvInfer.h, ``PaddingMode``. With I the input's length, B and A the padding before
and after, F the window, D its dilation and S the stride, a window spans DK = 1 + D · (F − 1)::

    EXPLICIT_ROUND_DOWN   O = floor((I + B + A − DK) / S) + 1
    EXPLICIT_ROUND_UP     O =  ceil((I + B + A − DK) / S) + 1
    SAME_UPPER            O = ceil(I / S), P = floor((I − 1) / S) · S + DK − I, B = floor(P / 2)
    SAME_LOWER            the same, with the larger half of P before
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Unsupported, dims

__all__ = ["Span", "Window", "pad"]

_MODES = ("EXPLICIT_ROUND_DOWN", "EXPLICIT_ROUND_UP", "SAME_UPPER", "SAME_LOWER")


@dataclass(frozen=True, slots=True)
class Span:
    """The windows along one axis.

    Attributes:
        outputs: How many there are.
        before: Padding before the input's first element.
        after: Padding behind its last element, as asked for.
        reach: How far the last window goes beyond the input's last element; it may pass
            ``after`` (ROUND_UP), or not come that far.
    """

    outputs: int
    before: int
    after: int
    reach: int


@dataclass(frozen=True, slots=True)
class Window:
    """A window over (height, width)."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]
    mode: str

    @classmethod
    def read(cls, layer: Any, size: Any, dilation: Any = (1, 1)) -> Window:
        """Read the window of an ``IConvolutionLayer`` or ``IPoolingLayer``.

        Raises:
            Unsupported: It has not two dimensions, or an unknown padding mode.
        """
        size = dims(size) or ()
        mode = str(layer.padding_mode.name)
        if len(size) != 2:
            raise Unsupported(f"a window over {len(size)} dimensions, not 2")
        if mode not in _MODES:
            raise Unsupported(f"padding mode {mode}")
        stride, before, after = map(dims, (layer.stride_nd, layer.pre_padding, layer.post_padding))
        return cls(
            size, stride or (1, 1), dims(dilation) or (1, 1), before or (), after or (), mode
        )

    def place(self, lengths: tuple[int, ...]) -> tuple[Span, Span]:
        """Return where the windows fall on an input of (height, width).

        Raises:
            ValueError: The input is smaller than the window; or SAME padding would be
                negative, since the stride leaves elements between the windows.
        """
        height, width = (self._along(axis, length) for axis, length in enumerate(lengths))
        return height, width

    def _along(self, axis: int, length: int) -> Span:
        stride = self.stride[axis]
        extent = 1 + self.dilation[axis] * (self.size[axis] - 1)
        before, after = self.before[axis], self.after[axis]
        if self.mode.startswith("SAME"):
            outputs = -(-length // stride)
            both = (length - 1) // stride * stride + extent - length
            if both < 0:  # by the formula it would crop; runtimes differ
                raise ValueError(
                    f"{self.mode} padding, with a window of {extent} and a stride of {stride}"
                )
            before = both // 2 if self.mode == "SAME_UPPER" else both - both // 2
            after = both - before
        else:
            room = length + before + after - extent
            if room < 0:
                raise ValueError(f"a window of {extent} on an axis of {length}")
            outputs = (room if self.mode == "EXPLICIT_ROUND_DOWN" else room + stride - 1) // stride
            outputs += 1
        reach = (outputs - 1) * stride + extent - before - length
        return Span(outputs, before, after, reach)


def pad(x: Array, spans: tuple[Span, Span], value: Any) -> Array:
    """Pad the last two axes so that every window lies inside.

    Args:
        x: (n, channels, height, width).
        spans: Where the windows fall.
        value: What to pad with.

    Returns:
        ``x`` itself where nothing is to be added.
    """
    (top, bottom), (left, right) = ((span.before, max(0, span.reach)) for span in spans)
    if not (top or bottom or left or right):
        return x
    n, channels, height, width = x.shape
    padded = np.empty((n, channels, top + height + bottom, left + width + right), x.dtype)
    padded[:, :, :top] = value
    padded[:, :, top + height :] = value
    rows = padded[:, :, top : top + height]
    rows[..., :left] = value
    rows[..., left + width :] = value
    rows[..., left : left + width] = x
    return padded
