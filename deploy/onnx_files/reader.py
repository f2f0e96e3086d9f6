"""The structure of an ONNX file, read without the onnx package.

A device that builds an engine from a bundle has TensorRT and no onnx. What a build must
know before TensorRT sees the file (inputs, nodes, small constants, metadata) takes a few
fields of the file; weights are skipped.

Source: onnx.proto3 (field numbers and element types).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from core.errors import InputError
from deploy.onnx_files.protobuf_wire import Value, fields, message, number, signed, text, varints

__all__ = ["ELEMENT_TYPES", "Graph", "Node", "Tensor", "TensorType", "read_graph"]

_SMALL_BYTES = 1 << 16  # scales and zero points are below
_EXTERNAL = 1  # TensorProto.DataLocation
_FLOAT16 = 10
# TensorProto.DataType → name, and struct code of one element in raw_data.
_TYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "f"),
    2: ("uint8", "B"),
    3: ("int8", "b"),
    4: ("uint16", "H"),
    5: ("int16", "h"),
    6: ("int32", "i"),
    7: ("int64", "q"),
    9: ("bool", "?"),
    10: ("float16", "e"),
    11: ("float64", "d"),
    12: ("uint32", "I"),
    13: ("uint64", "Q"),
    16: ("bfloat16", ""),
}
ELEMENT_TYPES: Mapping[int, str] = {kind: name for kind, (name, _) in _TYPES.items()}


@dataclass(frozen=True, slots=True)
class TensorType:
    """A graph input or output: element type, and dimensions (a name or None where free)."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None  # None when the rank is unknown


