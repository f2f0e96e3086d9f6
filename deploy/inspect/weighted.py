"""Convolutions and matrix products by name: which kernel computes each, and in what type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.inspect.kernels import CODES, WEIGHTED, Kernel, KernelGraph

__all__ = ["Asked", "Form", "WeightedLayer", "weighted_layers"]

# Operator → precision → names of layers, as the manifest has it.
Asked = Mapping[str, Mapping[str, tuple[str, ...]]]
Form = Literal["codes", "widening", "float", "unknown"]
_OPERATORS = {"convolution": "Conv", "deconvolution": "ConvTranspose", "gemm": "Gemm"}


@dataclass(frozen=True, slots=True)
class WeightedLayer:
    """A layer with weights and the kernel that computes it.

    Attributes:
        asked: Precision that the network asked for; empty when nobody said.
        kernel: None when no kernel names this layer.
    """

    name: str
    op: str
    asked: str
    kernel: Kernel | None

    @property
    def takes(self) -> str:
        """Element type of the data it reads; empty when unknown."""
        data = self.kernel.data if self.kernel else None
        return data.dtype if data else ""

    @property
    def gives(self) -> str:
        """Element type that it writes; empty when unknown."""
        return self.kernel.outputs[0].dtype if self.kernel and self.kernel.outputs else ""

    @property
    def form(self) -> Form:
        """What becomes of the numbers.

        ``codes``: INT8 (or FP8) in and out: it requantizes in its own epilogue, and what it
        passes on takes one byte. ``widening``: INT8 in, float out: what it passes on is
        written in 2 or 4 bytes and read again by a kernel that quantizes it. ``float``: it
        computes in float.
        """
        if not self.takes or not self.gives:
            return "unknown"
        if self.takes not in CODES:
            return "float"
        return "codes" if self.gives in CODES else "widening"


def weighted_layers(graph: KernelGraph, asked: Asked) -> tuple[WeightedLayer, ...]:
    """Return the layers with weights in the order they run; those not found come last.

    Args:
        graph: The kernels of an engine.
        asked: Names and precisions of the layers, as the manifest has them; without any,
            each kernel with weights stands for the first layer it names.
    """
    known = {
        name: (op, kind) for op, by in asked.items() for kind, names in by.items() for name in names
    }
    found: dict[str, WeightedLayer] = {}
    for kernel in graph.kernels:
        if kernel.kind not in WEIGHTED:
            continue
        op = _OPERATORS[kernel.kind]
        own = [name for name in kernel.layers if name in known]
        for name in own or ([] if known else [(*kernel.layers, kernel.name)[0]]):
            layer = WeightedLayer(name, *known.get(name, (op, "")), kernel)
            found.setdefault(name, layer)
    for name, (op, kind) in known.items():
        # A small one may be computed in a generated kernel, together with its neighbours.
        others = (kernel for kernel in graph.kernels if name in kernel.layers)
        found.setdefault(name, WeightedLayer(name, op, kind, next(others, None)))
    return tuple(found.values())
