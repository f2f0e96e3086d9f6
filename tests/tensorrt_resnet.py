"""A ResNet-50 by hand, in FP16 and in INT8: real widths, 224×224, weights without meaning."""

import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.helper import (
    make_graph,
    make_model,
    make_node,
    make_opsetid,
    make_tensor_value_info,
)

F16, I8 = np.float16, np.int8
BLOCKS = (3, 4, 6, 3)


class _Net:
    def __init__(self, *, quantized):
        self.quantized = quantized
        self.nodes, self.constants, self.codes = [], {}, {}
        self.noise = np.random.default_rng(0).standard_normal(1 << 12).astype(np.float32)

    def node(self, op, inputs, name, **attributes):
        self.nodes.append(make_node(op, inputs, [name], name=name, **attributes))
        return name

    def activation(self, tensor):
        """Q and DQ of a tensor, shared by all that read it."""
        if not self.quantized:
            return tensor
        if tensor not in self.codes:
            scale, zero = f"{tensor}.scale", f"{tensor}.zero_point"
            self.constants |= {scale: np.array(0.05, F16), zero: np.array(0, I8)}
            codes = self.node("QuantizeLinear", [tensor, scale, zero], f"{tensor}.quantize")
            self.codes[tensor] = self.node(
                "DequantizeLinear", [codes, scale, zero], f"{tensor}.dequantize"
            )
        return self.codes[tensor]

    def weight(self, name, shape):
        value = np.resize(self.noise, shape) * np.float32(0.05)
        if not self.quantized:
            self.constants[name] = value.astype(F16)
            return name
        scale = (np.abs(value).reshape(shape[0], -1).max(axis=1) / 127).astype(F16)
        codes = np.rint(value / scale.astype(np.float32).reshape(-1, *[1] * (len(shape) - 1)))
        self.constants |= {
            f"{name}.quantized": np.clip(codes, -128, 127).astype(I8),
            f"{name}.scale": scale,
            f"{name}.zero_point": np.zeros(shape[0], I8),
        }
        inputs = [f"{name}.{part}" for part in ("quantized", "scale", "zero_point")]
        return self.node("DequantizeLinear", inputs, f"{name}.dequantize", axis=0)

    def conv(self, name, x, channels, kernel, stride=1):
        given, made = channels
        weight = self.weight(f"{name}.weight", (made, given, kernel, kernel))
        self.constants[f"{name}.bias"] = np.zeros(made, F16)
        return self.node(
            "Conv",
            [self.activation(x), weight, f"{name}.bias"],
            name,
            kernel_shape=[kernel] * 2,
            strides=[stride] * 2,
            pads=[kernel // 2] * 4,
        )

    def block(self, name, x, channels, middle, stride):
        y = self.node(
            "Relu", [self.conv(f"{name}.conv1", x, (channels, middle), 1)], f"{name}.relu1"
        )
        y = self.conv(f"{name}.conv2", y, (middle, middle), 3, stride)
        y = self.node("Relu", [y], f"{name}.relu2")
        y = self.conv(f"{name}.conv3", y, (middle, 4 * middle), 1)
        if name.endswith(".0"):
            x = self.conv(f"{name}.downsample.0", x, (channels, 4 * middle), 1, stride)
        total = self.node("Add", [y, self.activation(x)], f"{name}.add")
        return self.node("Relu", [total], f"{name}.relu")


def resnet50(*, quantized):
    """Return a ResNet-50 of float16, or of INT8 with the rest in float16."""
    net = _Net(quantized=quantized)
    image = net.node("Cast", ["input"], "image", to=TensorProto.FLOAT16)
    x = net.node("Relu", [net.conv("conv1", image, (3, 64), 7, 2)], "relu")
    pads = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
    x = net.node("MaxPool", [x], "maxpool", **pads)
    channels = 64
    for stage, count in enumerate(BLOCKS):
        for index in range(count):
            middle, stride = 64 << stage, 2 if stage and not index else 1
            x = net.block(f"layer{stage + 1}.{index}", x, channels, middle, stride)
            channels = 4 * middle
    x = net.node("GlobalAveragePool", [net.activation(x)], "avgpool")
    x = net.activation(net.node("Flatten", [x], "flatten"))
    net.constants["fc.bias"] = np.zeros(1000, F16)
    weight = net.weight("fc.weight", (1000, channels))
    net.node("Gemm", [x, weight, "fc.bias"], "fc", transB=1)
    net.node("Cast", ["fc"], "logits", to=TensorProto.FLOAT)
    graph = make_graph(
        net.nodes,
        "resnet50",
        [make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, 224, 224])],
        [make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 1000])],
        [numpy_helper.from_array(value, name) for name, value in net.constants.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=10)


def names():
    """The 53 convolutions and the FC, in order of the graph's blocks."""
    found = ["conv1"]
    for stage, count in enumerate(BLOCKS, start=1):
        for index in range(count):
            block = f"layer{stage}.{index}"
            found += [f"{block}.conv{n}" for n in (1, 2, 3)]
            found += [f"{block}.downsample.0"] if not index else []
    return [*found, "fc"]
