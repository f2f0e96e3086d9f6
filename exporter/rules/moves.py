"""Rules of what joins, moves and averages INT8: Concat, MaxPool and their like, means."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.node import Node, named
from exporter.rules.quantizer import Quantizer, is_dq, is_q
from exporter.rules.view import View

__all__ = ["RULES"]

_MEANS = ("AveragePool", "GlobalAveragePool")


@rule(
    "concat-scales",
    Severity.WARNING,
    way_out="give all inputs of the Concat and its result one scale, that of the widest",
)
def concat_scales(view: View) -> Iterator[Fault]:
    """A Concat whose result is quantized has one scale for all inputs and the result.

    It is then a copy of codes, or no operation at all; otherwise each input is quantized
    again, or the join is made in float. Source: NVIDIA, TensorRT documentation, "Explicit
    quantization".
    """
    for node in view.graph.nodes:
        if not node.is_op("Concat") or not node.outputs:
            continue
        wanted = _result(view, node)
        for name in dict.fromkeys(node.inputs) if wanted else ():
            found = view.origin(name)
            if not name or view.graph.is_constant(name):
                continue
            if found is None and name not in view.int8:
                yield Fault(node, name, "is joined in float, and the result is quantized")
            elif wanted and found and not wanted.same(found):
                yield Fault(node, name, f"{found.scale_text}; the others have {wanted.scale_text}")


@rule(
    "moved-scales",
    Severity.WARNING,
    way_out="quantize once, behind the last of them; or with one scale",
)
def moved_scales(view: View) -> Iterator[Fault]:
    """What is only moved, by a MaxPool or Reshape, keeps its scale.

    TensorRT lets Q and DQ pass such operators; with another scale behind them the codes are
    rounded a second time. Source: NVIDIA, TensorRT documentation, "Explicit quantization"
    (propagation of Q/DQ).
    """
    for q in view.activations:
        maker = view.graph.maker(q.data)
        origin = view.origin(q.data)
        if maker and origin and is_q(q.node) and not is_dq(maker) and not origin.same(q):
            said = f"{q.scale_text} behind {named(maker)}, {origin.scale_text} before"
            yield Fault(q.node, q.data, said)


@rule(
    "average-pool",
    Severity.WARNING,
    way_out="quantize on both sides of the pool: its input, and the input of the layer behind it",
)
def average_pool(view: View) -> Iterator[Fault]:
    """A mean between INT8 layers is quantized on both sides.

    TensorRT fuses DQ, AveragePool and Q into one INT8 kernel; with one side missing the pool
    is a kernel in float, or the layer behind it is. Source: NVIDIA, TensorRT documentation,
    "Explicit quantization"; tried on tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        if not node.is_op(*_MEANS) or not node.outputs:
            continue
        source, result = node.input(0), node.outputs[0]
        before, behind = source in view.int8, bool(view.ends(result))
        if behind and not before:
            yield Fault(node, source, "the result is quantized, the input is not")
        elif before and not behind and _weighted(view, result):
            yield Fault(node, result, "the input is quantized, the result is not")


RULES: tuple[Rule, ...] = (concat_scales, moved_scales, average_pool)


def _result(view: View, node: Node) -> Quantizer | None:
    """Return how a Concat's result is quantized: by the Q behind it, or as its inputs are."""
    ends = view.ends(node.outputs[0])
    if ends:
        return ends[0]
    if node.outputs[0] not in view.int8:
        return None
    return next(filter(None, map(view.origin, node.inputs)), None)


def _weighted(view: View, name: str) -> bool:
    """Tell whether a layer with a quantized weight reads a tensor."""
    layers = (view.layers.get(node) for node in view.graph.readers(name))
    return any(layer is not None and layer.weight is not None for layer in layers)
