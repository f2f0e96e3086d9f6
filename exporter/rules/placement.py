"""Rules of what is quantized: every layer with weights, on both sides, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.node import named
from exporter.rules.quantizer import is_dq
from exporter.rules.view import MOVES, View

__all__ = ["RULES"]

_PLACE = "place Q/DQ by pattern: strata quantize does"
# What is done to an image before the first layer.
_PREPARES = ("Cast", "Sub", "Mul", "Div", "Add", "Resize", *MOVES)


@rule(
    "activation-per-channel",
    Severity.ERROR,
    way_out="quantize activations per tensor, with one scale",
)
def activation_per_channel(view: View) -> Iterator[Fault]:
    """An activation has one scale.

    With several TensorRT still builds, dequantizes first, and computes the layer in float.
    Source: NVIDIA, TensorRT documentation, "Explicit quantization"; tried on tensorrt-rtx
    1.7.1.
    """
    for q in view.activations:
        if not q.per_tensor and q.scale is not None:
            yield Fault(q.node, q.data, f"{q.scale.size} scales, shape {list(q.scale.shape)}")


@rule(
    "scale-shape",
    Severity.ERROR,
    way_out="make scale and zero point of an activation scalars (shape [])",
)
def scale_shape(view: View) -> Iterator[Fault]:
    """The one scale of an activation is a scalar.

    TensorRT-RTX takes a scale of shape [1] for one that differs by channel, and computes
    each Conv behind it in float. Source: tried on tensorrt-rtx 1.7.1 (a ResNet-50: all 53).
    """
    for q in view.activations:
        if q.scale is not None and q.scale.size == 1 and q.scale.ndim:
            yield Fault(q.node, q.data, f"a scale of shape {list(q.scale.shape)}")


@rule("input-float", Severity.WARNING, way_out=_PLACE)
def input_float(view: View) -> Iterator[Fault]:
    """The image is quantized before the first layer.

    The first layer is computed in float otherwise. Source: NVIDIA, TensorRT documentation,
    "Explicit quantization" (quantize all inputs of weighted operations).
    """
    for node, layer in view.layers.items():
        image = _image(view, node.input(0))
        if image and not layer.int8_input and not view.before.isdisjoint(node.outputs):
            yield Fault(node, node.input(0), f"reads the image {image!r} in float")


@rule("float-layer", Severity.WARNING, way_out=_PLACE)
def float_layer(view: View) -> Iterator[Fault]:
    """No layer between INT8 layers is computed in float.

    A float island costs two conversions beside its own time. Source: NVIDIA, TensorRT
    documentation, "Explicit quantization".
    """
    for node, layer in view.layers.items():
        between = node.input(0) in view.behind and not view.before.isdisjoint(node.outputs)
        if between and not layer.int8_input and layer.weight is None:
            yield Fault(node, node.input(0), f"{node.op} in float between INT8 layers")


@rule("half-quantized", Severity.WARNING, way_out=_PLACE)
def half_quantized(view: View) -> Iterator[Fault]:
    """A layer has both its input and its weight quantized, or neither.

    With one of them TensorRT dequantizes it and computes in float. Source: tried on
    tensorrt-rtx 1.7.1.
    """
    for node, layer in view.layers.items():
        if layer.weight is not None and not layer.int8_input and not _image(view, node.input(0)):
            yield Fault(node, node.input(0), "its weight is quantized, its input is not")
        elif layer.weight is None and is_dq(view.graph.maker(node.input(0))):
            yield Fault(node, node.input(1), "its input is quantized, its weight is not")


@rule("output-quantized", Severity.WARNING, way_out="leave the graph's outputs in float")
def output_quantized(view: View) -> Iterator[Fault]:
    """The graph's outputs are not quantized.

    Logits that are rounded to 8 bits change answers, and no INT8 layer reads them. Source:
    NVIDIA, TensorRT documentation, "Explicit quantization" (do not quantize outputs).
    """
    for name in view.graph.outputs:
        maker = view.graph.maker(name)
        quantizer = view.quantizers.get(maker) if maker is not None else None
        if quantizer is not None and not quantizer.constant:
            yield Fault(quantizer.node, name, f"the output {name!r} is quantized")


@rule(
    "lone-quantize",
    Severity.WARNING,
    way_out="let a DequantizeLinear read the codes, or remove the QuantizeLinear",
)
def lone_quantize(view: View) -> Iterator[Fault]:
    """Every Q has its DQ.

    TensorRT knows quantization by pairs; codes that another operator reads are plain numbers
    to it. Source: NVIDIA, TensorRT documentation, "Explicit quantization".
    """
    for q in view.quantizers.values():
        if is_dq(q.node) or q.codes in view.graph.outputs:
            continue
        readers = view.graph.readers(q.codes)
        if not readers:
            yield Fault(q.node, q.data, "nothing reads its codes")
        others = [node for node in readers if not is_dq(node) and not node.is_op(*MOVES)]
        if others:
            yield Fault(q.node, q.data, f"{named(others[0])} reads its codes")


RULES: tuple[Rule, ...] = (
    activation_per_channel,
    scale_shape,
    input_float,
    float_layer,
    half_quantized,
    output_quantized,
    lone_quantize,
)


def _image(view: View, name: str) -> str:
    """Return the graph input that a tensor is, prepared perhaps; empty when it is none."""
    for _ in range(len(view.graph.nodes) + 1):
        if name in view.graph.inputs:
            return name
        maker = view.graph.maker(name)
        if maker is None or not maker.is_op(*_PREPARES):
            return ""
        name = next((n for n in maker.inputs if not view.graph.is_constant(n)), "")
    return ""
