"""Give every node a name of its own.

before:  Conv → y with no name, or with one that another node has
after:   Conv named y

A node is the row that reports, plans and TensorRT's layers are joined by, so it must have
one name. The first output's is unique in the graph and the same in every run.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.passes.base import PassResult, outcome

__all__ = ["name_nodes"]


def name_nodes(model: ir.Model) -> PassResult:
    """Name unnamed nodes, and rename all but the first of a name."""
    seen: set[str] = set()
    nameless: list[ir.Node] = []
    for node in model.graph.all_nodes():
        if node.name and node.name not in seen:
            seen.add(node.name)
        else:
            nameless.append(node)
    done = []
    for node in nameless:
        wanted = next((value.name for value in node.outputs if value.name), node.op_type)
        name, number = wanted, 0
        while name in seen:
            number += 1
            name = f"{wanted}_{number}"
        seen.add(name)
        node.name = name
        done.append(name)
    return outcome("name_nodes", model, what="named", done=done)
