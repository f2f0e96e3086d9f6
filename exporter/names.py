"""Canonical names: a node by its PyTorch module, a tensor by the node that makes it.

PyTorch's exporter says of each node which module it came from. A module that is a leaf
gives its path to the node that makes its output (``layer1.0.conv1``); what else it needed
is ``<path>.<op>``, as are the operations of a module that has modules of its own. The
graph's outputs have names that are given (``logits``), and its weights those of the state
dict; other constants are called by what they are to their node (``avgpool.axes``).
"""

from __future__ import annotations

import ast
import re
from collections.abc import Container, Sequence

import onnx
import onnx_ir as ir

from core.errors import GraphError

__all__ = ["INPUT", "set_canonical_names"]

INPUT = "input"

_NOWHERE = "_empty_nn_module_stack_from_metadata_hook"  # sizes of the input
_SCOPES = "pkg.torch.onnx.name_scopes"  # ["", "layer1", "layer1.0", "layer1.0.conv1", "conv2d"]


def set_canonical_names(
    model: ir.Model,
    *,
    outputs: Sequence[str],
    axes: Sequence[str | None],
    weights: Container[str],
) -> None:
    """Rename nodes, tensors and free dimensions in place.

    Args:
        model: As PyTorch's exporter made it, cleaned.
        outputs: Names of the graph's outputs; its one input becomes ``input``.
        axes: Names of the input's free dimensions; None where one is fixed.
        weights: Keys of the state dict: initializers that keep their names.

    Raises:
        GraphError: The exporter did not say where a node comes from (another version of it).
    """
    names = _node_names(model.graph)
    for node, name in names.items():
        node.name = name
    wanted: dict[ir.Value, str] = {}
    for node, name in names.items():
        for index, value in enumerate(node.outputs):
            wanted[value] = name if index == 0 else f"{name}.{index}"
    wanted |= dict(zip(model.graph.outputs, outputs, strict=True))
    wanted |= dict(zip(model.graph.inputs, [INPUT], strict=True))
    wanted |= _constant_names(model, names, weights)
    ir.convenience.rename_values(list(wanted), list(wanted.values()))
    _name_axes(model.graph, axes)


def _node_names(graph: ir.Graph) -> dict[ir.Node, str]:
    """Return every node's name, unique and the same in every run."""
    paths = {node: _module_of(node) for node in graph}
    owners = set(paths.values())
    last = {path: node for node, path in paths.items()}  # the graph is in topological order
    names: dict[ir.Node, str] = {}
    taken: set[str] = set()
    for node, path in paths.items():
        leaf = not any(owner.startswith(f"{path}.") for owner in owners)
        if path and leaf and last[path] is node:
            wanted = path
        else:
            wanted = f"{path}.{node.op_type.lower()}".lstrip(".")
        name, number = wanted, 0
        while name in taken:
            number += 1
            name = f"{wanted}_{number}"
        taken.add(name)
        names[node] = name
    return names


def _module_of(node: ir.Node) -> str:
    """Return the path of the module that a node was traced in."""
    try:
        scopes = ast.literal_eval(node.metadata_props[_SCOPES])
        path = scopes[-2] if len(scopes) > 1 and scopes[-2] != _NOWHERE else ""
    except (KeyError, ValueError, SyntaxError, TypeError) as err:
        raise GraphError(
            f"node {node.name!r} ({node.op_type}) does not say which module it comes from",
            hint="use the versions in the lock file: this PyTorch or onnxscript names them anew",
        ) from err
    return str(path)


def _constant_names(
    model: ir.Model, names: dict[ir.Node, str], weights: Container[str]
) -> dict[ir.Value, str]:
    """Return names of the constants that are no weights, by the first node to read them."""
    wanted: dict[ir.Value, str] = {}
    for node, name in names.items():
        schema = onnx.defs.get_schema(node.op_type, model.opset_imports[""], node.domain)
        for index, value in enumerate(node.inputs):
            if value is None or not value.is_initializer() or value in wanted:
                continue
            if value.name not in weights:
                role = schema.inputs[min(index, len(schema.inputs) - 1)].name
                wanted[value] = f"{name}.{role}"
    return wanted


def _name_axes(graph: ir.Graph, axes: Sequence[str | None]) -> None:
    """Call the free dimensions ``axes`` throughout, in expressions of them too."""
    shape = graph.inputs[0].shape
    if shape is None:
        raise GraphError("the graph's input has no shape", hint="export again")
    symbols = {
        str(dim.value): name
        for dim, name in zip(shape, axes, strict=True)
        if isinstance(dim, ir.SymbolicDim) and name
    }
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, symbols)) or '$^'})\b")
    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is None:
            continue
        value.shape = ir.Shape(
            pattern.sub(lambda found: symbols[found[0]], str(dim.value))
            if isinstance(dim, ir.SymbolicDim)
            else dim
            for dim in value.shape
        )
