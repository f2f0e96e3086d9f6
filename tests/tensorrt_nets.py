"""Small networks for the tests of building: Conv, ReLU, pooling, FC, in every precision."""

import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)

F32, F16, I8 = np.float32, np.float16, np.int8


def constants(kind="fp32"):
    """Weights, scales and zero points of :func:`net`, to change before it is made."""
    rng = np.random.default_rng(0)
    real = F16 if "16" in kind else F32
    conv = rng.standard_normal((4, 3, 3, 3)).astype(F32)
    fc = rng.standard_normal((5, 4)).astype(F32)
    found = {"conv1.bias": np.zeros(4, real), "fc.bias": np.zeros(5, real)}
    if not kind.startswith("int8"):
        return found | {"conv1.weight": conv.astype(real), "fc.weight": fc.astype(real)}
    for name, weight in (("conv1", conv), ("fc", fc)):
        scale = (np.abs(weight).reshape(len(weight), -1).max(axis=1) / 127).astype(real)
        steps = weight / scale.astype(F32).reshape(-1, *[1] * (weight.ndim - 1))
        found |= {
            f"{name}.weight.quantized": np.clip(np.rint(steps), -128, 127).astype(I8),
            f"{name}.weight.scale": scale,
            f"{name}.weight.zero_point": np.zeros(len(scale), I8),
            f"{name}.in.scale": np.array(0.05, real),
            f"{name}.in.zero_point": np.array(0, I8),
        }
    return found


def node(op, inputs, output, *, name=None, **attributes):
    """Return a node, named as its output unless ``name`` says otherwise."""
    return make_node(op, inputs.split(), [output], name=name or output, **attributes)


def _qdq(layer, tensor):
    code = f"{layer}.in.scale {layer}.in.zero_point"
    weight = f"{layer}.weight"
    return [
        node("QuantizeLinear", f"{tensor} {code}", f"{layer}.in.quantized"),
        node("DequantizeLinear", f"{layer}.in.quantized {code}", f"{layer}.in.dequantized"),
        node(
            "DequantizeLinear",
            f"{weight}.quantized {weight}.scale {weight}.zero_point",
            f"{weight}.dequantized",
            axis=0,
        ),
    ]


def nodes(kind="fp32"):
    """The nodes of :func:`net`, in order."""
    half, quantized = "16" in kind, kind.startswith("int8")
    first = "image" if half else "input"

    def inputs(layer, tensor):
        if quantized:
            return f"{layer}.in.dequantized {layer}.weight.dequantized {layer}.bias"
        return f"{tensor} {layer}.weight {layer}.bias"

    return [
        *([node("Cast", "input", "image", to=TensorProto.FLOAT16)] if half else []),
        *(_qdq("conv1", first) if quantized else []),
        node("Conv", inputs("conv1", first), "conv1", kernel_shape=[3, 3], pads=[1] * 4),
        node("Relu", "conv1", "relu"),
        node("GlobalAveragePool", "relu", "avgpool"),
        node("Flatten", "avgpool", "flatten"),
        *(_qdq("fc", "flatten") if quantized else []),
        node("Gemm", inputs("fc", "flatten"), "fc" if half else "logits", name="fc", transB=1),
        *([node("Cast", "fc", "logits", to=TensorProto.FLOAT)] if half else []),
    ]


def net(kind="fp32", *, shape=("N", 3, 8, 8), opset=20, body=None, changes=None):
    """Return a model: ``fp32``, ``fp16``, ``int8`` or ``int8fp16`` (INT8, the rest FP16).

    Args:
        shape: Of the input.
        opset: Of the standard domain.
        body: Replaces all nodes.
        changes: Constants to replace or to add, by name.
    """
    values = constants(kind) | (changes or {})
    graph = make_graph(
        body or nodes(kind),
        "net",
        [make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [make_tensor_value_info("logits", TensorProto.FLOAT, [shape[0], 5])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=10)


def write(path, *args, **options):
    """Write :func:`net` to ``path`` and return the path."""
    path.write_bytes(net(*args, **options).SerializeToString())
    return path
