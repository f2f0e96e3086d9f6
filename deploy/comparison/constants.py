"""The constants of a graph, as arrays, read when they are asked for."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx
from onnx import numpy_helper

__all__ = ["Constants"]

Array = npt.NDArray[Any]


class Constants:
    """Initializers and Constant nodes of a graph, by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._tensors = {i.name: i for i in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self._tensors[node.output[0]] = node.attribute[0].t

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> Array | None:
        """Return a constant; None when there is none of that name."""
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)
