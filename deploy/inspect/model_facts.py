"""What an ONNX file says of itself, read without the onnx package."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import regular, sha256_bytes, sha256_file
from core.errors import InputError
from deploy.inspect.kernels import CODES, SIZES
from deploy.onnx_files.graph_types import tensor_types
from deploy.onnx_files.reader import Graph, Node, TensorType, read_graph
from deploy.onnx_files.weight_files import weight_files
from exporter.card import Card

__all__ = ["LayerFacts", "ModelFacts", "inspect_model"]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True, slots=True)
class LayerFacts:
    """A layer with weights.

    Attributes:
        takes: Element type of its data; that of the codes, where it takes dequantized ones.
        weights: The same of its weights.
        shape: Of its weights; None where it is not known.
    """

    name: str
    op: str
    takes: str
    weights: str
    shape: tuple[int, ...] | None

    @property
    def precision(self) -> str:
        """What TensorRT computes it in: codes only where data and weights are such."""
        if self.takes == self.weights or self.takes not in CODES:
            return self.takes
        return "float"


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What is known of an ONNX file.

    Attributes:
        bytes: Size of the file, without the weights beside it.
        files: Weights beside it: name → SHA-256.
        operators: Operator → count, the most frequent first.
        constants: Element type → bytes of all constants of that type.
    """

    path: str
    bytes: int
    sha256: str
    files: Mapping[str, str]
    opset: int
    inputs: tuple[TensorType, ...]
    outputs: tuple[TensorType, ...]
    operators: Mapping[str, int]
    constants: Mapping[str, int]
    layers: tuple[LayerFacts, ...]
    card: Card


def inspect_model(path: Path) -> ModelFacts:
    """Read an ONNX file.

    Raises:
        InputError: It cannot be read, is not ONNX, or names weights that are not beside it.
    """
    try:
        data = regular(path).read_bytes()
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})", hint="name an ONNX file or an engine"
        ) from err
    graph = read_graph(data, where=str(path))
    return ModelFacts(
        path=str(path),
        bytes=len(data),
        sha256=sha256_bytes(data),
        files={file.name: sha256_file(file) for file in weight_files(data, path)},
        opset=graph.opset,
        inputs=graph.inputs,
        outputs=graph.outputs,
        operators=dict(Counter(node.op for node in graph.nodes).most_common()),
        constants=_constants(graph),
        layers=_layers(graph),
        card=Card.from_metadata(graph.metadata, where=str(path)),
    )


def _constants(graph: Graph) -> dict[str, int]:
    sizes: Counter[str] = Counter()
    for constant in graph.constants.values():
        bits = SIZES.get(constant.dtype, 8)
        sizes[constant.dtype] += math.ceil(math.prod(constant.shape) * bits / 8)
    return dict(sizes.most_common())


def _layers(graph: Graph) -> tuple[LayerFacts, ...]:
    types = tensor_types(graph)
    makers = {name: node for node in graph.nodes for name in node.outputs}
    found = []
    for node in graph.nodes:
        if node.op not in _WEIGHTED or node.domain not in {"", "ai.onnx"}:
            continue
        source = _source(node.inputs[1], makers) if len(node.inputs) > 1 else ""
        if node.op == "MatMul" and source not in graph.constants:
            continue  # a product of two activations has no weights
        weights = graph.constants.get(source)
        found.append(
            LayerFacts(
                name=node.name or next(iter(node.outputs), ""),
                op=node.op,
                takes=_type(node, 0, makers, types),
                weights=_type(node, 1, makers, types),
                shape=weights.shape if weights else None,
            )
        )
    return tuple(found)


def _source(tensor: str, makers: Mapping[str, Node]) -> str:
    """Return the tensor that a tensor was cast, quantized or dequantized from."""
    passed = {"DequantizeLinear", "QuantizeLinear", "Cast", "Identity"}
    for _ in range(4):  # weights → Q → DQ → Cast; a longer chain is a loop
        maker = makers.get(tensor)
        if maker is None or maker.op not in passed or not maker.inputs:
            break
        tensor = maker.inputs[0]
    return tensor


def _type(node: Node, at: int, makers: Mapping[str, Node], types: Mapping[str, str | None]) -> str:
    """Return the element type of an input; of its codes, where it is dequantized."""
    tensor = node.inputs[at] if len(node.inputs) > at else ""
    maker = makers.get(tensor)
    if maker is not None and maker.op == "DequantizeLinear" and maker.inputs:
        return types.get(maker.inputs[0]) or ""
    return types.get(tensor) or ""
