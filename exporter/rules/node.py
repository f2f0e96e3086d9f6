"""One operation of a graph as rules see it, and what its attributes hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

__all__ = [
    "FLOATS",
    "ONNX",
    "Array",
    "Node",
    "array_of",
    "inner_graphs",
    "named",
    "node_of",
    "type_name",
]

Array = npt.NDArray[np.generic]

ONNX = ("", "ai.onnx")
FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation; compared by identity."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, onnx.AttributeProto] = field(repr=False)

    @property
    def label(self) -> str:
        """What to call it: its name, or its first output, or its operator."""
        return self.name or next(filter(None, self.outputs), "") or self.op

    def is_op(self, *ops: str) -> bool:
        """Tell whether it is one of these operators of ONNX's own domain."""
        return self.op in ops and self.domain in ONNX

    def input(self, index: int) -> str:
        """Return the name of an input; empty where it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        attribute = self.attributes.get(name)
        return default if attribute is None else int(attribute.i)

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of integers; empty when it is not there."""
        attribute = self.attributes.get(name)
        return () if attribute is None else tuple(attribute.ints)

    @property
    def literal(self) -> Array | None:
        """What a Constant holds; None for text, and for any other node."""
        if not self.is_op("Constant"):
            return None
        for name, attribute in self.attributes.items():
            if name == "value":
                return array_of(attribute.t)
            if name in ("value_float", "value_floats"):
                floats = attribute.f if name == "value_float" else list(attribute.floats)
                return np.asarray(floats, np.float32)
            if name in ("value_int", "value_ints"):
                integers = attribute.i if name == "value_int" else list(attribute.ints)
                return np.asarray(integers, np.int64)
        return None

    def captures(self) -> Iterator[str]:
        """Yield the tensors that graphs inside it read."""
        for inner in inner_graphs(self.attributes.values()):
            for node in map(node_of, inner.node):
                yield from node.inputs
                yield from node.captures()
            yield from (output.name for output in inner.output)


def node_of(proto: onnx.NodeProto) -> Node:
    """Read one node."""
    attributes = {attribute.name: attribute for attribute in proto.attribute}
    return Node(
        proto.name, proto.op_type, proto.domain, tuple(proto.input), tuple(proto.output), attributes
    )


def inner_graphs(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.GraphProto]:
    """Yield the branches and bodies among attributes."""
    for attribute in attributes:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def array_of(tensor: TensorProto) -> Array | None:
    """Return the elements of a constant; None when they cannot be read."""
    try:
        return onnx.numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        return None  # of a type that numpy lacks, of broken length, or in a file not loaded


def type_name(kind: int) -> str:
    """Return the name of an element type of ONNX; empty for none, its number for a new one."""
    if not kind:
        return ""
    try:
        name = str(TensorProto.DataType.Name(kind)).lower()
    except ValueError:
        return f"type {kind}"
    return {"float": "float32", "double": "float64"}.get(name, name)


def named(node: Node) -> str:
    """Return what a person calls a node: its operator and its label."""
    return f"{node.op} {node.label}" if node.label != node.op else node.op
