"""Rules of what TensorRT computes in one kernel: Conv, Add, ReLU and the Q behind them."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.node import Node, named
from exporter.rules.quantizer import Quantizer, is_q
from exporter.rules.view import View

__all__ = ["RULES"]

_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu")


@rule(
    "two-scales",
    Severity.WARNING,
    way_out="let all readers read one Q/DQ pair; the identity shortcut reads that of the Conv",
)
def two_scales(view: View) -> Iterator[Fault]:
    """A tensor is quantized with one scale.

    With two it is quantized, written and read twice; a shortcut and a Conv that read the same
    codes are one tensor to TensorRT. Source: tried on tensorrt-rtx 1.7.1.
    """
    for q in filter(_makes_codes, view.activations):
        first = view.pairs_on(q.data)[0]
        before = view.dequantizer(q.data)
        if not first.same(q):
            yield Fault(q.node, q.data, f"{q.scale_text} here, {first.scale_text} elsewhere")
        elif before is not None and first is q and not before.same(q):
            yield Fault(q.node, q.data, f"{q.scale_text} right behind {before.scale_text}")


@rule("duplicate-pair", Severity.WARNING, way_out="let all readers read one Q/DQ pair")
def duplicate_pair(view: View) -> Iterator[Fault]:
    """A tensor has one Q/DQ pair, which all readers share.

    TensorRT merges equal pairs; until one of them is changed alone. Source: tried on
    tensorrt-rtx 1.7.1.
    """
    for q in filter(_makes_codes, view.activations):
        pairs = view.pairs_on(q.data)
        before = view.dequantizer(q.data)
        if q in pairs[1:] and pairs[0].same(q):
            yield Fault(q.node, q.data, f"quantized as {pairs[0].node.label} does already")
        elif before is not None and before.same(q):
            yield Fault(q.node, q.data, "quantized right behind its own DequantizeLinear")


@rule("conv-relu", Severity.WARNING, way_out="quantize behind the activation only")
def conv_relu(view: View) -> Iterator[Fault]:
    """Between a Conv or an Add and its ReLU there is no Q.

    The ReLU is computed in the Conv's kernel, and the Q behind it too; a Q between them
    rounds twice, and where it is the only one, the next layer is computed in float.
    Source: NVIDIA, TensorRT documentation, "Explicit quantization"; tried on tensorrt-rtx 1.7.1.
    """
    for node in view.graph.nodes:
        found = view.dequantizer(node.input(0)) if node.is_op(*_ACTIVATIONS) else None
        if found is None or found.pair is None:
            continue
        tensor = view.real(node.input(0))
        maker = view.graph.maker(tensor)
        weighted = maker in view.layers or (maker is not None and maker.is_op("Add"))
        if maker and weighted and view.graph.sole_reader(node.input(0)) is node:
            said = f"quantized between {named(maker)} and {named(node)}"
            yield Fault(found.pair, tensor, said)


@rule(
    "between-dq-and-layer",
    Severity.WARNING,
    way_out="move it before the Q, or store the weight as the layer reads it",
)
def between_dq_and_layer(view: View) -> Iterator[Fault]:
    """A Conv, Gemm or MatMul reads its DQs directly.

    A Cast between them, or a Transpose of a Conv's weight, makes the layer float; other
    moves of values may. Source: NVIDIA, TensorRT documentation, "Explicit quantization"; tried
    on tensorrt-rtx 1.7.1.
    """
    moves = ("Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")
    for node, layer in view.layers.items():
        before: list[Node] = []
        name = node.input(0)
        while name in view.int8 and len(before) < len(view.graph.nodes):
            maker = view.graph.maker(name)
            if maker is None or maker in view.quantizers or maker.is_op("Concat"):
                break
            before.append(maker)
            name = maker.input(0)
        for chain, index in ((before, 0), (layer.between, 1)):
            if moved := [one for one in chain if one.is_op(*moves)]:
                yield Fault(node, node.input(index), f"{named(moved[-1])} between DQ and it")


@rule("unfolded", Severity.WARNING, way_out="fold it before quantizing: strata optimize does")
def unfolded(view: View) -> Iterator[Fault]:
    """No BatchNormalization or constant factor is left behind a layer.

    It has to be folded before scales are taken; behind quantized weights it stays an operation
    of its own, and the scales are not those of the weights that count. Source: NVIDIA,
    TensorRT documentation, "Explicit quantization".
    """
    for node in view.graph.nodes:
        if node.is_op("BatchNormalization"):
            name = node.input(0)
        elif node.is_op("Mul", "Div") and any(map(view.graph.is_constant, node.inputs[:2])):
            name = next((n for n in node.inputs if not view.graph.is_constant(n)), "")
        else:
            continue
        tensor = view.real(name)
        maker = view.graph.maker(tensor)
        layer = view.layers.get(maker) if maker is not None else None
        alone = view.graph.sole_reader(tensor) and view.graph.sole_reader(name) is node
        if layer and layer.int8 and alone and _folds(view, node, maker):
            yield Fault(node, tensor, f"{node.op} behind {named(layer.node)}")


@rule(
    "inner-output",
    Severity.WARNING,
    way_out="return the tensor behind the ReLU, or compare by debug tensors",
)
def inner_output(view: View) -> Iterator[Fault]:
    """No tensor inside a kernel is an output of the graph.

    A Conv's result that is returned too has to be written in float, so its Add and ReLU are
    kernels of their own. Source: NVIDIA, TensorRT documentation, "Explicit quantization".
    """
    for name in view.graph.outputs:
        maker = view.graph.maker(name)
        layer = view.layers.get(maker) if maker is not None else None
        inside = [n for n in view.graph.readers(name) if n.is_op("Add", *_ACTIVATIONS)]
        if layer and layer.int8 and inside:
            yield Fault(layer.node, name, f"an output, and read by {named(inside[0])}")


RULES: tuple[Rule, ...] = (
    two_scales,
    duplicate_pair,
    conv_relu,
    between_dq_and_layer,
    unfolded,
    inner_output,
)


def _folds(view: View, node: Node, layer: Node | None) -> bool:
    """Tell whether a factor is one number, or one for each channel of a layer."""
    if node.is_op("BatchNormalization"):
        return True
    factor = next((n for n in node.inputs if view.graph.is_constant(n)), "")
    value = view.graph.constant(factor)
    shape = view.graph.shape(layer.outputs[0]) if layer else None
    if value is None or (node.is_op("Div") and factor == node.input(0)):
        return False
    return value.size == 1 or (shape is not None and len(shape) > 1 and value.size == shape[1])


def _makes_codes(quantizer: Quantizer) -> bool:
    return is_q(quantizer.node)
