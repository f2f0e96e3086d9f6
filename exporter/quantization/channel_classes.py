"""Which channels of a graph can be scaled, and which must be scaled alike.

Let channel i of a tensor y be kept as yᵢ / fᵢ, fᵢ > 0. Each operator says how factors pass
through it:

====================================================  ===================================
operator                                              factors
====================================================  ===================================
Conv, Gemm, MatMul (constant weights),                any in, any out: the weights take both
BatchNormalization
Relu, LeakyRelu, MaxPool, means, Resize, zero Pad     out = in: max(y/f, 0) = max(y, 0)/f
Flatten, Reshape of N×C×1×1                           out = in
Add, Sub, Sum of tensors of one shape                 out = in, and both inputs alike
Concat of channels                                    out = those of the inputs, in a row
everything else, graph inputs and outputs             1
====================================================  ===================================

So channels fall into classes of one factor each. Numbers of classes are kept in arrays, one
a tensor; what must be alike is united once, at the end.

Source: M. Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias
Correction*, ICCV 2019 (scaling through piecewise linear functions), here with residual
additions and concatenations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporter.passes.base import constant, dims, is_op

__all__ = ["ChannelClasses", "absorbs_factors", "find_channel_classes"]

_HOMOGENEOUS = (
    *("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    *("Identity", "Dropout"),
)
_RESHAPES = ("Flatten", "Reshape", "Squeeze")

_Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelClasses:
    """The classes of a graph.

    Attributes:
        of: Tensor → class of each channel, (C,) int64; −1 for one that keeps its scale. Only
            tensors with a channel that can be scaled.
        count: How many classes there are: 0 … count − 1.
    """

    of: Mapping[str, _Ids]
    count: int


def find_channel_classes(graph: ir.Graph) -> ChannelClasses:
    """Return the classes of a float graph.

    Args:
        graph: After the passes, every tensor named and of known channels; left as it is.
    """
    return _Finder(graph).classes()


def absorbs_factors(node: ir.Node) -> bool:
    """Tell whether a node's own constants can take factors of its input and its output."""
    if not is_op(node, "Conv", "Gemm", "MatMul", "BatchNormalization"):
        return False
    constants = [value for value in node.inputs[1:] if value is not None]
    # A weight that others read too would have to be right for all of them.
    if any(constant(value) is None or len(value.uses()) > 1 for value in constants):
        return False
    if is_op(node, "Gemm"):
        return node.attributes.get_int("transA", 0) == 0
    if is_op(node, "MatMul"):
        ranks = [len(dims(value) or ()) for value in node.inputs[:2]]
        return ranks == [2, 2]
    training = node.attributes.get_int("training_mode", 0) != 0
    return not (is_op(node, "BatchNormalization") and training)


