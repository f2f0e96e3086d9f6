"""What a layer multiplies its weights by, for some of the outputs that it makes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporter.passes.base import is_op

__all__ = ["Reader"]

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reader:
    """A layer, as far as it says what it reads.

    Attributes:
        tensor: What it reads.
        groups: Of a Conv, 1 otherwise.
        kernel: Taps along each spatial axis; empty for a Gemm or MatMul.
        strides: Likewise.
        dilations: Likewise.
        pads: Zeros before each axis, then behind each.
        transposed: Whether the weight has its outputs last.
    """

    tensor: str
    groups: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    transposed: bool = False

    @classmethod
    def of(cls, node: ir.Node) -> Reader | None:
        """Return the reader that a Conv, Gemm or MatMul is; None where its padding is implicit."""
        source, weight = node.inputs[0], node.inputs[1]
        if source is None or weight is None or weight.const_value is None:
            return None
        attributes, tensor = node.attributes, str(source.name)
        if not is_op(node, "Conv"):
            return cls(tensor, transposed=not attributes.get_int("transB", 0))
        kernel = weight.const_value.numpy().shape[2:]
        if attributes.get_string("auto_pad", "NOTSET") not in {"NOTSET", "VALID"}:
            return None
        return cls(
            tensor,
            attributes.get_int("group", 1) or 1,
            kernel,
            tuple(attributes.get_ints("strides", ()) or (1,) * len(kernel)),
            tuple(attributes.get_ints("dilations", ()) or (1,) * len(kernel)),
            tuple(attributes.get_ints("pads", ()) or (0, 0) * len(kernel)),
        )

    def rows(self, weight: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        """Return a weight as (groups, outputs of a group, K): a view of it."""
        matrix = weight.T if self.transposed else weight
        return matrix.reshape(self.groups, len(matrix) // self.groups, -1)

    def like(self, rows: npt.NDArray[np.int8], shape: tuple[int, ...]) -> npt.NDArray[np.int8]:
        """Return what :meth:`rows` took apart in the weight's own shape again."""
        if self.transposed:
            return np.ascontiguousarray(rows.reshape(shape[::-1]).T)
        return rows.reshape(shape)

    def sample(self, tensor: _Floats, count: int, image: int) -> _Floats:
        """Return what some outputs are made of.

        Args:
            tensor: What the layer read, batch axis first: the first image counts.
            count: How many outputs of each channel, if there are so many.
            image: Its number: of another image, other outputs are taken.

        Returns:
            (outputs, groups, K) float32, K in the order of :meth:`rows`; 0 where padding is read.
        """
        if not self.kernel:
            flat = tensor[:1].reshape(-1, 1, tensor.shape[-1])
            return flat[_some(len(flat), count, image)]
        return self._windows(tensor[0], count, image)

    def _windows(self, tensor: _Floats, count: int, image: int) -> _Floats:
        read, axes = tensor.shape[1:], range(len(self.kernel))
        made = [
            (read[a] + self.pads[a] + self.pads[a + len(axes)] - self.dilations[a] * (k - 1) - 1)
            // self.strides[a]
            + 1
            for a, k in enumerate(self.kernel)
        ]
        outputs = np.unravel_index(_some(int(np.prod(made)), count, image), made)
        taps = np.unravel_index(np.arange(int(np.prod(self.kernel))), self.kernel)
        at = [
            outputs[a][:, None] * self.strides[a] - self.pads[a] + taps[a] * self.dilations[a]
            for a in axes
        ]
        within = np.all([(at[a] >= 0) & (at[a] < read[a]) for a in axes], axis=0)
        index = tuple(np.clip(at[a], 0, read[a] - 1) for a in axes)
        windows = np.where(within, tensor[(slice(None), *index)], np.float32(0))  # C×outputs×taps
        return windows.transpose(1, 0, 2).reshape(len(within), self.groups, -1)


def _some(of: int, count: int, turn: int) -> npt.NDArray[np.int64]:
    """Return ``count`` different numbers below ``of``, spread over all; at other turns, others.

    They follow one another by a share of the golden ratio, which leaves no part out for long.
    """
    if of <= count:
        return np.arange(of)
    step = next(n for n in range(int(of * _GOLDEN), 0, -1) if math.gcd(n, of) == 1)
    return (np.arange(turn * count, (turn + 1) * count) * step) % of
