"""Free dimensions of a compiled graph: from the shapes of its inputs to every number.

A plan for a range of batches names what it does not know (``__mye45_proxy.1``) and holds a
small program that computes it from the shapes of the inputs: copies, constants, + − × ÷.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from deploy.inspect.plan_graph import PlanGraph, Statement

__all__ = ["defined_names", "input_name", "solve"]

_ARITHMETIC: Mapping[str, Callable[[int, int], int | None]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a // b if b else None,
    "min": min,
    "max": max,
}
_CONSTANT = re.compile(r"(-?\d{1,18})i\d+")
_PROFILE = re.compile(r" \[profile \d+\]$")
_LARGEST = 1 << 62  # beyond it, a product is an accident or an attack


def input_name(name: str) -> str:
    """Return the ONNX name of a graph's input: ``input`` for ``input [profile 1].1``."""
    return _PROFILE.sub("", name.removesuffix(".1"))


def solve(graph: PlanGraph, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, int]:
    """Return the value of each name that follows from the shapes of the inputs.

    Args:
        graph: A compiled graph.
        shapes: Input, by its name in ONNX → its shape.
    """
    values: dict[str, int] = {}
    for name in graph.inputs:
        tensor, shape = graph.tensors.get(name), shapes.get(input_name(name), ())
        if tensor is not None and len(shape) == len(tensor.dims):
            free = zip(tensor.dims, shape, strict=True)
            values |= {dim: size for dim, size in free if isinstance(dim, str)}
    # What the inputs' dimensions were copied from, then everything that follows from it.
    for step in reversed(graph.shape_program):
        source, target = step.names("input"), step.names("output")
        if step.op == "copy" and target and source and target[0] in values:
            values.setdefault(source[0], values[target[0]])
    for step in graph.shape_program:
        result = _run(step, values)
        for name in step.names("output"):
            if result is not None:
                values.setdefault(name, result)
    return values


def _run(step: Statement, values: Mapping[str, int]) -> int | None:
    """Return what one step computes; None when it is not known."""
    if step.op == "memset":
        found = _CONSTANT.fullmatch(step.fields.get("src", ""))
        return int(found[1]) if found else None
    operands = [values.get(name) for name in step.names("input")]
    known = [value for value in operands if value is not None]
    if len(known) < len(operands):
        return None
    if step.op == "copy" and len(known) == 1:
        return known[0]
    if step.op in _ARITHMETIC and len(known) == 2:
        result = _ARITHMETIC[step.op](*known)
        return result if result is not None and abs(result) < _LARGEST else None
    return None


def defined_names(graph: PlanGraph) -> frozenset[str]:
    """Return every name that stands for a dimension, not for data."""
    found = {name for step in graph.shape_program for name in step.names("output", "input")}
    for tensor in graph.tensors.values():
        found |= {dim for dim in tensor.dims if isinstance(dim, str)}
    return frozenset(found)