@dataclass(frozen=True, slots=True)
class Tensor:
    """A constant.

    Attributes:
        data: Its elements as ``code`` says, little-endian; only when small, as a scale or a
            zero point is, and in the model itself.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    code: str = ""
    data: bytes | None = None

    @property
    def values(self) -> tuple[float, ...] | None:
        """Its elements; None when it is large, elsewhere, or of a rare type."""
        if self.data is None or not self.code:
            return None
        return struct.unpack(
            f"<{len(self.data) // struct.calcsize(self.code)}{self.code}", self.data
        )


@dataclass(frozen=True, slots=True)
class Node:
    """One operation; ``tensors`` and ``numbers`` are its attributes of those kinds."""

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: Mapping[str, Tensor]
    numbers: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Graph:
    """What an ONNX file says of itself; subgraphs of If and Loop are left out."""

    opset: int
    inputs: tuple[TensorType, ...]  # what must be fed: without the initializers
    outputs: tuple[TensorType, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Tensor]  # initializers and Constant nodes, by tensor name
    metadata: Mapping[str, str]
    functions: frozenset[tuple[str, str]] = frozenset()  # (domain, name) that the file defines


def read_graph(data: bytes, *, where: str) -> Graph:
    """Read the structure of an ONNX file.

    Args:
        data: The whole file.
        where: Its name, for the error text.

    Raises:
        InputError: Truncated, not ONNX, or a graph with no nodes.
    """
    try:
        return _graph_of(memoryview(data))
    except ValueError as err:
        raise InputError(
            f"{where}: not an ONNX model, or a truncated one ({len(data)} bytes; {err})",
            hint="export it again, or copy it again whole",
        ) from err


def _graph_of(data: memoryview) -> Graph:
    ir_version, opset, body = 0, 0, memoryview(b"")
    metadata: dict[str, str] = {}
    functions: set[tuple[str, str]] = set()
    for field, value in fields(data):
        if field == 1:
            ir_version = number(value)
        elif field == 7:
            body = message(value)
        elif field == 8:
            domain = dict(fields(message(value)))
            if text(domain.get(1)) in {"", "ai.onnx"}:
                opset = number(domain.get(2))
        elif field == 14:
            entry = dict(fields(message(value)))
            metadata[text(entry.get(1))] = text(entry.get(2))
        elif field == 25:
            entry = dict(fields(message(value)))
            functions.add((text(entry.get(10)), text(entry.get(1))))
    # Nearly any bytes can be read as some protobuf message; these fields tell ONNX apart.
    if not body or not ir_version or not opset:
        raise ValueError("no IR version, opset or graph")
    parts: dict[int, list[memoryview]] = {}
    for field, value in fields(body):
        parts.setdefault(field, []).append(message(value))
    nodes = tuple(map(_node, parts.get(1, ())))
    if not nodes:
        raise ValueError("the graph has no nodes")
    constants = {t.name: t for t in map(_tensor, parts.get(5, ()))} | _constants(nodes)
    inputs = tuple(t for t in map(_type, parts.get(11, ())) if t.name not in constants)
    outputs = tuple(map(_type, parts.get(12, ())))
    return Graph(opset, inputs, outputs, nodes, constants, metadata, frozenset(functions))


def _constants(nodes: Iterable[Node]) -> dict[str, Tensor]:
    """Return the value of each Constant node by the tensor it makes."""
    return {
        node.outputs[0]: node.tensors["value"]
        for node in nodes
        if node.op == "Constant" and "value" in node.tensors and node.outputs
    }


def _node(data: memoryview) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [""], 4: [""], 7: [""]}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, int] = {}
    for field, value in fields(data):
        if field in texts:
            texts[field].append(text(value))
        elif field == 5:
            attribute = dict(fields(message(value)))
            if 5 in attribute:
                tensors[text(attribute.get(1))] = _tensor(message(attribute[5]))
            elif 3 in attribute:
                numbers[text(attribute.get(1))] = signed(number(attribute[3]))
    return Node(
        name=texts[3][-1],
        op=texts[4][-1],
        domain=texts[7][-1],
        inputs=tuple(texts[1]),
        outputs=tuple(texts[2]),
        tensors=tensors,
        numbers=numbers,
    )


def _tensor(data: memoryview) -> Tensor:
    dims: list[int] = []
    rest: dict[int, Value] = {}
    for field, value in fields(data):
        if field == 1:
            dims += [value] if isinstance(value, int) else varints(value)
        else:
            rest[field] = value
    kind = number(rest.get(2))
    name, code = _TYPES.get(kind, (f"type {kind}", ""))
    external = number(rest.get(14)) == _EXTERNAL
    return Tensor(
        name=text(rest.get(8)),
        dtype=name,
        shape=tuple(map(signed, dims)),
        code=code,
        data=None if external else _small_data(kind, code, rest),
    )


def _small_data(kind: int, code: str, rest: Mapping[int, Value]) -> bytes | None:
    """Return the elements of a small tensor as raw_data would hold them."""
    raw, floats, integers = (message(rest.get(field)) for field in (9, 4, 5))
    if not code or max(len(raw), len(floats), len(integers)) > _SMALL_BYTES:
        return None
    if integers:  # int32_data: every integer type up to 32 bits, and the bits of float16
        whole = [signed(value) for value in varints(integers)]
        bits = "H" if kind == _FLOAT16 else code
        try:
            return struct.pack(f"<{len(whole)}{bits}", *whole)
        except struct.error as err:
            raise ValueError(f"a constant out of its type's range ({err})") from err
    data = bytes(raw or floats)
    if len(data) % struct.calcsize(code):
        raise ValueError("a constant of broken length")
    return data


def _type(data: memoryview) -> TensorType:
    value_info = dict(fields(data))
    tensor = dict(fields(message(dict(fields(message(value_info.get(2)))).get(1))))
    kind = number(tensor.get(1))
    shape: tuple[int | str | None, ...] | None = None
    if 2 in tensor:
        dims = [dict(fields(message(dim))) for at, dim in fields(message(tensor[2])) if at == 1]
        shape = tuple(signed(number(d[1])) if 1 in d else text(d.get(2)) or None for d in dims)
    return TensorType(text(value_info.get(1)), _TYPES.get(kind, (f"type {kind}", ""))[0], shape)
