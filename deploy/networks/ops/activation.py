"""Activations.

Source: NvInfer.h, ``ActivationType``, which gives each formula in x, alpha and beta.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deploy.networks.ops.base import Array, Inputs, Operation, Unsupported
from deploy.networks.ops.threads import PART, spread_flat
from deploy.networks.ops.unary import erf

__all__ = ["Activation", "Clip", "ParametricRelu", "read_activation", "relu"]

_ZEROS = np.zeros(PART, np.float32)  # numpy compares with an array three times as fast as with 0

Formula = Callable[[Array, np.float32, np.float32], Array]


def relu(x: Array, out: Array | None = None) -> Array:
    """Return max(x, 0), in ``out`` if given."""
    if x.dtype != np.float32:
        return np.maximum(x, np.zeros((), x.dtype), out=out)
    if out is None or not out.flags.c_contiguous:
        out = np.empty(x.shape, np.float32)
    values, result = x.reshape(-1), out.reshape(-1)

    def work(part: slice) -> None:
        np.maximum(values[part], _ZEROS[: part.stop - part.start], out=result[part])

    spread_flat(work, values.size)
    return out


@dataclass(frozen=True, slots=True)
class Relu(Operation):
    """max(x, 0)."""

    exact = True
    in_place = True

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of float32, any shape."""
        return relu(inputs[0], out)


@dataclass(frozen=True, slots=True)
class Clip(Operation):
    """max(low, min(high, x))."""

    in_place = True
    low: np.float32
    high: np.float32

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of float32, any shape."""
        result: Array = np.minimum(inputs[0], self.high, out=out)
        return np.maximum(result, self.low, out=result)


@dataclass(frozen=True, slots=True)
class Activation(Operation):
    """Any other activation: a formula of x, alpha and beta."""

    kind: str
    alpha: np.float32
    beta: np.float32

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of float32, any shape."""
        del out
        return _FORMULAS[self.kind](inputs[0], self.alpha, self.beta)


@dataclass(frozen=True, slots=True)
class ParametricRelu(Operation):
    """x where x ≥ 0, slope · x elsewhere; the slope is the second input."""

    @classmethod
    def read(cls, layer: Any) -> ParametricRelu:
        """Read an ``IParametricReLULayer``."""
        del layer
        return cls()

    def __call__(self, inputs: Inputs, out: Array | None = None) -> Array:
        """Compute it of float32, any shape."""
        del out
        x, slope = inputs[:2]
        return np.asarray(np.where(x >= 0, x, x * slope))


def read_activation(layer: Any) -> Operation:
    """Read an ``IActivationLayer``."""
    kind = str(layer.type.name)
    if kind == "RELU":
        return Relu()
    alpha, beta = np.float32(layer.alpha), np.float32(layer.beta)
    if kind == "CLIP":
        return Clip(alpha, beta)
    if kind in _FORMULAS:
        return Activation(kind, alpha, beta)
    raise Unsupported(f"activation {kind}")


def _sigmoid(x: Array, alpha: np.float32, beta: np.float32) -> Array:
    del alpha, beta
    return np.float32(1) / (np.float32(1) + np.exp(-x))


def _elu(x: Array, alpha: np.float32, beta: np.float32) -> Array:
    del beta
    return np.asarray(np.where(x >= 0, x, alpha * np.expm1(x)))


def _gelu_tanh(x: Array, alpha: np.float32, beta: np.float32) -> Array:
    del alpha, beta
    inner = np.float32(np.sqrt(2 / np.pi)) * (x + np.float32(0.044715) * x**3)
    return np.asarray(np.float32(0.5) * x * (np.float32(1) + np.tanh(inner)))


_FORMULAS: Mapping[str, Formula] = {
    "SIGMOID": _sigmoid,
    "TANH": lambda x, _a, _b: np.tanh(x),
    "LEAKY_RELU": lambda x, alpha, _b: np.where(x >= 0, x, alpha * x),
    "ELU": _elu,
    "SELU": lambda x, alpha, beta: beta * np.where(x > 0, x, alpha * np.expm1(x)),
    "SOFTSIGN": lambda x, _a, _b: x / (np.float32(1) + np.abs(x)),
    # log(exp(beta · x) + 1), without its overflow.
    "SOFTPLUS": lambda x, alpha, beta: alpha * np.logaddexp(beta * x, np.float32(0)),
    "HARD_SIGMOID": lambda x, alpha, beta: np.clip(alpha * x + beta, np.float32(0), np.float32(1)),
    "SCALED_TANH": lambda x, alpha, beta: alpha * np.tanh(beta * x),
    "THRESHOLDED_RELU": lambda x, alpha, _b: np.where(x > alpha, x, np.float32(0)),
    "GELU_ERF": lambda x, _a, _b: (
        np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(np.sqrt(0.5))))
    ),
    "GELU_TANH": _gelu_tanh,
}
