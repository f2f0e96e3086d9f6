"""A bottleneck ResNet as ONNX after the passes: made in milliseconds, without PyTorch."""

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info


class _Maker:
    def __init__(self):
        self.nodes, self.weights, self.rng = [], [], np.random.default_rng(0)

    def op(self, op, name, inputs, output=None, **attributes):
        self.nodes.append(make_node(op, inputs, [output or name], name=name, **attributes))
        return output or name

    def weight(self, name, values):
        self.weights.append(numpy_helper.from_array(values.astype(np.float32), name))
        return name

    def conv(self, name, output, x, shape, stride=1, gain=1.0):
        k = shape[2]
        scale = gain * np.sqrt(2 / np.prod(shape[1:]))
        weight = self.weight(f"{name}.weight", self.rng.normal(size=shape) * scale)
        bias = self.weight(f"{name}.bias", self.rng.normal(size=shape[0]) * 0.1)
        pads = [k // 2] * 4
        return self.op(
            "Conv", name, [x, weight, bias], output,
            kernel_shape=[k, k], strides=[stride, stride], pads=pads,
        )  # fmt: skip

    def block(self, name, x, channels, width, stride):
        y = self.conv(f"{name}.conv1", f"{name}.bn1", x, (width, channels, 1, 1))
        y = self.op("Relu", f"{name}.relu1", [y])
        y = self.conv(f"{name}.conv2", f"{name}.bn2", y, (width, width, 3, 3), stride)
        y = self.op("Relu", f"{name}.relu2", [y])
        y = self.conv(f"{name}.conv3", f"{name}.bn3", y, (4 * width, width, 1, 1), gain=0.3)
        if channels != 4 * width or stride > 1:
            shape = (4 * width, channels, 1, 1)
            x = self.conv(f"{name}.downsample.0", f"{name}.downsample.1", x, shape, stride)
        return self.op("Relu", f"{name}.relu", [self.op("Add", f"{name}.add", [y, x])])


def resnet(blocks=(3, 4, 6, 3), *, width=8, size=32, classes=10, opset=19):
    """Return a model with input ``input`` (N, 3, size, size) and output ``logits``."""
    make = _Maker()
    x = make.conv("conv1", "bn1", "input", (width, 3, 7, 7), 2)
    x = make.op("Relu", "relu", [x])
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    x = make.op("MaxPool", "maxpool", [x], **window)
    channels = width
    for stage, count in enumerate(blocks):
        for number in range(count):
            stride = 2 if stage and not number else 1
            x = make.block(f"layer{stage + 1}.{number}", x, channels, width << stage, stride)
            channels = 4 * (width << stage)
    x = make.op("Flatten", "flatten", [make.op("GlobalAveragePool", "avgpool", [x])])
    weight = make.weight("fc.weight", make.rng.normal(size=(classes, channels)) * 0.1)
    bias = make.weight("fc.bias", np.zeros(classes))
    make.op("Gemm", "fc", [x, weight, bias], "logits", transB=1)
    graph = make_graph(
        make.nodes,
        "resnet",
        [make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, size, size])],
        [make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes])],
        make.weights,
    )
    model = make_model(graph, opset_imports=[make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)
