"""Kernels and tensors: what every source of facts about an engine is brought to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["CODES", "SIZES", "WEIGHTED", "Kernel", "KernelGraph", "Tensor"]

# Element type, as ONNX names it → bits of one element.
SIZES: Mapping[str, int] = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "float8e4m3": 8,
    "float4e2m1": 4,
    "int64": 64,
    "int32": 32,
    "int8": 8,
    "uint8": 8,
    "int4": 4,
    "bool": 8,
}
CODES = frozenset({"int8", "float8e4m3", "int4", "float4e2m1"})  # what a Quantize makes
WEIGHTED = frozenset({"convolution", "deconvolution", "gemm"})


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor that a kernel reads or writes.

    Attributes:
        shape: Its dimensions; None where one is not known.
        buffer: What it lies in; a view lies in another tensor's.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    buffer: str

    @property
    def bytes(self) -> int | None:
        """Its size; None when a dimension or the element type is not known."""
        known = [n for n in self.shape if n is not None]
        if self.dtype not in SIZES or len(known) < len(self.shape):
            return None
        return math.ceil(math.prod(known) * SIZES[self.dtype] / 8)


@dataclass(frozen=True, slots=True)
class Kernel:
    """One launch on the GPU.

    Attributes:
        kind: ``convolution``, ``gemm``, ``pooling``, ``pointwise``, …
        layers: ONNX nodes that are computed in it, its own first.
        inputs: Activations it reads, each once.
        constants: Weights and other constants it reads: name → bytes.
        fused: What it does besides: ``bias``, ``relu``, ``residual``, ``quantize``.
    """

    name: str
    kind: str
    layers: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: Mapping[str, int]
    fused: tuple[str, ...] = ()

    @property
    def moved_bytes(self) -> int | None:
        """Bytes of activations read and written; None when a size is not known."""
        return _sum(tensor.bytes for tensor in (*self.inputs, *self.outputs))

    @property
    def data(self) -> Tensor | None:
        """The input that the weights are multiplied with; a residual is none."""
        coded = [tensor for tensor in self.inputs if tensor.dtype in CODES]
        return next(iter(coded or self.inputs), None)


@dataclass(frozen=True, slots=True)
class KernelGraph:
    """The kernels of one optimization profile, in the order they run.

    Attributes:
        batch: Images that the shapes are for.
        scratch_bytes: Memory on the GPU for activations, at the profile's largest shapes;
            None when it is not known.
    """

    kernels: tuple[Kernel, ...]
    batch: int
    scratch_bytes: int | None = None

    @property
    def moved_bytes(self) -> int | None:
        """Bytes of activations that all kernels read and write; None when not known."""
        return _sum(kernel.moved_bytes for kernel in self.kernels)

    @property
    def moved_bytes_per_image(self) -> float | None:
        """The same for one image."""
        moved = self.moved_bytes
        return None if moved is None else moved / self.batch

    @property
    def constant_bytes(self) -> int:
        """Bytes of weights and other constants, each once."""
        constants: dict[str, int] = {}
        for kernel in self.kernels:
            constants |= kernel.constants
        return sum(constants.values())

    def count(self) -> dict[str, int]:
        """Return kind → number of kernels, the most frequent first."""
        return dict(Counter(kernel.kind for kernel in self.kernels).most_common())


def _sum(sizes: Iterable[int | None]) -> int | None:
    known = list(sizes)
    return None if None in known else sum(n for n in known if n is not None)
