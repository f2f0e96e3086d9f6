"""The contract of a pass, and the few graph edits that passes share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

__all__ = [
    "NOTHING",
    "Pass",
    "PassResult",
    "add_constant",
    "constant",
    "dims",
    "free_name",
    "is_op",
    "is_row",
    "outcome",
    "replace_constant",
    "sole_consumer",
    "take_over",
    "taken_names",
]

NOTHING = "nothing to do"

_NAMED = 3  # nodes that a reason names; the others are only counted

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class PassResult:
    """What one pass did.

    Attributes:
        name: The pass.
        model: The model it was given, edited in place.
        changed: Whether anything in it is different now.
        reason: What was done, or why nothing was; nodes that were left, and why.
    """

    name: str
    model: ir.Model
    changed: bool
    reason: str


Pass = Callable[[ir.Model], PassResult]


def outcome(
    name: str, model: ir.Model, *, what: str, done: Sequence[str], left: Sequence[str] = ()
) -> PassResult:
    """Put what a pass did into words.

    Args:
        name: The pass.
        model: The edited model.
        what: The rewrite in words (``"BatchNormalization into Conv"``).
        done: Nodes that were rewritten.
        left: ``"node (why)"`` of nodes that look like it and were left.
    """
    reason = f"{what}: {_few(done)}" if done else f"{what}: {NOTHING}"
    if left:
        reason += f"; left {_few(left)}"
    return PassResult(name, model, bool(done), reason)


def _few(names: Sequence[str]) -> str:
    """Count the names and give the first ones."""
    more = ", …" if len(names) > _NAMED else ""
    return f"{len(names)} ({', '.join(names[:_NAMED])}{more})"


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Tell whether a node is one of these operators of ONNX's own domain."""
    return node is not None and node.domain in ("", "ai.onnx") and node.op_type in op_types


def constant(value: ir.Value | None) -> Array | None:
    """Return the value of an initializer; None for anything that may differ from run to run."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return None if value.const_value is None else value.const_value.numpy()


def is_row(array: Array, length: int) -> bool:
    """Tell whether an array broadcasts to rows of ``length``: (), (1,), (K,), (1, 1) or (1, K)."""
    return array.size in (1, length) and array.shape[:-1] in ((), (1,))


def dims(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Return a tensor's shape with None for each free dimension; None for an unknown rank."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """Return the one node that reads a tensor; None for several, none or a graph output."""
    uses = tuple(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node


def take_over(kept: ir.Value, gone: ir.Value) -> None:
    """Let ``kept`` stand for the tensor ``gone``: its name, type, shape and consumers.

    The node that made ``gone`` leaves the graph. ``kept`` must not be a graph output.
    """
    node = gone.producer()
    if node is None or node.graph is None:
        raise ValueError(f"{gone.name!r} is not made by a node of a graph")
    name, kind, shape = gone.name, gone.type, gone.shape
    ir.convenience.replace_all_uses_with(gone, kept, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    kept.name = name
    kept.type = kind or kept.type
    kept.shape = kept.shape if shape is None else shape


def taken_names(graph: ir.Graph) -> set[str]:
    """Return the name of every tensor of a graph."""
    taken = {str(value.name) for value in graph.inputs} | set(graph.initializers)
    return taken | {str(value.name) for node in graph.all_nodes() for value in node.outputs}


def free_name(graph: ir.Graph, wanted: str, taken: set[str] | None = None) -> str:
    """Return ``wanted`` as the name of a new tensor, with a number behind it when taken.

    Args:
        graph: Where the tensor is to be.
        wanted: Its name, if that is free.
        taken: :func:`taken_names`, for those who name many tensors: asking the graph each
            time walks all of it. The new name is added.
    """
    names = taken_names(graph) if taken is None else taken
    name, number = wanted, 0
    while name in names:
        number += 1
        name = f"{wanted}_{number}"
    names.add(name)
    return name


def add_constant(
    graph: ir.Graph, name: str, array: Array, taken: set[str] | None = None
) -> ir.Value:
    """Add an initializer and return it; a taken name gets a number behind it.

    Args:
        graph: Where to add it.
        name: See :func:`free_name`, as for ``taken``.
        array: Its value.
        taken: The names that are not free.
    """
    unique = free_name(graph, name, taken)
    tensor = ir.tensor(np.asarray(array, order="C"), name=unique)
    value = ir.Value(
        name=unique,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(array.shape),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


def replace_constant(node: ir.Node, index: int, array: Array, name: str) -> None:
    """Give ``node`` another constant as input ``index``.

    The old initializer's name is kept when only this node read it. One that others read
    too must not be overwritten: they would silently compute with the wrong weights; so
    the new constant then gets ``name``.
    """
    if node.graph is None:
        raise ValueError(f"{node.name!r} is not in a graph")
    old = node.inputs[index] if index < len(node.inputs) else None
    taken: set[str] | None = None
    if old is not None and len(old.uses()) == 1 and not old.is_graph_output():
        name = old.name or name
        node.replace_input_with(index, None)
        if old.graph is not None and old.is_initializer():
            del old.graph.initializers[name]
            taken = set()  # nothing else in the graph had that name
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, add_constant(node.graph, name, array, taken))
