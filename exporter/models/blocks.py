"""The building blocks of a residual network: H(x) = F(x) + x, then ReLU.

Every operation is a module with a name of its own, additions and ReLUs too, so that a
hook, a node of the exported graph and a row of a comparison mean the same tensor.
Names of parameters are torchvision's.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "Add",
    "BasicBlock",
    "BlockShape",
    "Bottleneck",
    "PadChannels",
    "PreActivationBasicBlock",
    "PreActivationBottleneck",
    "Subsample",
    "conv",
]


def conv(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """Return a k×k convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )


class Add(nn.Module):
    """The sum of a branch and its shortcut, two tensors of one shape."""

    def forward(self, branch: Tensor, shortcut: Tensor) -> Tensor:
        """Return branch + shortcut."""
        return branch + shortcut


class Subsample(nn.Module):
    """Keep every ``stride``-th row and column: N×C×H×W → N×C×⌈H/s⌉×⌈W/s⌉."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return the kept pixels."""
        return x[:, :, :: self.stride, :: self.stride]


class PadChannels(nn.Module):
    """Append channels of zeros: N×C×H×W → N×(C+extra)×H×W."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        """Return the wider tensor."""
        return functional.pad(x, (0, 0, 0, 0, 0, self.extra))


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One block of the table: its channels, its stride and its way round.

    Attributes:
        inputs: Channels that come in.
        inner: Channels of the branch's 3×3.
        outputs: Channels that go out.
        stride: Of the whole block, 1 or 2.
        groups: Of the bottleneck's 3×3.
        stride_first: A bottleneck strides in its first 1×1, not in its 3×3.
        shortcut: One of ``config.SHORTCUTS``.
        pre_activation: Norm and ReLU come before each convolution.
        activated: The input is activated already (the first block behind the stem).
    """

    inputs: int
    inner: int
    outputs: int
    stride: int = 1
    groups: int = 1
    stride_first: bool = False
    shortcut: str = "projection"
    pre_activation: bool = False
    activated: bool = False

    def downsample(self) -> nn.Sequential | None:
        """Return what the shortcut does to x; None for the identity and for no shortcut.

        Source: He et al. 2015, section 3.3 and table 3, options A, B and C.
        """
        same = self.stride == 1 and self.inputs == self.outputs
        if self.shortcut == "none" or (same and self.shortcut != "projection-all"):
            return None
        if self.shortcut == "identity-pad":
            steps: list[nn.Module] = [Subsample(self.stride)] if self.stride > 1 else []
            if self.outputs > self.inputs:
                steps.append(PadChannels(self.outputs - self.inputs))
            return nn.Sequential(*steps)
        projection = conv(self.inputs, self.outputs, 1, stride=self.stride)
        if self.pre_activation:
            return nn.Sequential(projection)
        return nn.Sequential(projection, nn.BatchNorm2d(self.outputs))

    def add(self) -> Add | None:
        """Return the addition; None in a plain network."""
        return None if self.shortcut == "none" else Add()


class BasicBlock(nn.Module):
    """3×3, 3×3; each with its norm (depth 18 and 34)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.conv1 = conv(shape.inputs, shape.inner, 3, stride=shape.stride)
        self.bn1 = nn.BatchNorm2d(shape.inner)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(shape.inner, shape.outputs, 3)
        self.bn2 = nn.BatchNorm2d(shape.outputs)
        self.downsample = shape.downsample()
        self.add = shape.add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + x): N×inputs×H×W → N×outputs×H/s×W/s."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.add is not None:
            y = self.add(y, x if self.downsample is None else self.downsample(x))
        return _tensor(self.relu(y))


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1; each with its norm (depth 50, 101 and 152)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        first, second = (shape.stride, 1) if shape.stride_first else (1, shape.stride)
        self.conv1 = conv(shape.inputs, shape.inner, 1, stride=first)
        self.bn1 = nn.BatchNorm2d(shape.inner)
        self.relu1 = nn.ReLU()
        self.conv2 = conv(shape.inner, shape.inner, 3, stride=second, groups=shape.groups)
        self.bn2 = nn.BatchNorm2d(shape.inner)
        self.relu2 = nn.ReLU()
        self.conv3 = conv(shape.inner, shape.outputs, 1)
        self.bn3 = nn.BatchNorm2d(shape.outputs)
        self.downsample = shape.downsample()
        self.add = shape.add()
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return relu(F(x) + x): N×inputs×H×W → N×outputs×H/s×W/s."""
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        if self.add is not None:
            y = self.add(y, x if self.downsample is None else self.downsample(x))
        return _tensor(self.relu(y))


class PreActivationBasicBlock(nn.Module):
    """Norm, ReLU, 3×3, twice; nothing behind the addition.

    A shortcut that changes the shape starts behind the first activation; the identity
    takes x as it is. Source: He et al. 2016 (arXiv 1603.05027), figure 4e and appendix.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.bn1 = None if shape.activated else nn.BatchNorm2d(shape.inputs)
        self.relu1 = None if shape.activated else nn.ReLU()
        self.conv1 = conv(shape.inputs, shape.inner, 3, stride=shape.stride)
        self.bn2 = nn.BatchNorm2d(shape.inner)
        self.relu2 = nn.ReLU()
        self.conv2 = conv(shape.inner, shape.outputs, 3)
        self.downsample = shape.downsample()
        self.add = shape.add()

    def forward(self, x: Tensor) -> Tensor:
        """Return F(x) + x: N×inputs×H×W → N×outputs×H/s×W/s."""
        active = x if self.bn1 is None or self.relu1 is None else self.relu1(self.bn1(x))
        y = self.conv1(active)
        y = self.conv2(self.relu2(self.bn2(y)))
        if self.add is not None:
            y = self.add(y, x if self.downsample is None else self.downsample(active))
        return _tensor(y)


class PreActivationBottleneck(nn.Module):
    """Norm, ReLU, convolution, three times (1×1, 3×3, 1×1); as the basic one above."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.bn1 = None if shape.activated else nn.BatchNorm2d(shape.inputs)
        self.relu1 = None if shape.activated else nn.ReLU()
        self.conv1 = conv(shape.inputs, shape.inner, 1)
        self.bn2 = nn.BatchNorm2d(shape.inner)
        self.relu2 = nn.ReLU()
        self.conv2 = conv(shape.inner, shape.inner, 3, stride=shape.stride, groups=shape.groups)
        self.bn3 = nn.BatchNorm2d(shape.inner)
        self.relu3 = nn.ReLU()
        self.conv3 = conv(shape.inner, shape.outputs, 1)
        self.downsample = shape.downsample()
        self.add = shape.add()

    def forward(self, x: Tensor) -> Tensor:
        """Return F(x) + x: N×inputs×H×W → N×outputs×H/s×W/s."""
        active = x if self.bn1 is None or self.relu1 is None else self.relu1(self.bn1(x))
        y = self.conv1(active)
        y = self.conv2(self.relu2(self.bn2(y)))
        y = self.conv3(self.relu3(self.bn3(y)))
        if self.add is not None:
            y = self.add(y, x if self.downsample is None else self.downsample(active))
        return _tensor(y)


def _tensor(value: object) -> Tensor:
    """Give what a module returned its type, which ``nn.Module.__call__`` leaves open."""
    if not isinstance(value, torch.Tensor):
        raise TypeError(f"a module returned {type(value).__name__}, not a tensor")
    return value
