"""A Q or a DQ, and what it does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exporter.rules.node import ONNX, Array, Node

__all__ = ["Quantizer", "is_dq", "is_q"]

# ONNX Runtime's own Q and DQ are the same as ONNX's; TensorRT goes by the name.
_DOMAINS = (*ONNX, "com.microsoft")


def is_q(node: Node | None) -> bool:
    """Tell whether a node is a QuantizeLinear that reads and makes something."""
    return node is not None and node.op == "QuantizeLinear" and _is_whole(node)


def is_dq(node: Node | None) -> bool:
    """Tell whether a node is a DequantizeLinear that reads and makes something."""
    return node is not None and node.op == "DequantizeLinear" and _is_whole(node)


def _is_whole(node: Node) -> bool:
    return node.domain in _DOMAINS and all((node.input(0), *(node.outputs or [""])))


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """A Q or DQ and its parameters.

    Attributes:
        node: The node.
        data: The real tensor: what Q reads, what DQ makes.
        codes: The integer tensor.
        scale: Its values; None when they are not constant.
        zero: Its zero points, empty where it has none; None when they are not constant.
        code_type: Element type of the codes (``int8``); None when it cannot be told.
        constant: Whether the data is the same in every run (a weight, a bias).
        pair: The Q whose codes this DQ reads; None for a Q, and for a DQ of anything else.
    """

    node: Node
    data: str
    codes: str
    scale: Array | None
    zero: Array | None
    code_type: str | None
    constant: bool
    pair: Node | None

    @property
    def per_tensor(self) -> bool:
        """Whether it has one scale; True when that cannot be told."""
        return self.scale is None or self.scale.size == 1

    @property
    def stored(self) -> str:
        """The tensor behind a DQ: what the Q before it reads, or the codes."""
        return self.pair.input(0) if self.pair else self.codes

    @property
    def axis(self) -> int:
        """The axis along which scales differ, as the file says it."""
        return self.node.integer("axis", 1)

    @property
    def follows(self) -> bool:
        """Whether it is a DQ that takes scale and zero point from the Q before it."""
        return self.pair is not None and self.pair.inputs[1:] == self.node.inputs[1:]

    @property
    def scale_text(self) -> str:
        """Its scale for a person: the number, or how many there are."""
        if self.scale is None or not self.scale.size:
            return "a scale that is not constant"
        if self.scale.size > 1:
            return f"{self.scale.size} scales"
        return f"scale {float(self.scale.reshape(-1)[0]):.6g}"

    def same(self, other: Quantizer) -> bool:
        """Tell whether both turn a value into the same code; False when it cannot be told."""
        if not (self.per_tensor or self.axis == other.axis):
            return False
        if self.node.inputs[1:] == other.node.inputs[1:]:
            return True
        if self.scale is None or other.scale is None:
            return False
        return _equal(self.scale, other.scale) and _equal(_zeros(self), _zeros(other))


def _zeros(quantizer: Quantizer) -> Array:
    zero = quantizer.zero
    return np.zeros(1, np.int8) if zero is None or not zero.size else zero


def _equal(one: Array, other: Array) -> bool:
    """Tell whether two arrays have equal values; one value stands for any number of it."""
    a, b = one.reshape(-1), other.reshape(-1)
    fits = a.size == b.size or 1 in (a.size, b.size)
    return fits and bool(np.all(a == b))
