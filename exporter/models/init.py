"""Initial weights: the paper's for training, and a random network for trying things."""

from __future__ import annotations

import math

import torch
from torch import nn

from exporter.models.blocks import BasicBlock, Bottleneck

__all__ = ["initialize", "randomize"]


def initialize(network: nn.Module, *, seed: int, zero_last: bool = False) -> None:
    """Set every weight for training, in place.

    Convolutions: normal with variance 2 / (k²·outputs), which keeps the gradients'
    variance through a ReLU. Source: He et al. 2015, "Delving Deep into Rectifiers"
    (arXiv 1502.01852), equation 14.

    Args:
        network: Built of this package's blocks.
        seed: Of the random numbers; the global generator is not touched.
        zero_last: Zero the scale of the last norm of each residual branch, so that each
            block starts as the identity. Source: Goyal et al. 2017 (arXiv 1706.02677),
            section 5.1. A block without an addition keeps its ones: it would be dead.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(
                module.weight, mode="fan_out", nonlinearity="relu", generator=generator
            )
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.in_features)  # PyTorch's own choice for a Linear
            nn.init.uniform_(module.weight, -bound, bound, generator=generator)
            nn.init.uniform_(module.bias, -bound, bound, generator=generator)
    if not zero_last:
        return
    for module in network.modules():
        if isinstance(module, BasicBlock) and module.add is not None:
            nn.init.zeros_(module.bn2.weight)
        elif isinstance(module, Bottleneck) and module.add is not None:
            nn.init.zeros_(module.bn3.weight)


@torch.no_grad()
def randomize(network: nn.Module, *, seed: int) -> None:
    """Set every weight and statistic at random, in place, as in a trained network.

    Convolutions keep the variance of what they read, so that values stay in range down
    to depth 152, and no norm is the identity: a pass that drops a shift or a mean is
    seen.

    Args:
        network: Any network of convolutions, norms and linear layers.
        seed: Of the random numbers; the global generator is not touched.
    """
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear", generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.1, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.normal_(0, 0.1, generator=generator)
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.1, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
