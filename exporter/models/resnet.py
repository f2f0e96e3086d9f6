"""The residual network of He et al., layer for layer as the paper's table 1 lists it.

| stage   | output   | depth 18, 34 | depth 50, 101, 152 |
|---------|----------|--------------|--------------------|
| conv1   | H/2×W/2  | 7×7, 64, stride 2             ||
| conv2_x | H/4×W/4  | 3×3 max pool, stride 2        ||
|         |          | [3×3, 3×3] 64   | [1×1, 3×3] 64, 1×1 256   |
| conv3_x | H/8×W/8  | [3×3, 3×3] 128  | [1×1, 3×3] 128, 1×1 512  |
| conv4_x | H/16×W/16 | [3×3, 3×3] 256 | [1×1, 3×3] 256, 1×1 1024 |
| conv5_x | H/32×W/32 | [3×3, 3×3] 512 | [1×1, 3×3] 512, 1×1 2048 |
|         | 1×1      | global average pool, fully connected ||

Source: He et al. 2015, "Deep Residual Learning for Image Recognition" (arXiv 1512.03385).
State-dict keys are torchvision's: conv2_x … conv5_x are ``layer1`` … ``layer4``.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from exporter.models.blocks import (
    BasicBlock,
    BlockShape,
    Bottleneck,
    PreActivationBasicBlock,
    PreActivationBottleneck,
    conv,
)
from exporter.models.config import ResNetConfig
from exporter.models.init import initialize

__all__ = ["ResNet", "build", "skeleton"]


class ResNet(nn.Module):
    """A residual network for images.

    Input: N×3×H×W float32. Output: logits N×classes, or with ``config.features`` the
    tuple (C2, C3, C4, C5) of the stages' outputs at 1/4, 1/8, 1/16 and 1/32. With
    pre-activation C2 … C4 are the sums as they are, and C5 is behind the last norm and
    ReLU.

    A fresh one has PyTorch's own initial weights: :func:`build` gives it the paper's.
    """

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv1 = conv(3, width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)

        self.layer1 = self.make_layer(0)
        self.layer2 = self.make_layer(1)
        self.layer3 = self.make_layer(2)
        self.layer4 = self.make_layer(3)

        outputs = 8 * width * config.expansion
        pre_activation = config.version == "2"
        self.final_bn = nn.BatchNorm2d(outputs) if pre_activation else None
        self.final_relu = nn.ReLU() if pre_activation else None
        if not config.features:
            self.avgpool = nn.AdaptiveAvgPool2d(1)
            self.flatten = nn.Flatten(1)
            self.fc = nn.Linear(outputs, config.classes)

    def make_layer(self, stage: int) -> nn.Sequential:
        """Return the blocks of a stage, 0 to 3; the first one halves the size but in 0."""
        config = self.config
        planes = config.width << stage
        shape = BlockShape(
            inputs=config.width if stage == 0 else planes // 2 * config.expansion,
            inner=planes * config.width_per_group // 64 * config.groups,
            outputs=planes * config.expansion,
            stride=1 if stage == 0 else 2,
            groups=config.groups,
            stride_first=config.version == "1",
            shortcut=config.shortcut,
            pre_activation=config.version == "2",
            activated=stage == 0,  # by the stem
        )
        rest = replace(shape, inputs=shape.outputs, stride=1, activated=False)
        count = config.stages[stage]
        return nn.Sequential(*(_block(config, s) for s in (shape, *[rest] * (count - 1))))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the logits, or the four stages' outputs."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))  # N × 64 × H/4 × W/4
        c2 = self.layer1(x)
        c3 = self.layer2(c2)
        c4 = self.layer3(c3)
        c5 = self.layer4(c4)
        if self.final_bn is not None and self.final_relu is not None:
            c5 = self.final_relu(self.final_bn(c5))
        if self.config.features:
            return c2, c3, c4, c5
        logits: Tensor = self.fc(self.flatten(self.avgpool(c5)))
        return logits


def _block(config: ResNetConfig, shape: BlockShape) -> nn.Module:
    """Return the block of this depth and version."""
    if config.version == "2":
        return (PreActivationBottleneck if config.bottleneck else PreActivationBasicBlock)(shape)
    return (Bottleneck if config.bottleneck else BasicBlock)(shape)


def skeleton(config: ResNetConfig) -> ResNet:
    """Return a network that has shapes but no numbers: no time and no memory go to them."""
    with torch.device("meta"):
        return ResNet(config)


def build(config: ResNetConfig, *, seed: int = 0, zero_last: bool = False) -> ResNet:
    """Return a network with fresh weights, the same for the same seed.

    Args:
        config: The network.
        seed: Of the random weights.
        zero_last: Start every branch at zero (see :func:`~exporter.models.init.initialize`).
    """
    network = skeleton(config).to_empty(device="cpu")
    initialize(network, seed=seed, zero_last=zero_last)
    return network
