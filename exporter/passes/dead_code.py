"""Remove what no output depends on.

before:  nodes whose outputs nobody reads; unused initializers, functions and opsets
after:   without them

The graph's own inputs and outputs stay: they are its interface.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import (
    RemoveUnusedFunctionsPass,
    RemoveUnusedNodesPass,
    RemoveUnusedOpsetsPass,
)

from exporter.passes.base import PassResult, outcome

__all__ = ["dead_code"]


def dead_code(model: ir.Model) -> PassResult:
    """Remove all of it."""
    before = _contents(model)
    RemoveUnusedNodesPass()(model)
    _drop_initializers(model.graph)
    RemoveUnusedFunctionsPass()(model)  # type: ignore[no-untyped-call]
    RemoveUnusedOpsetsPass()(model)
    after = _contents(model)
    return outcome("dead_code", model, what="removed", done=[x for x in before if x not in after])


def _drop_initializers(graph: ir.Graph) -> None:
    """Drop what no node reads, whatever nodes that left the graph still hold on to."""
    used = {value for node in graph.all_nodes() for value in node.inputs}
    used |= {value for part in (graph, *graph.subgraphs()) for value in part.outputs}
    used |= set(graph.inputs)
    for name, value in tuple(graph.initializers.items()):
        if value not in used:
            del graph.initializers[name]


def _contents(model: ir.Model) -> dict[str, None]:
    """Return what the model holds, in words and in order."""
    graph = model.graph
    words = [f"node {node.name}" for node in graph.all_nodes()]
    words += [
        f"output {value.name} of {node.name}"
        for node in graph.all_nodes()
        for value in node.outputs
        if value.name
    ]
    words += [f"initializer {name}" for name in graph.initializers]
    words += [f"function {name}" for _, name, _ in model.functions]
    words += [f"opset {domain}" for domain in graph.opset_imports]
    return dict.fromkeys(words)
