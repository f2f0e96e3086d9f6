"""Copy the network that TensorRT's parser built into values of our own.

What the parser does to names (tensorrt-rtx 1.7.1):

- a tensor of the ONNX graph keeps its name; where one of TensorRT's own would take it
  (``fc_output``), TensorRT's gets a number behind it;
- an initializer ``W`` becomes a constant layer ``W`` whose tensor is ``W_output``, or goes
  into its convolution or scale layer and has no tensor at all;
- what the parser adds (shape arithmetic, a Gemm's product before its bias, broadcasts,
  zero points) has names of TensorRT's own, and here no name that ONNX knows;
- a layer names its ONNX node in its metadata, ``[ONNX Layer: conv1]``; what was added for
  shapes has none.

Layers may stand before those that they read from; here they are in an order that can run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from core.errors import GraphError
from deploy.networks.facts import onnx_name
from deploy.networks.ops import READERS
from deploy.networks.ops.base import Operation, Unsupported
from deploy.networks.ops.cast import element_type

__all__ = ["Layer", "TensorFacts", "read_layers", "read_tensor"]


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A tensor of the network.

    Attributes:
        name: In ONNX if it is there, else TensorRT's own.
        dtype: Of its elements.
        shape: −1 where the input decides.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One layer of the network.

    Attributes:
        node: Name of the ONNX node it was made for; TensorRT's own name for what was added.
        kind: TensorRT's layer type, ``"CONVOLUTION"``.
        inputs: Names of the tensors it reads; None for an optional input that is not there.
        output: The tensor it makes.
        operation: Its arithmetic and weights.
    """

    node: str
    kind: str
    inputs: tuple[str | None, ...]
    output: TensorFacts
    operation: Operation

    def __str__(self) -> str:
        """Return its name and kind, for error texts."""
        return f"layer {self.node!r} ({self.kind})"


def read_layers(
    trt: Any, native: Any, constants: Iterable[str], *, where: str
) -> tuple[Layer, ...]:
    """Read all layers of a network, each behind those it reads from.

    Args:
        trt: TensorRT's Python module.
        native: The ``INetworkDefinition``; its weights are copied, nothing of it is kept.
        constants: Names of the ONNX graph's constants.
        where: The file, for the error text.

    Raises:
        GraphError: A kind of layer, or a variant of it, that has no arithmetic here.
    """
    renamed = _constant_names(native, set(constants))
    layers = []
    for index in range(native.num_layers):
        layer = native.get_layer(index)
        kind, node = str(layer.type.name), onnx_name(layer)
        try:
            layers.append(_read_layer(trt, layer, kind, renamed))
        except Unsupported as err:
            raise GraphError(
                f"{where}: layer {node!r} ({kind}): the CPU evaluation does not know {err}",
                hint="run the ONNX file in ONNX Runtime, or the engine on a GPU",
            ) from err
    return tuple(_ordered(layers, where))


def read_tensor(tensor: Any, renamed: Mapping[str, str] = MappingProxyType({})) -> TensorFacts:
    """Read an ``ITensor``.

    Args:
        tensor: It.
        renamed: TensorRT's name → ONNX's, where they differ.

    Raises:
        Unsupported: Its elements are of a type that numpy lacks.
    """
    name = str(tensor.name)
    shape = tuple(int(size) for size in tensor.shape)
    return TensorFacts(renamed.get(name, name), element_type(tensor.dtype), shape)


def _constant_names(native: Any, constants: set[str]) -> dict[str, str]:
    """Return TensorRT's name of each ONNX constant's tensor → its name in ONNX."""
    found: dict[str, str] = {}
    for index in range(native.num_layers):
        layer = native.get_layer(index)
        if layer.type.name == "CONSTANT" and layer.name in constants:
            found[str(layer.get_output(0).name)] = str(layer.name)
            constants.discard(layer.name)
    return found


def _read_layer(trt: Any, layer: Any, kind: str, renamed: Mapping[str, str]) -> Layer:
    """Read one layer of a kind that is asked for before the layer's class hides it."""
    if kind not in READERS:
        raise Unsupported("this kind of layer")
    if layer.num_outputs != 1:
        raise Unsupported(f"{layer.num_outputs} outputs")
    inputs = [layer.get_input(at) for at in range(layer.num_inputs)]
    names = tuple(None if t is None else renamed.get(t.name, str(t.name)) for t in inputs)
    output = read_tensor(layer.get_output(0), renamed)
    native_class, read = READERS[kind]
    # The bindings hand out the base class; the attributes are on the layer's own.
    layer.__class__ = getattr(trt, native_class)
    return Layer(onnx_name(layer), kind, names, output, read(layer))


def _ordered(layers: Sequence[Layer], where: str) -> list[Layer]:
    """Return the layers with each behind those it reads from, else in their order."""
    makers = {layer.output.name: layer for layer in layers}
    if len(makers) != len(layers):
        raise GraphError(
            f"{where}: its network has two tensors of one name",
            hint="rename the tensors of the ONNX file",
        )
    done: set[str] = set()
    ordered: list[Layer] = []
    for layer in layers:
        todo = [layer]
        while todo:
            needed = [
                makers[name] for name in todo[-1].inputs if name in makers and name not in done
            ]
            if needed:
                todo += needed
                continue
            placed = todo.pop()
            if placed.output.name not in done:
                done.add(placed.output.name)
                ordered.append(placed)
    return ordered
