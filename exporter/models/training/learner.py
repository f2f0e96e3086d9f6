"""A network that learns: one step of stochastic gradient descent at a time, on a CPU."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from exporter.models.config import ResNetConfig
from exporter.models.resnet import build
from exporter.models.training.products import use_products
from exporter.models.training.single_pixel import keep_strides_within

__all__ = ["Learner", "Recipe", "has_fast_bfloat16", "one_cycle"]

_MOMENTUM = (0.85, 0.95)  # at the peak of the learning rate, and at both ends
_FIRST, _LAST = 1 / 25, 1 / 250_000  # of the peak learning rate
_WARM_UP = 0.2  # share of the training on which the learning rate rises


@dataclass(frozen=True, slots=True)
class Recipe:
    """How weights follow gradients.

    Attributes:
        lr: The peak of the learning rate.
        seed: Of the initial weights.
        weight_decay: On matrices and filters; scales, shifts and biases have none.
        label_smoothing: Share of the target spread over all classes. Source: Szegedy et
            al. 2015 (arXiv 1512.00567), section 7.
        zero_last: Start each residual branch at zero (see ``init.initialize``).
        bfloat16: Compute convolutions in bfloat16 (where the CPU is built for it).
    """

    lr: float
    seed: int = 0
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    zero_last: bool = True
    bfloat16: bool = False


def one_cycle(done: float) -> tuple[float, float]:
    """Return the learning rate (as a share of its peak) and the momentum at a point.

    Both follow cosines: the rate rises over the first fifth and falls to nothing, the
    momentum does the reverse. Source: Smith & Topin 2017, "Super-Convergence" (arXiv
    1708.07120).

    Args:
        done: Share of the training that is behind, 0 to 1.
    """
    low, high = _MOMENTUM
    if done < _WARM_UP:
        height = (1 - math.cos(math.pi * done / _WARM_UP)) / 2
        return _FIRST + (1 - _FIRST) * height, high + (low - high) * height
    height = (1 + math.cos(math.pi * (done - _WARM_UP) / (1 - _WARM_UP))) / 2
    return _LAST + (1 - _LAST) * height, high + (low - high) * height


def has_fast_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware; in software it is 50 times slower."""
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, bool)()) for name in names)


class Learner:
    """A network in training and its optimizer; the same steps give the same weights.

    The optimizer is SGD with Nesterov momentum. It sees each filter as O×h×w×C, as it lies
    in channels-last memory: PyTorch 2.13's fused step copies a tensor that is not
    contiguous, forth and back.
    """

    def __init__(self, config: ResNetConfig, recipe: Recipe) -> None:
        self.recipe = recipe
        self.network = build(config, seed=recipe.seed, zero_last=recipe.zero_last)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if recipe.bfloat16:
            keep_strides_within(self.network)
        else:
            use_products(self.network)
        self._parameters = list(self.network.parameters())
        self._views = [_physical(parameter) for parameter in self._parameters]
        groups = [
            {"params": [v for v in self._views if v.ndim > 1], "weight_decay": recipe.weight_decay},
            {"params": [v for v in self._views if v.ndim <= 1], "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.SGD(
            groups, lr=recipe.lr, momentum=_MOMENTUM[1], nesterov=True, fused=True
        )

    def step(self, images: Tensor, labels: Tensor, done: float) -> float:
        """Learn from one batch and return its loss before that.

        Args:
            images: float32, N×3×H×W, best in channels-last memory.
            labels: int64, N.
            done: Share of the training that is behind, 0 to 1.
        """
        rate, momentum = one_cycle(done)
        for group in self._optimizer.param_groups:
            group["lr"], group["momentum"] = self.recipe.lr * rate, momentum
        self.network.train()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.recipe.bfloat16):
            logits = self.network(images)
        loss = functional.cross_entropy(
            logits.float(), labels, label_smoothing=self.recipe.label_smoothing
        )
        self.network.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for view, parameter in zip(self._views, self._parameters, strict=True):
            if parameter.grad is not None:
                view.grad = _physical(parameter.grad)
        self._optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Return the answers in evaluation mode: int64, N."""
        self.network.eval()
        answers: Tensor = self.network(images).argmax(1)
        return answers

    def weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights in ordinary memory order."""
        return {
            name: tensor.detach().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.network.state_dict().items()
        }

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on: tensors and plain values."""
        return {"weights": self.weights(), "optimizer": self._optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Carry on from what :meth:`state` returned."""
        self.network.load_state_dict(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])


def _physical(tensor: Tensor) -> Tensor:
    """Return a filter as O×h×w×C, contiguous: a view in channels-last memory."""
    tensor = tensor.detach()
    return tensor.permute(0, 2, 3, 1).contiguous() if tensor.ndim == 4 else tensor