class _Finder:
    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._ids: dict[ir.Value, _Ids] = {}
        self._number = 0
        self._alike: list[tuple[_Ids, _Ids]] = []
        self._pinned: list[_Ids] = []
        for value in graph.inputs:
            self._pin(value)
        for node in graph:
            self._pass(node)
        # A branch of an If or Loop reads values that are no inputs of it.
        for value in tuple(self._ids):
            inner = any(use.node.graph is not graph for use in value.uses())
            if inner or value.is_graph_output():
                self._pin(value)

    def classes(self) -> ChannelClasses:
        roots = np.arange(self._number, dtype=np.int64)
        if self._alike:
            one, other = (np.concatenate(side) for side in zip(*self._alike, strict=True))
            roots = _united(roots, one, other)
        pinned = np.zeros(self._number, bool)
        for ids in self._pinned:
            pinned[roots[ids]] = True
        free = np.unique(roots[~pinned[roots]])
        number = np.full(self._number, -1, np.int64)
        number[free] = np.arange(len(free))
        named = {str(value.name): number[roots[ids]] for value, ids in self._ids.items()}
        return ChannelClasses({n: c for n, c in named.items() if (c >= 0).any()}, len(free))

    def _of(self, value: ir.Value | None) -> _Ids | None:
        """Return the ids of a tensor's channels; new ones, held in place, for one unknown."""
        if value is None or constant(value) is not None:
            return None
        if value not in self._ids:
            self._pin(value)
        return self._ids.get(value)

    def _new(self, value: ir.Value) -> _Ids | None:
        shape = dims(value)
        if shape is None or len(shape) < 2 or shape[1] is None:
            return None
        ids = np.arange(self._number, self._number + shape[1], dtype=np.int64)
        self._number += shape[1]
        self._ids[value] = ids
        return ids

    def _pin(self, value: ir.Value) -> None:
        """Hold all channels of a tensor in place."""
        ids = self._ids.get(value)
        if ids is None:
            ids = self._new(value)
        if ids is not None:
            self._pinned.append(ids)

    def _pass(self, node: ir.Node) -> None:
        """Give a node's outputs their channels, and hold in place what cannot pass."""
        inputs = [value for value in node.inputs if value is not None]
        sources = [value for value in inputs if constant(value) is None]
        ids = [self._of(value) for value in sources]
        output = node.outputs[0]
        passed: _Ids | None = None
        if any(one is None for one in ids) or len(node.outputs) > 1 or not ids:
            pass
        elif absorbs_factors(node) and len(ids) == 1:
            if self._new(output) is None:
                self._hold(node)
            return
        else:
            known = [one for one in ids if one is not None]
            passed = self._through(node, inputs, known)
        if passed is None or (dims(output) or (0, 0))[1] != len(passed):
            self._hold(node)
            return
        self._ids[output] = passed

    def _through(self, node: ir.Node, inputs: list[ir.Value], ids: list[_Ids]) -> _Ids | None:
        """Return the ids of an output whose channels are those of the inputs."""
        if _keeps_factors(node):
            return ids[0]
        if is_op(node, "Add", "Sub", "Sum") and len(ids) == len(inputs):
            shapes = {dims(value) for value in inputs}
            if len(shapes) != 1 or None in shapes:
                return None  # broadcast: one channel of one side meets all of the other
            self._alike += [(ids[0], other) for other in ids[1:]]
            return ids[0]
        if is_op(node, "Concat") and len(ids) == len(inputs):
            rank = len(dims(inputs[0]) or ())
            if rank and node.attributes.get_int("axis", 0) % rank == 1:
                return np.concatenate(ids)
        return None

    def _hold(self, node: ir.Node) -> None:
        for value in (*node.inputs, *node.outputs):
            if value is not None and constant(value) is None:
                self._pin(value)


def _keeps_factors(node: ir.Node) -> bool:
    """Tell whether f(y/s) = f(y)/s in each channel, and channels stay what they are."""
    if is_op(node, *_HOMOGENEOUS):
        return True
    if is_op(node, "Clip"):  # a Relu by another name
        low = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        high = node.inputs[2] if len(node.inputs) > 2 else None
        return low is not None and float(low.reshape(())) == 0.0 and high is None
    if is_op(node, "ReduceMean"):
        rank = len(dims(node.inputs[0]) or ())
        axes = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        named = axes.reshape(-1).tolist() if axes is not None else node.attributes.get_ints("axes")
        return bool(rank and named) and not {int(a) % rank for a in named or ()} & {0, 1}
    if is_op(node, "Resize"):
        return node.attributes.get_string("mode", "nearest") in ("nearest", "linear")
    if is_op(node, "Pad"):
        filler = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] else None
        pads = constant(node.inputs[1]) if len(node.inputs) > 1 else None
        rank = len(dims(node.inputs[0]) or ())
        inside = pads is not None and pads.size == 2 * rank and not pads.reshape(2, -1)[:, :2].any()
        return inside and (filler is None or not filler.any())
    if is_op(node, *_RESHAPES):
        # N×C×1×1 to N×C: no channel is torn apart.
        shape, after = dims(node.inputs[0]), dims(node.outputs[0])
        if shape is None or after is None or min(len(shape), len(after)) < 2:
            return False
        return shape[1] == after[1] and {*shape[2:], *after[2:]} <= {1}
    return False


def _united(roots: _Ids, one: _Ids, other: _Ids) -> _Ids:
    """Return the smallest member of each one's class, once pairs are classes of their own."""
    while True:
        least = np.minimum(roots[one], roots[other])
        before = roots.copy()
        np.minimum.at(roots, roots[one], least)
        np.minimum.at(roots, roots[other], least)
        roots = roots[roots]
        if np.array_equal(roots, before):
            return roots
