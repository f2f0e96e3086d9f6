"""Small residual networks for the tests of comparing and evaluating: float, and with Q/DQ."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from calib_data.preprocess import PreprocessSpec
from core.int8 import quantize, scale_of
from exporter.onnx_file import Card, save

SPEC = PreprocessSpec((16, 16), None, "bilinear", (0.286,) * 3, (0.353,) * 3)
CLASSES = 10


class Net:
    """Nodes and weights as they come; every node is named as the tensor it makes."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}

    def op(self, kind: str, name: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def conv(self, name: str, x: str, shape: tuple[int, int, int], gain: float = 1.0) -> str:
        o, i, k = shape
        w = self.random.standard_normal((o, i, k, k)) * gain * np.sqrt(2 / (i * k * k))
        self.weights[f"{name}.weight"] = w.astype(np.float32)
        self.weights[f"{name}.bias"] = self.random.standard_normal(o).astype(np.float32) * 0.1
        return self.op(
            "Conv",
            name,
            x,
            f"{name}.weight",
            f"{name}.bias",
            kernel_shape=[k, k],
            pads=[k // 2] * 4,
        )

    def model(self, batch: int | str = "N", classes: int = CLASSES) -> onnx.ModelProto:
        info = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            "tiny",
            [info("input", onnx.TensorProto.FLOAT, [batch, 3, "H", "W"])],
            [info("logits", onnx.TensorProto.FLOAT, [batch, classes])],
            [numpy_helper.from_array(w, name) for name, w in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)


def resnet(
    blocks: int = 2, width: int = 8, *, batch: int | str = "N", classes: int = CLASSES
) -> onnx.ModelProto:
    """A stem, a projection block, identity blocks, and a classifier."""
    net = Net()
    x = net.op("Relu", "relu", net.conv("conv1", "input", (width, 3, 3)))
    for at in range(blocks):
        p = f"layer1.{at}"
        y = net.op("Relu", f"{p}.relu1", net.conv(f"{p}.conv1", x, (width, width, 3)))
        y = net.conv(f"{p}.conv2", y, (width, width, 3), 0.5)
        side = net.conv(f"{p}.downsample", x, (width, width, 1)) if at == 0 else x
        x = net.op("Relu", f"{p}.relu", net.op("Add", f"{p}.add", y, side))
    x = net.op("Flatten", "flatten", net.op("GlobalAveragePool", "avgpool", x))
    net.weights["fc.weight"] = net.random.standard_normal((classes, width)).astype(np.float32)
    net.weights["fc.bias"] = np.zeros(classes, np.float32)
    net.op("Gemm", "logits", x, "fc.weight", "fc.bias", transB=1)
    return net.model(batch, classes)


def with_qdq(model: onnx.ModelProto, amax: float = 6.0) -> onnx.ModelProto:
    """Quantize every Conv and Gemm: one amax for all activations, max for weight channels."""
    weights = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    quantized = onnx.ModelProto()
    quantized.CopyFrom(model)
    del quantized.graph.node[:]
    add = quantized.graph.node.append
    more: dict[str, np.ndarray] = {}
    done: set[str] = set()
    for node in model.graph.node:
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type in {"Conv", "Gemm"}:
            t, w = node.input[:2]
            if t not in done:
                done.add(t)
                more |= {f"{t}.scale": scale_of(amax), f"{t}.zero_point": np.int8(0)}
                add(_q(t, f"{t}.quantize"))
                add(_dq(t))
            scale = scale_of(np.abs(weights[w].reshape(len(weights[w]), -1)).max(axis=1))
            more |= {
                f"{w}.quantized": quantize(weights[w], scale, 0),
                f"{w}.scale": scale,
                f"{w}.zero_point": np.zeros(len(scale), np.int8),
            }
            add(_dq(w, axis=0))
            copy.input[0], copy.input[1] = f"{t}.dequantized", f"{w}.dequantized"
        add(copy)
    made = [numpy_helper.from_array(np.asarray(a), name) for name, a in more.items()]
    quantized.graph.initializer.extend(made)
    return quantized


def _q(t: str, name: str) -> onnx.NodeProto:
    inputs = [t, f"{t}.scale", f"{t}.zero_point"]
    return helper.make_node("QuantizeLinear", inputs, [f"{t}.quantized"], name=name)


def _dq(t: str, **attributes: object) -> onnx.NodeProto:
    inputs = [f"{t}.quantized", f"{t}.scale", f"{t}.zero_point"]
    outputs = [f"{t}.dequantized"]
    name = f"{t}.dequantize"
    return helper.make_node("DequantizeLinear", inputs, outputs, name=name, **attributes)


def write(
    model: onnx.ModelProto,
    path: Path,
    *,
    stage: str = "model",
    parents: Mapping[str, str] | None = None,
    spec: PreprocessSpec | None = SPEC,
) -> Path:
    """Write a model with its card."""
    save(model, path, Card(preprocess=spec, stage=stage, parents=parents or {}))
    return path


def weight(model: onnx.ModelProto, name: str) -> np.ndarray:
    """A weight of the model, a copy."""
    (found,) = (i for i in model.graph.initializer if i.name == name)
    return numpy_helper.to_array(found).copy()


def set_weight(model: onnx.ModelProto, name: str, value: np.ndarray) -> onnx.ModelProto:
    """The model with another weight, in place."""
    (found,) = (i for i in model.graph.initializer if i.name == name)
    found.CopyFrom(numpy_helper.from_array(value, name))
    return model
