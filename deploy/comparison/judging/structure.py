"""What the graph itself says is wrong, whatever the numbers: rules of TensorRT's Q/DQ."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from deploy.comparison.values.verdict import Reason
from exporter.lint import RULES, lint

__all__ = ["StructureFault", "structure_faults"]

# A rule whose breach makes a layer compute something else in TensorRT, or not fuse.
_REASONS = {
    "zero-point": Reason.ZERO_POINT,
    "uint8": Reason.ZERO_POINT,
    "pair-mismatch": Reason.SCALES,
    "shortcut": Reason.MISSING_Q,
}


@dataclass(frozen=True, slots=True)
class StructureFault:
    """A breach of a rule, at the tensor where a comparison sees it."""

    reason: Reason
    text: str
    next_step: str


def structure_faults(
    model: onnx.ModelProto, compared: Collection[str]
) -> Mapping[str, StructureFault]:
    """Return the breaches in a graph, by the compared tensor that each shows at; one a tensor.

    Args:
        model: The graph.
        compared: Tensors that are compared.
    """
    ignored = [rule.id for rule in RULES if rule.id not in _REASONS]
    nodes = {node.name or node.output[0]: node for node in model.graph.node}
    found: dict[str, StructureFault] = {}
    for finding in lint(model, ignore=ignored).findings:
        node = nodes.get(finding.node)
        reason = _REASONS[finding.rule]
        starts = [finding.tensor, *(node.input if node else ()), *(node.output if node else ())]
        if reason is Reason.MISSING_Q and node is not None:
            starts = list(node.output)  # the addition is at fault, not what it reads
        at = next((name for name in starts if name in compared), None)
        if at is None:
            readers = _readers(model)
            at = next((r for s in starts if (r := _reader(s, readers, compared))), None)
        if at is not None:
            fault = StructureFault(reason, finding.problem, finding.way_out)
            found.setdefault(at, fault)
    return found


def _readers(model: onnx.ModelProto) -> dict[str, list[str]]:
    """Return tensor → what is made directly of it, constants included."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).extend(node.output)
    return readers


def _reader(name: str, readers: Mapping[str, list[str]], compared: Collection[str]) -> str | None:
    """Return the first compared tensor that is made of another one."""
    todo, visited = [name], {name}
    while todo:
        for made in readers.get(todo.pop(0), ()):
            if made in compared:
                return made
            if made not in visited:
                visited.add(made)
                todo.append(made)
    return None
