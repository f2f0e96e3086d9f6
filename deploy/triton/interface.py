"""What a model file takes and gives, as Triton must be told: names, types, shapes, batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.errors import InputError
from deploy.engines.manifest import Binding, Manifest
from deploy.onnx_files.reader import Graph, TensorType

__all__ = ["TYPES", "Batches", "Interface", "interface_of_graph", "interface_of_manifest"]

# Element type → Triton's name. Source: Triton's user guide, "Model Configuration", Datatypes.
TYPES: Mapping[str, str] = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "bfloat16": "TYPE_BF16",
}


@dataclass(frozen=True, slots=True)
class Batches:
    """Batch sizes of an optimization profile."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True, slots=True)
class Interface:
    """What a model file takes and gives.

    Attributes:
        inputs: With their whole shapes; −1 where free.
        outputs: The same.
        profiles: Of a plan; empty for a graph.
    """

    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    profiles: tuple[Batches, ...] = ()

    @property
    def batched(self) -> bool:
        """Whether the first dimension of every tensor is a free batch, as Triton wants it."""
        return all(t.shape and t.shape[0] == -1 for t in (*self.inputs, *self.outputs))


def interface_of_manifest(manifest: Manifest) -> Interface:
    """Return what a plan takes and gives.

    A profile may leave height and width free; Triton takes −1 there, as the plan says.
    """
    name = manifest.inputs[0].name if manifest.inputs else ""
    ranges = [profile[name] for profile in manifest.profiles if name in profile]
    profiles = tuple(Batches(r.min[0], r.opt[0], r.max[0]) for r in ranges)
    return Interface(manifest.inputs, manifest.outputs, profiles)


def interface_of_graph(graph: Graph, *, size: tuple[int, int] | None, where: str) -> Interface:
    """Return what an ONNX file takes and gives.

    Args:
        graph: Its structure.
        size: (height, width) of the images it is fed, for a graph that leaves them free.
        where: The file, for the error text.

    Raises:
        InputError: A tensor without a shape.
    """
    inputs = tuple(_sized(_binding(t, where), size) for t in graph.inputs)
    return Interface(inputs, tuple(_binding(t, where) for t in graph.outputs))


def _binding(tensor: TensorType, where: str) -> Binding:
    if tensor.shape is None:
        raise InputError(
            f"{where}: the shape of {tensor.name!r} is unknown",
            hint="export it with a shape, e.g. (N, 3, 224, 224)",
        )
    shape = tuple(n if isinstance(n, int) else -1 for n in tensor.shape)
    return Binding(tensor.name, tensor.dtype, shape)


def _sized(tensor: Binding, size: Sequence[int] | None) -> Binding:
    if size is None or len(tensor.shape) != 4:
        return tensor
    image = (own if own >= 0 else n for own, n in zip(tensor.shape[2:], size, strict=True))
    return Binding(tensor.name, tensor.dtype, (*tensor.shape[:2], *image))
