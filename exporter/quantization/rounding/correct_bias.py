"""Take the mean of what quantization adds to a layer's output off its bias.

before:  x̂ → Conv(Ŵ, b) → ŷ,      the float layer being  y = W∗x + b
after:   x̂ → Conv(Ŵ, b − m) → ŷ,  with  m = Σ cₜ·(Ŵ·μ̂ − W·μ)  over inputs and taps

μ and μ̂ are the means of an input channel and of its quantized self, cₜ the share of outputs
for which tap t reads the input and not the padding around it. So every output channel
keeps its mean; what is left of the error has none.

Source: M. Nagel et al., *Data-Free Quantization Through Weight Equalization and Bias
Correction*, ICCV 2019, section 4.2; here with the means that calibration counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from exporter.passes.base import Array, constant, is_op, replace_constant
from exporter.quantization.rounding.channel_means import ChannelMeans
from exporter.quantization.rounding.padding import inside

__all__ = ["correct_biases"]

_Floats = npt.NDArray[np.float64]
Weights = Callable[[ir.Value], Array]


def correct_biases(
    graph: ir.Graph, means: Mapping[str, ChannelMeans], weights: Weights
) -> tuple[str, ...]:
    """Rewrite biases in place.

    Args:
        graph: Float, nodes named.
        means: Conv or Gemm → the means of what it is going to read as codes, in the units in
            which the graph holds it, a constant that was taken off it left on.
        weights: Weight initializer → the values it will be computed with.

    Returns:
        The nodes that were corrected; one is left that reads other channels than ``means`` has.
    """
    done: list[str] = []
    for node in tuple(graph):
        known = means.get(str(node.name))
        weight = node.inputs[1] if len(node.inputs) > 1 else None
        values = constant(weight)
        if known is None or weight is None or values is None or not is_op(node, "Conv", "Gemm"):
            continue
        moved = _moved(node, known, (values, weights(weight)))
        if moved is None:
            continue
        old = constant(node.inputs[2]) if len(node.inputs) > 2 else None
        bias = np.zeros(len(moved)) if old is None else old.astype(np.float64)
        new = (bias - moved).astype(values.dtype)
        replace_constant(node, 2, new, f"{node.name}.bias")
        done.append(str(node.name))
    return tuple(done)


def _moved(node: ir.Node, means: ChannelMeans, weights: tuple[Array, Array]) -> _Floats | None:
    """Return by how much the mean of each output channel moves, (M,)."""
    sums = [_sums(node, weight) for weight in weights]
    outputs, inner = sums[0].shape
    groups = node.attributes.get_int("group", 1) or 1
    if len(means.real) != inner * groups:
        return None
    real, seen = (
        np.einsum(
            "goi,gi->go",
            matrix.reshape(groups, outputs // groups, inner),
            mean.reshape(groups, inner),
        ).reshape(-1)
        for matrix, mean in zip(sums, (means.real, means.seen), strict=True)
    )
    return np.asarray(seen - real)


def _sums(node: ir.Node, weight: Array) -> _Floats:
    """Return a weight summed over its taps, each as often as it reads the input, (M, I)."""
    if is_op(node, "Gemm"):
        matrix = weight if node.attributes.get_int("transB", 0) else weight.T
        return matrix.astype(np.float64)
    flat = weight.reshape(*weight.shape[:2], -1).astype(np.float64)
    return np.asarray(flat @ _shares(node, weight.shape[2:]))


def _shares(node: ir.Node, kernel: tuple[int, ...]) -> _Floats:
    """Return how often each tap of a Conv reads the input, (taps,)."""
    shares = np.ones(1)
    for axis, taps in enumerate(kernel):
        try:
            along = inside(node, axis, taps).mean(axis=0)
        except ValueError:  # of unknown size: as if it were large
            along = np.ones(taps)
        shares = np.multiply.outer(shares, along).reshape(-1)
    return shares
