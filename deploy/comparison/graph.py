"""An ONNX graph apart from its weights: one copy of them serves all pieces that are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper

__all__ = ["Constants", "Graph", "split_weights"]

Array = npt.NDArray[Any]

_SMALL_BYTES = 1 << 14  # scales, biases, shapes: they stay in the graph
_NATIVE = "fiu"  # kinds of numpy's own types


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A graph, and its large weights beside it.

    Attributes:
        model: The graph; its large initializers say that their data is elsewhere.
        weights: Their data, by name.
    """

    model: onnx.ModelProto
    weights: Mapping[str, Array] = field(default_factory=dict)


def split_weights(model: onnx.ModelProto, *, above: int = _SMALL_BYTES) -> Graph:
    """Take the large weights out of a graph.

    Args:
        model: The graph; emptied, so that its memory can be given back.
        above: Bytes from which on an initializer is taken out.
    """
    rest = onnx.ModelProto()
    weights: dict[str, Array] = {}
    for initializer in model.graph.initializer:
        kept = rest.graph.initializer.add()
        large = len(initializer.raw_data) > above
        array = numpy_helper.to_array(initializer) if large else None
        if array is None or array.dtype.kind not in _NATIVE or array.dtype.isbuiltin != 1:
            kept.CopyFrom(initializer)
            continue
        weights[initializer.name] = np.array(array)
        kept.name, kept.data_type = initializer.name, initializer.data_type
        kept.dims.extend(initializer.dims)
        kept.data_location = TensorProto.EXTERNAL
        # Nothing is read there; ONNX Runtime looks whether it exists.
        for key, value in (("location", "."), ("offset", "0"), ("length", str(array.nbytes))):
            kept.external_data.add(key=key, value=value)
    del model.graph.initializer[:]
    rest.MergeFrom(model)
    model.Clear()
    return Graph(rest, weights)


class Constants:
    """Initializers and Constant nodes of a graph, by name, as arrays when asked for."""

    def __init__(self, graph: Graph) -> None:
        self._weights = graph.weights
        self._tensors = {i.name: i for i in graph.model.graph.initializer}
        for node in graph.model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self._tensors[node.output[0]] = node.attribute[0].t

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def get(self, name: str) -> Array | None:
        """Return a constant; None when there is none of that name."""
        if name in self._weights:
            return self._weights[name]
        tensor = self._tensors.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)
