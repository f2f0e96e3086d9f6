"""An ONNX graph apart from its weights: one copy of them serves all pieces that are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, numpy_helper
from onnx.helper import tensor_dtype_to_np_dtype

__all__ = ["Constants", "Graph", "split_weights"]

Array = npt.NDArray[Any]

_SMALL_BYTES = 1 << 14  # scales, biases, shapes: they stay in the graph
_ALIGNED = 64  # bytes: a cache line, and as ONNX Runtime aligns its own
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
    large: dict[str, tuple[TensorProto, int]] = {}
    for initializer in model.graph.initializer:
        kept = rest.graph.initializer.add()
        dtype = np.dtype(tensor_dtype_to_np_dtype(initializer.data_type))
        native = dtype.kind in _NATIVE and dtype.isbuiltin == 1
        length = len(initializer.raw_data)  # asked for once: each time it is copied
        if not native or length <= above:
            kept.CopyFrom(initializer)
            continue
        large[initializer.name] = initializer, length
        kept.name, kept.data_type = initializer.name, initializer.data_type
        kept.dims.extend(initializer.dims)
        kept.data_location = TensorProto.EXTERNAL
        # Nothing is read there; ONNX Runtime looks whether it exists.
        for key, value in (("location", "."), ("offset", "0"), ("length", str(length))):
            kept.external_data.add(key=key, value=value)
    weights = _beside(large)
    del model.graph.initializer[:]
    rest.MergeFrom(model)
    model.Clear()
    return Graph(rest, weights)


def _beside(large: Mapping[str, tuple[TensorProto, int]]) -> dict[str, Array]:
    """Return tensors as arrays, all in one block of memory.

    Among what comes and goes each would leave a gap that little fits into.
    """
    sizes = {name: -(-length // _ALIGNED) * _ALIGNED for name, (_, length) in large.items()}
    block = np.empty(sum(sizes.values()) + _ALIGNED, np.uint8)
    arrays: dict[str, Array] = {}
    start = -block.ctypes.data % _ALIGNED
    for name, (tensor, _) in large.items():
        array = numpy_helper.to_array(tensor)
        place = block[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
        place[...] = array
        arrays[name] = place
        start += sizes[name]
    return arrays


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
