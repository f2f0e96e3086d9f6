"""Convolutions whose stride has nowhere to go: over a map of one pixel, computed without it.

A padded k×k convolution reads a map one pixel wide once, whatever its stride: the result is that
of stride 1. oneDNN 3.12 (in PyTorch 2.13) makes something else of it in training: in bfloat16, and
with a stride of 2, it adds memory that nobody wrote to the gradient of the weights, which then
differs from run to run and may be NaN. Seen on CPUs with AVX-512 BF16 and AMX, for 3×3 and 7×7
windows over 1×1 maps; larger maps and float32 are right.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["keep_strides_within"]


def keep_strides_within(network: nn.Module) -> None:
    """Let the convolutions of a network leave out strides along axes of one pixel, in place.

    Parameters, state-dict keys and results stay as they are.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and isinstance(module.padding, tuple):
            module.__class__ = _Conv2d


class _Conv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x: N×C×H×W → N×O×H/s×W/s."""
        strides = tuple(
            1 if size == 1 and self._covers_once(axis) else self.stride[axis]
            for axis, size in enumerate(x.shape[2:])
        )
        return functional.conv2d(
            x, self.weight, self.bias, strides, self.padding, self.dilation, self.groups
        )

    def _covers_once(self, axis: int) -> bool:
        """Tell whether a window has one place along an axis of one pixel."""
        reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
        return 2 * int(self.padding[axis]) == reach
