"""Names of a graph traced back: to a compared tensor, to real numbers, to a constant."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper

from deploy.comparison.graphs.graph import Constants, Graph

__all__ = ["THROUGH", "Lineage", "Source", "attribute"]

Array = npt.NDArray[Any]

# Between a tensor that is compared and the layer that reads it, these change no value.
THROUGH = {"Identity", "Cast", "Flatten", "Dropout"}


@dataclass(frozen=True, slots=True)
class Source:
    """A compared tensor that a layer reads, and whether as INT8 codes."""

    tensor: str
    quantized: bool


@dataclass(slots=True, eq=False)
class Lineage:
    """Traces names back.

    Attributes:
        graph: Its tensors go by their own names.
        compared: Tensors that are compared.
        constants: Of the graph.
        makers: Name → the node that makes it.
    """

    graph: Graph
    compared: Collection[str]
    constants: Constants = field(init=False)
    makers: dict[str, onnx.NodeProto] = field(init=False)

    def __post_init__(self) -> None:
        self.constants = Constants(self.graph)
        self.makers = {name: n for n in self.graph.model.graph.node for name in n.output if name}

    def source(self, name: str) -> Source | None:
        """Return the compared tensor that a name leads back to."""
        quantized = False
        while name not in self.compared:
            node = self.makers.get(name)
            if node is None:
                return None
            if node.op_type == "DequantizeLinear":
                quantized = True
            elif node.op_type != "QuantizeLinear" and node.op_type not in THROUGH:
                return None
            name = node.input[0]
        return Source(name, quantized)

    def real(self, name: str) -> str:
        """Return the tensor whose codes a name holds; the name itself if it holds none."""
        node = self.makers.get(name)
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear"):
            name = node.input[0]
            node = self.makers.get(name)
        return name

    def value(self, name: str) -> tuple[Array, Array | None, int] | None:
        """Return a constant in real units, its step where it is quantized, and the step's axis."""
        array = self.constants.get(name)
        if array is not None:
            return array, None, 0
        node = self.makers.get(name)
        if node is None or node.op_type not in (*THROUGH, "DequantizeLinear", "Transpose"):
            return None
        inner = self.constants.get(node.input[0])
        if inner is None:
            return None
        if node.op_type == "Transpose":
            return np.transpose(inner, attribute(node, "perm", None)), None, 0
        if node.op_type != "DequantizeLinear":
            return inner, None, 0
        scale = self.constants.get(node.input[1])
        if scale is None or scale.ndim > 1:
            return None
        axis = int(attribute(node, "axis", 1)) % inner.ndim if scale.size > 1 else 0
        shape = [1] * inner.ndim
        if scale.size > 1:
            shape[axis] = -1
        zero = self.constants.get(node.input[2]) if len(node.input) > 2 else None
        codes = inner.astype(np.float32)
        if zero is not None and zero.any():
            codes -= zero.astype(np.float32).reshape(shape if zero.size > 1 else ())
        codes *= scale.astype(np.float32).reshape(shape)
        return codes, scale.reshape(-1), axis


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return an attribute of a node, or what it is without one."""
    for attribute in node.attribute:
        if attribute.name == name:
            return helper.get_attribute_value(attribute)
    return default
