"""The quantizers of a graph: which tensors become INT8 codes, and by which scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from core.int8 import QMAX, QMIN
from deploy.comparison.graphs.graph import Constants, Graph
from deploy.comparison.graphs.holding import AS_IT_IS, Holding, Holdings

__all__ = ["Quantizer", "quantizers_of"]

_ENDS = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int4": (-8, 7),
    "uint4": (0, 15),
    "int16": (-32768, 32767),
    "uint16": (0, 65535),
}


@dataclass(frozen=True, slots=True, eq=False)
class Quantizer:
    """The Q of an activation, and the DQ behind it.

    Attributes:
        tensor: What it quantizes.
        scale: Of Q, in the units in which the tensor is held.
        back: Of DQ; the same in a sound graph.
        zero_point: Of Q.
        dtype: Of the codes.
        low: Smallest code, the zero point taken off.
        high: Largest code, likewise.
        held: How the graph holds the tensor.
    """

    tensor: str
    scale: float
    back: float
    zero_point: int
    dtype: str
    low: int
    high: int
    held: Holding = AS_IT_IS

    @property
    def is_int8(self) -> bool:
        """Whether its codes are as many as those of INT8, and as far on either side of zero."""
        return (self.low, self.high) == (QMIN, QMAX)

    def steps(self, channels: int) -> npt.NDArray[np.float64]:
        """Return the real units a code of each channel, (channels,)."""
        return self.scale * self.held.each(channels)

    def rounded(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what the codes of a tensor stand for, in the reference's units.

        Args:
            array: The tensor, as it is: (n, channels, …).
        """
        from deploy.comparison.graphs.units_kernel import to_rounded

        rule = (self.scale, self.back, self.low, self.high)
        factors, shift = self.held.factors_of(array.shape), self.held.shift
        with np.errstate(over="ignore"):
            return to_rounded(array, factors, shift, rule).astype(array.dtype, copy=False)

    def same_codes(self, other: Quantizer | None) -> bool:
        """Tell whether another quantizer gives the same codes."""
        return other is not None and self._told == other._told

    @property
    def _told(self) -> tuple[object, ...]:
        factors = self.held.factors
        numbers = (self.scale, self.back, self.zero_point, self.low, self.high, self.held.shift)
        return (*numbers, self.dtype, None if factors is None else factors.tobytes())


def quantizers_of(graph: Graph, holdings: Holdings) -> dict[str, Quantizer]:
    """Return the per-tensor quantizers of activations, by tensor; the first one of each.

    A scale along an axis, or one that is no constant, has no row here.

    Args:
        graph: Its tensors go by their own names.
        holdings: How it holds them.
    """
    constants, nodes = Constants(graph), graph.model.graph.node
    backs = {n.input[0]: n for n in nodes if n.op_type == "DequantizeLinear"}
    found: dict[str, Quantizer] = {}
    for node in nodes:
        if node.op_type != "QuantizeLinear" or node.input[0] in constants:
            continue
        name, scale = node.input[0], constants.get(node.input[1])
        if scale is None or scale.size != 1 or name in found:
            continue
        zero = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        dtype = str(zero.dtype) if zero is not None else _output_dtype(node)
        low, high = _ENDS.get(dtype, _ENDS["int8"])
        point = int(np.asarray(zero).reshape(-1)[0]) if zero is not None else 0
        back = backs.get(node.output[0])
        back_scale = constants.get(back.input[1]) if back is not None else None
        step = float(scale.reshape(-1)[0])
        found[name] = Quantizer(
            tensor=name,
            scale=step,
            back=float(back_scale.reshape(-1)[0]) if back_scale is not None else step,
            zero_point=point,
            dtype=dtype,
            low=low - point,
            high=high - point,
            held=holdings.get(name, AS_IT_IS),
        )
    return found


def _output_dtype(node: onnx.NodeProto) -> str:
    """Return the type of the codes of a Q without a zero point."""
    said = next((a.i for a in node.attribute if a.name == "output_dtype"), 0)
    return onnx.TensorProto.DataType.Name(said).lower() if said else "uint8"
