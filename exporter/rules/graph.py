"""A graph as rules see it: nodes, who makes and reads a tensor, constants, types, shapes.

Made to read any file, however odd: what cannot be told is None, and nothing here raises on
a graph that is not valid ONNX. Subgraphs of If and Loop are graphs of their own, which see
the tensors of the graph around them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

import onnx
from onnx import TensorProto

from exporter.rules.node import Array, Node, array_of, node_of, type_name

__all__ = ["Facts", "Graph", "Shape"]

Facts = tuple[int, frozenset[tuple[str, str]]]  # opset; (domain, name) of own functions
Shape = tuple[int | None, ...]

# Operators whose result has the type of their first input.
_KEEPS = frozenset(
    (
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Sub", "Mul", "Div", "Relu", "Clip"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Concat"),
        *("Flatten", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Pad", "Identity"),
        *("Sigmoid", "Tanh", "HardSigmoid", "LeakyRelu", "Softmax", "ReduceMean", "Dropout"),
    )
)


class Graph:
    """The main graph of a file, or a branch or body in it.

    Attributes:
        opset: Of the standard domain; 0 when the file does not say.
        nodes: In the file's order.
        inputs: What is fed.
        outputs: What is returned.
        functions: (domain, name) of the operators that the file defines itself.
    """

    def __init__(
        self,
        proto: onnx.GraphProto,
        weights: Iterable[TensorProto],
        facts: Facts,
        outer: Graph | None = None,
    ) -> None:
        self.opset, self.functions = facts
        self._outer = outer
        self.nodes = tuple(map(node_of, proto.node))
        self._tensors = {tensor.name: tensor for tensor in weights}
        self.inputs = tuple(i.name for i in proto.input if i.name not in self._tensors)
        self.outputs = tuple(o.name for o in proto.output)
        self._infos = {
            info.name: info.type.tensor_type
            for info in (*proto.value_info, *proto.input, *proto.output)
            if info.type.HasField("tensor_type")
        }
        self._makers: dict[str, Node] = {}
        self._readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in filter(None, node.outputs):
                self._makers.setdefault(name, node)
            for name in dict.fromkeys(filter(None, node.inputs)):
                self._readers.setdefault(name, []).append(node)
        self._captured = frozenset(
            name for node in self.nodes for name in node.captures() if name in self._makers
        )
        self._values: dict[str, Array | None] = {}

    def maker(self, name: str) -> Node | None:
        """Return the node that makes a tensor; None for a constant, an input, or no tensor."""
        return self._makers.get(name)

    def readers(self, name: str) -> Sequence[Node]:
        """Return the nodes that read a tensor, each once, in order."""
        return self._readers.get(name, ())

    def sole_reader(self, name: str) -> Node | None:
        """Return the one node that reads a tensor; None for several, none or a graph output."""
        readers = self.readers(name)
        alone = len(readers) == 1 and name not in self.outputs and name not in self._captured
        return readers[0] if alone else None

    def constant(self, name: str) -> Array | None:
        """Return the value of an initializer or Constant node; None for all else."""
        if name not in self._values:
            self._values[name] = self._value(self._source(name))
        return self._values[name]

    def is_constant(self, name: str) -> bool:
        """Tell whether a tensor is a constant, be its value readable or not."""
        name = self._source(name)
        maker = self.maker(name)
        if name in self._tensors or maker is not None:
            return maker is None or maker.is_op("Constant")
        return bool(name) and self._outer is not None and self._outer.is_constant(name)

    def _source(self, name: str) -> str:
        """Return what a tensor is the same as, back through Identity."""
        for _ in self.nodes:  # bounded: a graph may bite its own tail
            maker = self.maker(name)
            if maker is None or not maker.is_op("Identity"):
                break
            name = maker.input(0)
        return name

    def _value(self, name: str) -> Array | None:
        tensor = self._tensor(name)
        if tensor is not None:
            return array_of(tensor)
        maker = self.maker(name)
        if maker is not None:
            return maker.literal
        return self._outer.constant(name) if self._outer and name else None

    def _tensor(self, name: str) -> TensorProto | None:
        """Return a constant as the file holds it."""
        if name in self._tensors:
            return self._tensors[name]
        maker = self.maker(name)
        if maker is not None and maker.is_op("Constant") and "value" in maker.attributes:
            value: TensorProto = maker.attributes["value"].t
            return value
        return None

    def dtype(self, name: str) -> str | None:
        """Return the element type of a tensor as numpy or ONNX calls it (``float32``, ``int4``)."""
        own = self._dtypes.get(name)
        return own or (self._outer.dtype(name) if self._outer and name else None)

    @cached_property
    def _dtypes(self) -> dict[str, str]:
        kinds = {name: type_name(tensor.data_type) for name, tensor in self._tensors.items()}
        kinds |= {n: type_name(t.elem_type) for n, t in self._infos.items() if t.elem_type}
        for node in self.nodes:
            kind = self._made_type(node, kinds)
            for name in filter(None, node.outputs[:1]):
                if kind:
                    kinds.setdefault(name, kind)
        return kinds

    def _made_type(self, node: Node, known: Mapping[str, str]) -> str | None:
        """Return the type of a node's first output where shape inference did not tell."""
        if node.op == "DequantizeLinear":
            return known.get(node.input(1))  # the scale's type
        if node.op == "QuantizeLinear":
            return known.get(node.input(2)) or type_name(node.integer("output_dtype", 0)) or "uint8"
        if node.is_op("Cast"):
            return type_name(node.integer("to", 0))
        if node.is_op("Constant"):
            value = node.literal
            return None if value is None else str(value.dtype)
        return known.get(node.input(0)) if node.is_op(*_KEEPS) else None

    def shape(self, name: str) -> Shape | None:
        """Return the shape of a tensor, None for each free dimension; None for unknown rank."""
        tensor = self._tensor(name)
        if tensor is not None:
            return tuple(tensor.dims)
        info = self._infos.get(name)
        if info is not None and info.HasField("shape"):
            return tuple(
                dim.dim_value if dim.HasField("dim_value") else None for dim in info.shape.dim
            )
        return self._outer.shape(name) if self._outer else None
