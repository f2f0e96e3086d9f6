"""Convolution as matrix products, in blocks that stay in cache.

::

    y[n, k, i, j] = b[k] + Σ_c Σ_r Σ_s  w[k, c, r, s] · x[n, c, i·S + r·D − B, j·S + s·D − B]

A 1×1 convolution is one product of (K, C) and (C, positions) an image. Any other gathers
what each position sees as the column of a matrix (C·R·S, positions), some positions at a
time; small images are gathered several at once, since a product with few columns is slow.
A depthwise convolution has no sum over channels: it adds up shifted images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported, dims, weights
from deploy.networks.ops.products import FEWEST_COLUMNS, pointwise, product, spread_product
from deploy.networks.ops.threads import spread, workers
from deploy.networks.ops.window import Span, Window, pad

__all__ = ["Convolution"]

_BLOCK_BYTES = 1 << 20  # of gathered columns
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
        size = (spans[0].outputs, spans[1].outputs)
        result = np.empty((len(x), len(kernel), *size), np.float32)
        if self.window.size == (1, 1) and self.groups == 1:
            pointwise(self._picked(x, size), kernel[:, :, 0, 0], bias, result)
        elif self.groups == x.shape[1] == len(kernel):
            _depthwise(self._views(x, size), kernel[:, 0], bias, result)
        else:
            _gathered(self._views(x, size), kernel, bias, result)
        return result

    def _picked(self, x: Array, size: tuple[int, int]) -> Array:
        """Return the elements that a 1×1 window sees."""
        down, across = self.window.stride
        return x[:, :, ::down, ::across][:, :, : size[0], : size[1]]

    def _views(self, x: Array, size: tuple[int, int]) -> Array:
        """Return what each window sees, (C, R, S, n, rows, columns), without copying."""
        n, channels = x.shape[:2]
        (down, across), (below, beside) = self.window.stride, self.window.dilation
        image, channel, row, element = x.strides
        return as_strided(
            x,
            (channels, *self.window.size, n, *size),
            (channel, row * below, element * beside, image, row * down, element * across),
            writeable=False,
        )


def _gathered(views: Array, kernel: Array, bias: Array | None, out: Array) -> None:
    """Convolve by gathering columns.

    Args:
        views: What each window sees, (C, R, S, n, rows, columns).
        kernel: (K, C / groups, R, S).
        bias: (K,), or None.
        out: (n, K, rows, columns).
    """
    n, rows, columns = views.shape[3:]
    groups = len(views) // kernel.shape[1]
    factors = kernel.reshape(groups, len(kernel) // groups, -1)
    offset = None if bias is None else bias.reshape(groups, -1)
    flat = out.reshape(n, *factors.shape[:2], rows * columns)
    blocks = _blocks(views.shape)
    alone = len(blocks) < workers()  # then each block's product is spread in turn
    multiply = spread_product if alone else product

    def work(block: tuple[slice, slice]) -> None:
        images, some = block
        part = views[:, :, :, images, some]
        gathered = np.ascontiguousarray(part).reshape(groups, factors.shape[2], -1)
        if part.shape[3] == 1:
            first = some.start * columns
            into = flat[images.start, :, :, first : first + gathered.shape[2]]
            multiply(factors, gathered, offset, into)
        else:
            into = np.empty((*factors.shape[:2], gathered.shape[2]), np.float32)
            multiply(factors, gathered, offset, into)
            out[images] = into.reshape(-1, *part.shape[3:]).transpose(1, 0, 2, 3)

    if alone:
        for block in blocks:
            work(block)
    else:
        spread(work, blocks)


def _blocks(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Return (images, rows of the output) for each block of columns."""
    channels, height, width, n, rows, columns = shape
    most = max(FEWEST_COLUMNS, _BLOCK_BYTES // (4 * channels * height * width))
    images = max(1, most // (rows * columns))
    step = rows if images > 1 else max(1, most // columns)
    return [
        (slice(first, first + images), slice(top, top + step))
        for first in range(0, n, images)
        for top in range(0, rows, step)
    ]


def _depthwise(views: Array, kernel: Array, bias: Array | None, out: Array) -> None:
    """Convolve each channel with its own (R, S); arguments as for :func:`_gathered`."""
    channels, _, _, n, rows, columns = views.shape
    step = max(1, _CHANNEL_BYTES // (4 * rows * columns))

    def work(block: tuple[int, slice]) -> None:
        image, some = block
        into = out[image, some]
        _add_shifted(views[some, :, :, image], kernel[some], into)
        if bias is not None:
            into += bias[some, None, None]

    firsts = range(0, channels, step)
    spread(work, [(image, slice(first, first + step)) for image in range(n) for first in firsts])


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
