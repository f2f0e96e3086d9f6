"""Convolution as matrix products, in blocks that stay in cache.

::

    y[n, k, i, j] = b[k] + Σ_c Σ_r Σ_s  w[k, c, r, s] · x[n, c, i·S + r·D − B, j·S + s·D − B]

A 1×1 convolution is one product of (K, C) and (C, positions) an image. Any other gathers
what each position sees as the column of a matrix (C·R·S, positions), some positions at a
time; small images are gathered several at once, since a product with few columns is slow.
A depthwise convolution has no sum over channels: it adds up shifted images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from deploy.network_ops.base import Array, Inputs, Operation, Unsupported, dims, weights
from deploy.network_ops.window import Span, Window, pad

__all__ = ["Convolution"]

_BLOCK_BYTES = 1 << 21  # of gathered columns
_FEWEST_COLUMNS = 256
_CHANNEL_BYTES = 1 << 17  # of a depthwise convolution's work array

Spans = tuple[Span, Span]


@dataclass(frozen=True, slots=True, eq=False)
class Convolution(Operation):
    """A convolution over (n, channels, height, width).

    Attributes:
        kernel: float32 (K, C / groups, R, S); None when it is the second input.
        bias: float32 (K,); None when it is the third input, or there is none.
    """

    window: Window
    groups: int
    kernel: Array | None
    bias: Array | None

    @classmethod
    def read(cls, layer: Any) -> Convolution:
        """Read an ``IConvolutionLayer``."""
        window = Window.read(layer, layer.kernel_size_nd, layer.dilation_nd)
        groups = int(layer.num_groups)
        kernel, bias = weights(layer.kernel), weights(layer.bias)
        if layer.num_inputs > 1 and layer.get_input(1) is not None:
            kernel = None
        elif kernel is None:
            raise Unsupported("no kernel")
        else:
            size = dims(layer.kernel_size_nd) or ()
            kernel = kernel.reshape(int(layer.num_output_maps), -1, *size)
        return cls(window, groups, kernel, bias)

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Convolve ``inputs[0]``, float32 (n, C, H, W)."""
        del out
        x, kernel, bias = inputs[0], self.kernel, self.bias
        kernel = inputs[1] if kernel is None else kernel
        bias = inputs[2] if len(inputs) > 2 else bias
        spans = self.window.place(x.shape[2:])
        x = pad(x, spans, 0)
        if self.window.size == (1, 1) and self.groups == 1:
            result = _pointwise(self._picked(x, spans), kernel[:, :, 0, 0])
        elif self.groups == x.shape[1] == len(kernel):
            result = self._depthwise(x, kernel[:, 0], spans)
        else:
            result = self._gathered(x, kernel, spans)
        if bias is not None:
            result += bias[:, None, None]
        return result

    def _picked(self, x: Array, spans: Spans) -> Array:
        """Return the elements that a 1×1 window sees."""
        (down, across), (rows, columns) = self.window.stride, spans
        if (down, across) == (1, 1):
            return x[:, :, : rows.outputs, : columns.outputs]
        return x[:, :, ::down, ::across][:, :, : rows.outputs, : columns.outputs]

    def _views(self, x: Array, spans: Spans) -> Array:
        """Return what each window sees, (C, R, S, n, rows, columns), without copying."""
        n, channels = x.shape[:2]
        (down, across), (below, beside) = self.window.stride, self.window.dilation
        image, channel, row, element = x.strides
        return as_strided(
            x,
            (channels, *self.window.size, n, spans[0].outputs, spans[1].outputs),
            (channel, row * below, element * beside, image, row * down, element * across),
            writeable=False,
        )

    def _depthwise(self, x: Array, kernel: Array, spans: Spans) -> Array:
        """Convolve each channel with its own (R, S)."""
        views = self._views(x, spans)
        channels, _, _, n, rows, columns = views.shape
        result = np.empty((n, channels, rows, columns), np.float32)
        step = max(1, _CHANNEL_BYTES // (4 * rows * columns))
        for image in range(n):
            for first in range(0, channels, step):
                some = slice(first, first + step)
                _add_shifted(views[some, :, :, image], kernel[some], result[image, some])
        return result

    def _gathered(self, x: Array, kernel: Array, spans: Spans) -> Array:
        """Convolve by gathering columns."""
        views = self._views(x, spans)
        n, rows, columns = views.shape[3:]
        factors = kernel.reshape(self.groups, len(kernel) // self.groups, -1)
        result = np.empty((n, len(kernel), rows, columns), np.float32)
        flat = result.reshape(n, *factors.shape[:2], rows * columns)
        for images, some in _blocks(views.shape):
            part = views[:, :, :, images, some]
            gathered = np.ascontiguousarray(part).reshape(self.groups, factors.shape[2], -1)
            if part.shape[3] == 1:
                first = some.start * columns
                into = flat[images.start, :, :, first : first + gathered.shape[2]]
                np.matmul(factors, gathered, out=into)
            else:
                product = np.matmul(factors, gathered).reshape(-1, *part.shape[3:])
                result[images] = product.transpose(1, 0, 2, 3)
        return result


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield (images, rows of the output) for each block of columns."""
    channels, height, width, n, rows, columns = shape
    most = max(_FEWEST_COLUMNS, _BLOCK_BYTES // (4 * channels * height * width))
    images = max(1, most // (rows * columns))
    step = rows if images > 1 else max(1, most // columns)
    for first in range(0, n, images):
        for top in range(0, rows, step):
            yield slice(first, first + images), slice(top, top + step)


def _pointwise(x: Array, kernel: Array) -> Array:
    """Convolve (n, C, H, W) by (K, C)."""
    n, channels, *size = x.shape
    positions = size[0] * size[1]
    if n == 1 or positions >= _FEWEST_COLUMNS:
        product: Array = np.matmul(kernel, x.reshape(n, channels, positions))
        return product.reshape(n, len(kernel), *size)
    result = np.empty((n, len(kernel), *size), np.float32)
    step = -(-_FEWEST_COLUMNS * 4 // positions)
    for first in range(0, n, step):
        some = x[first : first + step].transpose(1, 0, 2, 3)
        product = np.matmul(kernel, some.reshape(channels, -1))
        result[first : first + step] = product.reshape(-1, *some.shape[1:]).transpose(1, 0, 2, 3)
    return result


def _add_shifted(views: Array, kernel: Array, out: Array) -> None:
    """Write Σ kernel[c, r, s] · views[c, r, s] to ``out``, (c, rows, columns)."""
    work = np.empty_like(out)
    height, width = kernel.shape[1:]
    for r in range(height):
        for s in range(width):
            first = r == s == 0
            factor = kernel[:, r, s, None, None]
            np.multiply(views[:, r, s], factor, out=out if first else work)
            if not first:
                out += work
