"""The weights of a layer, in the units of the tensors that it reads and makes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from deploy.comparison.graphs.holding import Holding
from deploy.comparison.graphs.lineage import Lineage, attribute

__all__ = ["Weights", "Window", "weights_of"]

Array = npt.NDArray[Any]

_AT_ONCE = 1 << 16  # weights


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution moves over its input, axis by axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]  # before each axis

    @classmethod
    def of(cls, node: onnx.NodeProto, kernel: tuple[int, ...]) -> Window:
        """Read a Conv; its padding by ``auto_pad`` counts as none."""
        axes = len(kernel)
        ones = [1] * axes
        return cls(
            kernel,
            tuple(attribute(node, "strides", ones)),
            tuple(attribute(node, "dilations", ones)),
            tuple(attribute(node, "pads", [0] * 2 * axes))[:axes],
        )

    @property
    def skips(self) -> bool:
        """Whether it leaves out elements of its input."""
        return any(k < s for k, s in zip(self.kernel, self.strides, strict=True))

    def coverage(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> Array:
        """Return, for each tap, the share of outputs for which it lies inside the input.

        Args:
            inputs: Spatial size of the input.
            outputs: Of the output.

        Returns:
            (taps,)
        """
        shares = np.ones(1)
        for axis, taps in enumerate(self.kernel):
            starts = np.arange(outputs[axis]) * self.strides[axis] - self.pads[axis]
            at = starts[None, :] + np.arange(taps)[:, None] * self.dilations[axis]
            inside = ((at >= 0) & (at < inputs[axis])).mean(axis=1)
            shares = np.multiply.outer(shares, inside).reshape(-1)
        return shares


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of a convolution or matrix product.

    Attributes:
        values: (outputs, inputs of a group, taps), real units, float32.
        step: Real units a code, (outputs, 1), or (outputs, inputs of a group) where the
            channels of what it reads are held over factors; None for weights in float.
        bias: (outputs,); None for none.
        groups: Of the convolution.
        window: How it moves over its input; None for a matrix product.
    """

    values: Array
    step: Array | None
    bias: Array | None
    groups: int = 1
    window: Window | None = None

    def parts(self) -> Iterator[slice]:
        """Yield slices of the outputs: what is made of the weights of one fits the cache."""
        outputs = len(self.values)
        size = max(1, _AT_ONCE * outputs // max(self.values.size, 1))
        return (slice(start, start + size) for start in range(0, outputs, size))

    def in_units(self, read: Holding, made: Holding) -> Weights:
        """Return the weights between the tensors as they are.

        With x/f read and y/g made, weights w·f/g are w of x and y.

        Args:
            read: How the graph holds what the layer reads.
            made: How it holds what the layer makes.

        Raises:
            InputError: Those have other channels.
        """
        if read.factors is None and made.factors is None:
            return self
        outputs, inner, _ = self.values.shape
        f = read.each(inner * self.groups).reshape(self.groups, inner)
        ratio = made.each(outputs)[:, None] / f.repeat(outputs // self.groups, axis=0)
        bias = self.bias
        # Those of codes were made for this; others are the network's own.
        values = np.empty_like(self.values) if self.step is None else self.values
        np.multiply(self.values, ratio[:, :, None], out=values, casting="same_kind")
        return replace(
            self,
            values=values,
            step=None if self.step is None else self.step * ratio,
            bias=None if bias is None else bias * made.each(outputs),
        )


def weights_of(graph: Lineage, node: onnx.NodeProto) -> Weights | None:
    """Return the weights of a Conv, Gemm or MatMul as the graph has them, the output first."""
    found = graph.value(node.input[1])
    if found is None or found[0].ndim < 2 or not found[0].size:
        return None
    values, step, axis = found
    groups = int(attribute(node, "group", 1))
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not attribute(node, "transB", 0)):
        values, axis = np.swapaxes(values, 0, 1), 1 - axis
    if attribute(node, "transA", 0):
        return None
    if step is not None and (step.size == 1 or axis == 0):
        step = np.broadcast_to(step, len(values))
    elif step is not None:  # along the inputs: the largest bounds them all
        step = np.full(len(values), step.max())
    bias = graph.value(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    alpha = float(attribute(node, "alpha", 1.0))
    flat = values.reshape(len(values), values.shape[1], -1)
    return Weights(
        values=flat * np.float32(alpha) if alpha != 1.0 else flat,
        step=None if step is None else step[:, None],
        bias=None if bias is None else np.broadcast_to(bias[0].reshape(-1), len(values)),
        groups=groups,
        window=Window.of(node, values.shape[2:]) if node.op_type == "Conv" else None,
    )
