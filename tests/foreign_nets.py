"""Small networks as other people's exporters write them: shapes, layouts and habits.

Each builder returns a float32 model with random weights, fed with ``input`` and returning one
tensor. Nothing here knows of Strata; PyTorch's, TensorFlow's and Caffe's converters write so.
"""

import math

import numpy as np
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

SIZE = 32  # pixels of an image
CLASSES = 10


class Net:
    """A graph in the making; every method adds nodes and returns the name of a tensor."""

    def __init__(self, opset, *, named=True, seed=0):
        self.opset, self.named = opset, named
        self.nodes, self.weights = [], []
        self.rng = np.random.default_rng(seed)

    def constant(self, values, dtype=np.float32):
        name = f"const_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def op(self, op, *inputs, **attributes):
        number = len(self.nodes)
        name = f"{op}_{number}" if self.named else ""
        output = f"{op.lower()}_{number}_out" if self.named else str(number + 100)
        self.nodes.append(make_node(op, list(inputs), [output], name=name, **attributes))
        return output

    def conv(self, x, inputs, outputs, k=3, *, stride=1, groups=1, bias=False, pads=None):
        shape = (outputs, inputs // groups, k, k)
        deviation = math.sqrt(2 / math.prod(shape[1:]))
        parts = [x, self.constant(self.rng.normal(size=shape) * deviation)]
        if bias:
            parts.append(self.constant(self.rng.normal(size=outputs) * 0.1))
        return self.op(
            "Conv",
            *parts,
            kernel_shape=[k, k],
            strides=[stride, stride],
            group=groups,
            pads=pads or [k // 2] * 4,
        )

    def bn(self, x, channels):
        rng = self.rng
        factors = (
            rng.uniform(0.5, 1.5, channels),
            rng.normal(size=channels) * 0.2,
            rng.normal(size=channels) * 0.2,
            rng.uniform(0.5, 2, channels),
        )
        return self.op("BatchNormalization", x, *map(self.constant, factors))

    def relu(self, x):
        return self.op("Relu", x)

    def conv_bn(self, x, inputs, outputs, k=3, **options):
        return self.bn(self.conv(x, inputs, outputs, k, **options), outputs)

    def conv_bn_relu(self, *args, **options):
        return self.relu(self.conv_bn(*args, **options))

    def bn_relu_conv(self, x, inputs, outputs, k=3, **options):
        return self.conv(self.relu(self.bn(x, inputs)), inputs, outputs, k, **options)

    def pool(self, x, op="MaxPool", k=2, **options):
        return self.op(op, x, kernel_shape=[k, k], strides=[2, 2], **options)

    def mean(self, x, axes, keepdims):
        if self.opset < 18:
            return self.op("ReduceMean", x, axes=axes, keepdims=keepdims)
        return self.op("ReduceMean", x, self.constant(axes, np.int64), keepdims=keepdims)

    def head(self, x, channels):
        """Mean, Flatten, Gemm: as PyTorch writes a classifier."""
        x = self.op("Flatten", self.op("GlobalAveragePool", x), axis=1)
        weight = self.constant(self.rng.normal(size=(CLASSES, channels)) / math.sqrt(channels))
        return self.op("Gemm", x, weight, self.constant(np.zeros(CLASSES)), transB=1)

    def model(self, output, *, shape=("N", 3, SIZE, SIZE), result=("N", CLASSES)):
        graph = make_graph(
            self.nodes,
            "foreign",
            [make_tensor_value_info("input", TensorProto.FLOAT, shape)],
            [make_tensor_value_info(output, TensorProto.FLOAT, result)],
            self.weights,
        )
        opsets = [make_opsetid("", self.opset)]
        return make_model(graph, opset_imports=opsets, ir_version=8 if self.opset < 19 else 9)


def densenet(opset=13):
    """BN-ReLU-Conv behind Concats of Concats; a mean of 2×2 between two blocks."""
    net = Net(opset)
    x, channels = net.pool(net.conv_bn_relu("input", 3, 16, stride=2), pads=[0, 0, 1, 1]), 16
    for block in range(2):
        for _ in range(3):
            new = net.bn_relu_conv(x, channels, 16, 1)
            new = net.bn_relu_conv(new, 16, 8)
            x, channels = net.op("Concat", x, new, axis=1), channels + 8
        if not block:
            x = net.pool(net.bn_relu_conv(x, channels, channels // 2, 1), "AveragePool")
            channels //= 2
    return net.model(net.head(net.relu(net.bn(x, channels)), channels))


def vovnet(opset=17):
    """One-shot aggregation: all of a chain of convolutions joined at once; identity; eSE gate."""
    net = Net(opset)
    x, channels = net.conv_bn_relu("input", 3, 16, stride=2), 16
    for block in range(2):
        joined, last, read = [x], x, channels
        for _ in range(3):
            last, read = net.conv_bn_relu(last, read, 8), 8
            joined.append(last)
        width = channels + 24
        out = net.conv_bn_relu(net.op("Concat", *joined, axis=1), width, 24, 1)
        gate = net.conv(net.op("GlobalAveragePool", out), 24, 24, 1, bias=True)
        out = net.op("Mul", out, net.op("HardSigmoid", gate, alpha=1 / 6, beta=0.5))
        x = net.op("Add", out, x) if block else net.pool(out)
        channels = 24
    return net.model(net.head(x, channels))


def cspnet(opset=17):
    """Half of the channels through residual blocks, half around them; LeakyReLU, no bias."""
    net = Net(opset)

    def layer(x, *shape, **options):
        return net.op("LeakyRelu", net.conv_bn(x, *shape, **options), alpha=0.1)

    x, channels = layer("input", 3, 16), 16
    for _ in range(2):
        x = layer(x, channels, 2 * channels, stride=2)
        channels *= 2
        around, through = (layer(x, channels, channels // 2, 1) for _ in range(2))
        for _ in range(2):
            inner = layer(layer(through, channels // 2, channels // 2, 1), *[channels // 2] * 2)
            through = net.op("Add", through, inner)
        through = layer(through, channels // 2, channels // 2, 1)
        x = layer(net.op("Concat", through, around, axis=1), channels, channels, 1)
    return net.model(net.head(x, channels))


def mobilenet(opset=13):
    """Inverted residuals: depthwise convolutions, ReLU6 as Clip, linear bottlenecks."""
    net = Net(opset)
    bounds = net.constant(0.0), net.constant(6.0)

    def relu6(x):
        return net.op("Clip", x, *bounds)

    x, channels = relu6(net.conv_bn("input", 3, 8, stride=2)), 8
    for outputs, stride in ((8, 1), (12, 2), (12, 1)):
        wide = 4 * channels
        y = relu6(net.conv_bn(x, channels, wide, 1))
        y = relu6(net.conv_bn(y, wide, wide, groups=wide, stride=stride))
        y = net.conv_bn(y, wide, outputs, 1)
        x = net.op("Add", x, y) if (channels, stride) == (outputs, 1) else y
        channels = outputs
    return net.model(net.head(relu6(net.conv_bn(x, channels, 32, 1)), 32))


def resnext(opset=21):
    """Grouped 3×3 convolutions in bottleneck blocks."""
    net = Net(opset)
    x, channels = net.pool(net.conv_bn_relu("input", 3, 16, 7, stride=2), k=3, pads=[1] * 4), 16
    for stride in (1, 2):
        y = net.conv_bn_relu(x, channels, 16, 1)
        y = net.conv_bn_relu(y, 16, 16, groups=4, stride=stride)
        y = net.conv_bn(y, 16, 32, 1)
        x = net.relu(net.op("Add", y, net.conv_bn(x, channels, 32, 1, stride=stride)))
        channels = 32
    return net.model(net.head(x, channels))


def preactivation(opset=17):
    """He et al. 2016: BN and ReLU before each convolution, nothing behind the addition."""
    net = Net(opset)
    x, channels = net.conv("input", 3, 16, stride=2), 16
    for outputs in (16, 32):
        stride = outputs // channels
        opened = net.relu(net.bn(x, channels))
        if stride > 1:
            x = net.conv(opened, channels, outputs, 1, stride=stride)
        y = net.conv(opened, channels, outputs, stride=stride)
        x = net.op("Add", net.bn_relu_conv(y, outputs, outputs), x)
        channels = outputs
    return net.model(net.head(net.relu(net.bn(x, channels)), channels))


def senet(opset=17):
    """Squeeze-and-excitation: the block's result times a gate made of its own means."""
    net = Net(opset)
    x, channels = net.conv_bn_relu("input", 3, 16, stride=2), 16
    for _ in range(2):
        y = net.conv_bn(net.conv_bn_relu(x, channels, channels), channels, channels)
        gate = net.mean(y, [2, 3], 1)
        gate = net.relu(net.conv(gate, channels, 4, 1, bias=True))
        gate = net.op("Sigmoid", net.conv(gate, 4, channels, 1, bias=True))
        x = net.relu(net.op("Add", net.op("Mul", y, gate), x))
    return net.model(net.head(x, channels))


def caffe(opset=13):
    """Caffe-born: no node has a name, Scale is Mul and Add, the classifier reads a Reshape."""
    net = Net(opset, named=False)

    def layer(x, inputs, outputs, *shape, **options):
        x = net.conv_bn(x, inputs, outputs, *shape, **options)
        scale, shift = net.rng.uniform(0.5, 1.5, outputs), net.rng.normal(size=outputs) * 0.1
        x = net.op("Mul", x, net.constant(scale.reshape(1, -1, 1, 1)))
        return net.op("Add", x, net.constant(shift.reshape(1, -1, 1, 1)))

    x = net.relu(layer("input", 3, 16, 7, stride=2))
    x = net.pool(x, k=3, ceil_mode=1)  # 16 → 8, its last window hanging over the edge
    shortcut = layer(x, 16, 32, 1)
    y = net.relu(layer(x, 16, 16, 1))
    y = layer(net.relu(layer(y, 16, 16)), 16, 32, 1)
    x = net.relu(net.op("Add", shortcut, y))
    x = net.op("AveragePool", x, kernel_shape=[8, 8])
    x = net.op("Reshape", x, net.constant([0, -1], np.int64))
    weight = net.constant(net.rng.normal(size=(32, CLASSES)) / 6)
    x = net.op("Gemm", x, weight, net.constant(np.zeros((1, CLASSES))))
    return net.model(net.op("Softmax", x, axis=1))


def keras(opset=13):
    """Keras-born: the image comes as NHWC, strides pad to one side, the classifier is MatMul, Add.

    An island of NHWC is left in the middle, as converters do around what they know in no
    other layout; the mean is taken behind a Transpose, over axes 1 and 2.
    """
    net = Net(opset)
    channels = 16

    def layer(x, inputs, outputs, **options):
        return net.relu(net.conv_bn(x, inputs, outputs, **options))

    x = net.op("Transpose", "input", perm=[0, 3, 1, 2])
    x = layer(x, 3, channels, stride=2, pads=[0, 0, 1, 1])
    y = layer(x, channels, channels)
    y = net.op("Transpose", y, perm=[0, 2, 3, 1])
    pads = net.constant([0, 1, 1, 0, 0, 1, 1, 0], np.int64)
    y = net.op("Pad", y, pads, net.constant(0.0))
    y = net.op("Transpose", y, perm=[0, 3, 1, 2])
    y = net.conv_bn(y, channels, channels, pads=[0, 0, 0, 0])
    x = layer(net.relu(net.op("Add", y, x)), channels, 32, stride=2, pads=[0, 0, 1, 1])
    x = net.op("Transpose", x, perm=[0, 2, 3, 1])
    x = net.mean(x, [1, 2], 0)
    x = net.op("MatMul", x, net.constant(net.rng.normal(size=(32, CLASSES)) / 6))
    x = net.op("Add", x, net.constant(np.zeros(CLASSES)))
    return net.model(x, shape=("N", SIZE, SIZE, 3))


NETS = {
    builder.__name__: builder
    for builder in (
        *(densenet, vovnet, cspnet, mobilenet, resnext, preactivation, senet, caffe, keras),
    )
}


def images(model, count, seed=0):
    """Return random images for a model's input, one to a feed, with structure of several sizes."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:]
    rng = np.random.default_rng(seed)
    space = 0 if shape[0] == SIZE else 1
    found = []
    for _ in range(count):
        image = rng.normal(size=shape) * 0.5
        for cells in (4, 8):
            coarse = list(shape)
            coarse[space : space + 2] = [cells, cells]
            block = rng.normal(size=coarse)
            for axis in (space, space + 1):
                block = block.repeat(SIZE // cells, axis=axis)
            image = image + block
        found.append({"input": image[None].astype(np.float32)})
    return found
