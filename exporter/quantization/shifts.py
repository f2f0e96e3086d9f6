"""Which tensors of a graph can be moved by a constant without moving a result.

Let a tensor y be kept as y − c. Then c has to leave the graph again, and each operator
says how constants pass through it:

====================================================  ===================================
operator                                              constants
====================================================  ===================================
Conv without padding, Gemm, BatchNormalization        any in, any out: the bias takes both
Conv with zero padding                                0 in (the border would be c, not 0);
                                                      any in, at a known size, where a constant
                                                      added to its output mends the border
Relu, Clip                                            out = in: the bounds move along
MaxPool, means without padding, Flatten, Concat, …    out = in
Add                                                   out = the sum of both
everything else, graph inputs and outputs             0
====================================================  ===================================

Operators with out = in tie tensors into classes that move together. An Add is no
obstacle where one of its inputs comes straight from a Conv, Gemm or BatchNormalization
that nothing else reads: that input is *slack*, it takes whatever constant the sum needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx_ir as ir

from exporter.passes.base import constant, dims, is_op, sole_consumer

__all__ = ["Shifts", "find_shifts", "has_known_border"]

# The first input is moved or averaged; its constant comes out as it went in.
_TIES = (
    *("Relu", "Clip", "MaxPool", "GlobalAveragePool", "GlobalMaxPool", "AveragePool"),
    *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Identity", "Dropout"),
)
_ABSORBERS = ("Conv", "Gemm", "BatchNormalization")


class Shifts:
    """The tensors of one graph that can move, and the constants that follow from a choice.

    Attributes:
        classes: Tensors that move together, by name, in graph order; each class is free to
            take any constant, whatever the others take.
    """

    def __init__(self, graph: ir.Graph, *, borders: bool = False) -> None:
        self._graph = graph
        self._borders = borders
        self._parent: dict[ir.Value, ir.Value] = {}
        self._pinned: set[ir.Value] = set()
        self._slack: dict[ir.Value, ir.Node] = {}  # a slack tensor → the Add that reads it
        self._tie()
        self._pin()
        members: dict[ir.Value, list[str]] = {}
        pinned = {self._root(value) for value in self._pinned}
        for value in _values(graph):
            root = self._root(value)
            if root not in pinned and value not in self._slack:
                members.setdefault(root, []).append(str(value.name))
        self.classes: tuple[tuple[str, ...], ...] = tuple(map(tuple, members.values()))

    def constants(self, chosen: Mapping[str, float]) -> dict[str, float]:
        """Return the constant of every tensor that moves, given some of them.

        Args:
            chosen: Name of a tensor of a class → the constant of the whole class, in real
                units. Two names of one class must agree.

        Raises:
            ValueError: A tensor that cannot move, or a class with two constants.
        """
        by_class = {name: members for members in self.classes for name in members}
        moved: dict[str, float] = {}
        for name, shift in chosen.items():
            if name not in by_class:
                raise ValueError(f"tensor {name!r} cannot be moved by a constant")
            for member in by_class[name]:
                if moved.setdefault(member, shift) != shift:
                    raise ValueError(f"tensor {member!r} cannot have two constants")
        # In graph order: the other input of an Add is known before its slack one is needed.
        for value, add in self._slack.items():
            other = add.inputs[1] if add.inputs[0] is value else add.inputs[0]
            total = moved.get(str(add.outputs[0].name), 0.0)
            moved[str(value.name)] = total - moved.get(str(other.name), 0.0) if other else total
        return {name: shift for name, shift in moved.items() if shift}

    def _root(self, value: ir.Value) -> ir.Value:
        while value in self._parent:
            value = self._parent[value]
        return value

    def _unite(self, values: Iterable[ir.Value]) -> None:
        first, *rest = map(self._root, values)
        for root in rest:
            if self._root(root) is not self._root(first):
                self._parent[self._root(root)] = self._root(first)

    def _tie(self) -> None:
        """Join what an operator keeps together, and find the slack inputs of additions."""
        for node in self._graph:
            source = node.inputs[0] if node.inputs else None
            if source is not None and _passes_constants(node):
                self._unite((source, node.outputs[0]))
            elif is_op(node, "Concat"):
                self._unite((node.outputs[0], *(v for v in node.inputs if v is not None)))
            elif is_op(node, "Add") and (slack := _slack_input(node)) is not None:
                self._slack[slack] = node

    def _pin(self) -> None:
        """Hold in place what would need a constant that nobody can take."""
        self._pinned.update((*self._graph.inputs, *self._graph.outputs))
        # A branch of an If or Loop reads values that are no inputs of it.
        self._pinned.update(
            value
            for value in _values(self._graph)
            if any(use.node.graph is not self._graph for use in value.uses())
        )
        for node in self._graph:
            if is_op(node, *_ABSORBERS) and _absorbs(node):
                continue
            if is_op(node, "Conv") and _absorbs(node, padded=True):
                if self._borders and has_known_border(node):
                    continue
                self._pinned.update(v for v in node.inputs[:1] if v is not None)
            elif is_op(node, "Add") and any(value in self._slack for value in node.inputs):
                continue
            elif _passes_constants(node) or is_op(node, "Concat"):
                # What a constant input of a Concat holds cannot move along.
                self._pinned.update(
                    v for v in node.inputs if v is not None and v.producer() is None
                )
            else:
                self._pinned.update(v for v in (*node.inputs, *node.outputs) if v is not None)


def find_shifts(graph: ir.Graph, *, borders: bool = False) -> Shifts:
    """Return the tensors of a float graph that can be moved by a constant.

    Args:
        graph: After the passes, every tensor named; it is left as it is.
        borders: Also those that a zero-padded Conv of known size reads: its output then
            takes an addition (:func:`exporter.quantization.shift.shift_tensors` makes it).
    """
    return Shifts(graph, borders=borders)


def has_known_border(node: ir.Node) -> bool:
    """Tell whether a Conv is 2-D with explicit pads, and its sizes are known."""
    sizes = (dims(node.inputs[0]), dims(node.outputs[0]))
    return (
        all(size is not None and len(size) == 4 and None not in size[2:] for size in sizes)
        and node.attributes.get_string("auto_pad", "NOTSET") == "NOTSET"
    )


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    for node in graph:
        yield from node.outputs


def _passes_constants(node: ir.Node) -> bool:
    """Tell whether a constant on the first input comes out as it went in."""
    if not is_op(node, *_TIES) or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    if is_op(node, "AveragePool"):
        # A mean over a border of zeros, or over a window that hangs over the edge, is none.
        padded = any(node.attributes.get_ints("pads", ()))
        automatic = node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
        return not (padded or automatic or bool(node.attributes.get_int("ceil_mode", 0)))
    if is_op(node, "Clip"):
        return all(v is None or constant(v) is not None for v in node.inputs[1:])
    return True


def _slack_input(node: ir.Node) -> ir.Value | None:
    """Return the input of an Add that takes any constant; None when there is none."""
    for value in node.inputs:
        if value is None or sole_consumer(value) is not node:
            continue
        producer = value.producer()
        if (
            producer is not None
            and is_op(producer, *_ABSORBERS)
            and _absorbs(producer, padded=True)
        ):
            return value
    return None


def _absorbs(node: ir.Node, *, padded: bool = False) -> bool:
    """Tell whether the node's bias can take a constant off its output, and put one on its input.

    Args:
        node: A Conv, Gemm or BatchNormalization.
        padded: Ask for the output alone: padding does not matter then.
    """
    if any(constant(value) is None for value in node.inputs[1:] if value is not None):
        return False
    attributes = node.attributes
    if is_op(node, "Gemm"):
        plain = attributes.get_float("alpha", 1.0) == attributes.get_float("beta", 1.0) == 1.0
        return plain and not attributes.get_int("transA", 0)
    if is_op(node, "BatchNormalization"):
        return not attributes.get_int("training_mode", 0)
    automatic = attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    return padded or not (automatic or any(attributes.get_ints("pads", ())))
