"""Convolutions as matrix products, where a CPU trains them faster so: the same numbers.

Two kinds of convolution are matrix products in disguise:

- a 1×1 is one over the pixels, and in channels-last memory its operands lie ready:
  y[n·h·w, o] = Σ_c x[n·h·w, c] · W[o, c];
- any k×k whose padded window covers the whole of a map of one or four pixels is one over
  those pixels: y[n, o, p] = Σ_{c,q} x[n, c, q] · W[o, c, tap(p, q)]. The other taps meet
  padding alone: they add zeros, and their gradients are zero.

A training at 32×32 ends in maps of 2×2 and 1×1, for which general convolution code (oneDNN
3.12 in PyTorch 2.13) is far from the speed of a product: the gradient of a 512→512 3×3 over
one pixel at batch 64 takes 83 ms there, 3 ms here (one core, AVX2).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["use_products"]

_LARGEST_MAP = 2  # pixels a side; from 3 on, a window no longer meets every pixel


def use_products(network: nn.Module) -> None:
    """Let the convolutions of a network compute by products where that is faster, in place.

    Parameters, state-dict keys and results stay as they are, but for the order in which
    a sum is taken. Meant for channels-last memory.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and module.groups == 1 and module.bias is None:
            module.__class__ = _ProductConv2d


class _ProductConv2d(nn.Conv2d):
    """A convolution that looks at its input's shape before it chooses its way."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x: N×C×H×W → N×O×H/s×W/s."""
        height, width = x.shape[2:]
        if self.kernel_size == (1, 1):
            return _pixelwise(x, self.weight, self.stride[0])
        if (
            self.kernel_size == (3, 3)
            and self.padding == (1, 1)
            and height <= _LARGEST_MAP
            and width <= _LARGEST_MAP
        ):
            return _whole_map(x, self.weight, self.stride[0])
        return super().forward(x)


def _pixelwise(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return a 1×1 convolution as a product over the pixels."""
    pixels = x[:, :, ::stride, ::stride].permute(0, 2, 3, 1)  # N×H×W×C, a view
    return functional.linear(pixels, weight.flatten(1)).permute(0, 3, 1, 2)


def _whole_map(x: Tensor, weight: Tensor, stride: int) -> Tensor:
    """Return a padded 3×3 convolution over at most 2×2 pixels, by rows of the map."""
    pixels = x.permute(0, 2, 3, 1).contiguous()  # N×H×W×C
    y: Tensor = _WholeMap.apply(pixels, weight, stride)  # type: ignore[no-untyped-call]
    return y.permute(0, 3, 1, 2)


class _WholeMap(torch.autograd.Function):
    """A padded 3×3 convolution over a map of at most 2×2 pixels: N×H×W×C → N×P×Q×O.

    Output pixel (p, q) reads input row r through the taps of row r − s·p + 1, whose columns
    lie side by side in channels-last memory: each pair (p, q), r is one product without a
    copy. s·p is p itself: a stride of 2 leaves a single output.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        """Sum the products over the input's rows."""
        taps = weight.permute(0, 2, 3, 1).contiguous()  # O×3×3×C; a view in channels-last
        ctx.save_for_backward(x, taps)
        count, height, width, _ = x.shape
        ctx.size = (height - 1) // stride + 1, (width - 1) // stride + 1
        y = x.new_empty(count, *ctx.size, taps.shape[0])
        for p, q, r in _terms(height, ctx.size):
            read, through = x[:, r].flatten(1), _tap_row(taps, r - p + 1, q, width)
            if r == 0:
                torch.mm(read, through.t(), out=y[:, p, q])
            else:
                y[:, p, q].addmm_(read, through.t())
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of x and of the weight; a tap that met nothing has zero."""
        x, taps = ctx.saved_tensors
        height, width = x.shape[1:3]
        gradient = gradient.contiguous()
        dx, dtaps = torch.zeros_like(x), torch.zeros_like(taps)
        for p, q, r in _terms(height, ctx.size):
            dy = gradient[:, p, q]
            dx[:, r].flatten(1).addmm_(dy, _tap_row(taps, r - p + 1, q, width))
            _tap_row(dtaps, r - p + 1, q, width).addmm_(dy.t(), x[:, r].flatten(1))
        return dx, dtaps.permute(0, 3, 1, 2), None


def _terms(height: int, size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Return every output pixel (p, q) with every input row r."""
    return [(p, q, r) for p in range(size[0]) for q in range(size[1]) for r in range(height)]


def _tap_row(taps: Tensor, row: int, q: int, width: int) -> Tensor:
    """Return the taps of a row that output column q reads through: O × (width·C), a view."""
    return taps[:, row, 1 - q : 1 - q + width].flatten(1)
