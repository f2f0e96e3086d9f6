"""Each kind of layer, parsed by TensorRT and evaluated, against ONNX Runtime."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from network_nets import FP16_DB, FP32_DB, difference_db, parsed, random_feeds, reference, worst_db
from onnx_text import parse

from core.errors import BuildError, GraphError
from deploy.networks.ops.slice import Padding
from deploy.networks.ops.unary import erf


def ints(*values):
    return np.array(values, np.int64)


def net(body, image="N,4,8,8", out="float[N,C,H,W] y"):
    return f"net (float[{image}] x) => ({out}) {{ {body} }}"


ONE = {"one": np.float32(1)}
CHANNELS = {"s": (4, 1, 1)}
ACTIVATIONS = [
    "Relu", "LeakyRelu<alpha=0.2>", "Elu<alpha=0.7>", "Selu<alpha=1.6,gamma=1.1>", "Softsign",
    "Softplus", "HardSigmoid", "HardSwish", "Sigmoid", "Tanh", "ThresholdedRelu<alpha=0.3>",
    "Mish", "Celu", 'Gelu<approximate="none">', 'Gelu<approximate="tanh">',
]  # fmt: skip
UNARY = [
    "Abs", "Neg", "Exp", "Reciprocal", "Floor", "Ceil", "Round", "Erf", "Sign", "Sin", "Cos",
    "Tan", "Sinh", "Cosh", "Atan", "Asinh", "Identity", "Dropout",
]  # fmt: skip
POSITIVE = ["Log", "Sqrt", "Acosh"]  # of |x| + 1
UNIT = ["Asin", "Acos", "Atanh"]  # of tanh x
REDUCTIONS = [
    "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceSumSquare", "ReduceLogSumExp",
]  # fmt: skip
COORDINATES = ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]
NORM = {"a": (4,), "b": (4,)}

CASES = {
    **{op: (net(f"y = {op}(x)"), {}) for op in ACTIVATIONS + UNARY},
    **{op: (net(f"p = Abs(x) q = Add(p, one) y = {op}(q)"), ONE) for op in POSITIVE},
    **{op: (net(f"t = Tanh(x) y = {op}(t)"), {}) for op in UNIT},
    **{op: (net(f"y = {op}(x, s)"), CHANNELS) for op in ["Add", "Mul", "Sub", "Div", "Max", "Min"]},
    **{f"{op} of three": (net(f"y = {op}(x, s, x)"), CHANNELS) for op in ["Max", "Sum", "Mean"]},
    "Pow": (net("p = Abs(x) y = Pow(p, s)"), CHANNELS),
    "PRelu": (net("y = PRelu(x, s)"), CHANNELS),
    "Clip": (net("y = Clip(x, lo, hi)"), {"lo": np.float32(-0.5), "hi": np.float32(6)}),
    "Clip from below": (net("y = Clip(x, lo)"), {"lo": np.float32(-0.37)}),
    "BatchNormalization": (
        net("y = BatchNormalization(x, a, b, m, v)"),
        NORM | {"m": (4,), "v": np.array([0.5, 1, 2, 3])},
    ),
    "InstanceNormalization": (net("y = InstanceNormalization(x, a, b)"), NORM),
    "LayerNormalization": (
        net("y = LayerNormalization<axis=-1>(x, s, b)"), {"s": (8,), "b": (8,)}
    ),
    "GroupNormalization": (net("y = GroupNormalization<num_groups=2>(x, a, b)"), NORM),
    **{op: (net(f"y = {op}<keepdims=0>(x, a)", out="float[N,C] y"), {"a": ints(2, 3)})
       for op in REDUCTIONS},
    "ReduceMean over channels": (net("y = ReduceMean(x, a)"), {"a": ints(-3)}),
    "GlobalAveragePool": (net("y = GlobalAveragePool(x)"), {}),
    "GlobalMaxPool": (net("y = GlobalMaxPool(x)"), {}),
    "Softmax": (net("y = Softmax<axis=1>(x)"), {}),
    "LogSoftmax": (net("y = LogSoftmax<axis=-1>(x)"), {}),
    "Reshape by 0 and -1": (net("y = Reshape(x, s)"), {"s": ints(0, -1, 4, 8)}),
    "Reshape, batch folded": (net("y = Reshape(x, s)", out="float[M,C] y"), {"s": ints(-1, 32)}),
    "Reshape by a computed shape": (
        net("h = Shape(x) n = Gather(h, i) u = Unsqueeze(n, z) c = Concat<axis=0>(u, m)"
            "y = Reshape(x, c)", out="float[N,C] y"),
        {"i": np.int64(0), "z": ints(0), "m": ints(-1)},
    ),
    "Flatten": (net("y = Flatten<axis=2>(x)", out="float[M,C] y"), {}),
    "Transpose": (net("y = Transpose<perm=[0,2,3,1]>(x)"), {}),
    "Squeeze": (net("p = GlobalMaxPool(x) y = Squeeze(p, a)", out="float[N,C] y"),
                {"a": ints(2, 3)}),
    "Unsqueeze": (net("y = Unsqueeze(x, a)", out="float[N,A,C,H,W] y"), {"a": ints(1)}),
    "DepthToSpace": (net("y = DepthToSpace<blocksize=2>(x)"), {}),
    "SpaceToDepth": (net("y = SpaceToDepth<blocksize=2>(x)"), {}),
    "Slice": (net("y = Slice(x, s, e, a)"), {"s": ints(1, 2), "e": ints(4, -1), "a": ints(1, 3)}),
    "Slice backwards": (
        net("y = Slice(x, s, e, a, st)"),
        {"s": ints(1, 7), "e": ints(4, -100), "a": ints(1, 3), "st": ints(2, -2)},
    ),
    "Slice by a computed end": (
        net("h = Shape(x) n = Slice(h, two, three) m = Div(n, two) y = Slice(x, o, m, two)"),
        {"two": ints(2), "three": ints(3), "o": ints(0)},
    ),
    "Split": (net("a, b = Split<axis=1>(x, s) y = Sub(a, b)"), {"s": ints(2, 2)}),
    "Concat": (net("a = Relu(x) y = Concat<axis=1>(x, a, x)"), {}),
    "Gather": (net("y = Gather<axis=1>(x, i)"), {"i": ints(2, 0, -1)}),
    "Where": (net("c = Greater(x, o) y = Where(c, x, o)"), {"o": np.float32(0.1)}),
    "compare": (
        net("a = GreaterOrEqual(x, s) b = Less(x, o) c = Or(a, b) d = Xor(c, b) y = Not(d)",
            out="bool[N,C,H,W] y"),
        CHANNELS | {"o": np.float32(0.1)},
    ),
    "Equal, And, IsNaN": (
        net("f = Floor(x) a = Equal(f, o) b = IsNaN(x) c = IsInf(x) d = Or(b, c) y = And(a, d)",
            out="bool[N,C,H,W] y"),
        {"o": np.float32(0)},
    ),
    "Expand": (net("y = Expand(x, s)"), {"s": ints(1, 4, 8, 8)}),
    "Tile": (net("y = Tile(x, s)"), {"s": ints(1, 2, 1, 3)}),
    "ConstantOfShape": (net("h = Shape(x) z = ConstantOfShape(h) y = Add(x, z)"), {}),
    "Range": (
        net("h = Shape<start=1,end=2>(x) q = Squeeze(h, z) r = Range(o, q, t) f = Cast<to=1>(r)"
            "y = Add(x, f)", image="N,4", out="float[N,4] y"),
        {"z": ints(0), "o": np.int64(0), "t": np.int64(1)},
    ),
    "integer arithmetic": (
        net("h = Shape(x) n = Neg(h) d = Div(n, three) m = Mul(d, h) s = Sub(m, n)"
            "y = Cast<to=1>(s)", out="float[R] y"),
        {"three": ints(3)},
    ),
    "Cast": (net("f = Mul(x, t) i = Cast<to=6>(f) y = Cast<to=1>(i)"), {"t": np.float32(30)}),
    "MatMul": (net("y = MatMul(x, w)", image="N,4", out="float[N,5] y"), {"w": (4, 5)}),
    "MatMul, four axes": (net("y = MatMul(x, w)"), {"w": (8, 5)}),
    "MatMul of the batch": (net("t = Transpose<perm=[0,1,3,2]>(x) y = MatMul(x, t)"), {}),
    "MatMul by a vector": (net("y = MatMul(x, w)", image="N,4", out="float[N] y"), {"w": (4,)}),
    "MatMul of a vector": (net("y = MatMul(x, w)", image="4", out="float[5] y"), {"w": (4, 5)}),
    "Gemm": (
        net("y = Gemm<alpha=0.5,beta=2.0,transB=1>(x, w, c)", image="N,4", out="float[N,5] y"),
        {"w": (5, 4), "c": (5,)},
    ),
    "Gemm transposed": (
        net("y = Gemm<transA=1>(x, w)", image="4,N", out="float[N,5] y"), {"w": (4, 5)}
    ),
    "Pad": (net("y = Pad(x, p, v)"), {"p": ints(0, 0, 1, 2, 0, 0, 0, 3), "v": np.float32(1.5)}),
    "Pad and crop": (net("y = Pad(x, p)"), {"p": ints(0, 1, -1, 2, 0, 0, 3, -3)}),
    **{f"Pad by {mode}": (net(f'y = Pad<mode="{mode}">(x, p)'),
                          {"p": ints(0, 0, 1, 2, 0, 0, 0, 3)}) for mode in ["reflect", "edge"]},
    **{f"Resize {mode} {c}": (
        net(f'y = Resize<mode="{mode}",coordinate_transformation_mode="{c}",nearest_mode="floor">'
            "(x, , s)"),
        {"s": np.array([1, 1, 2, 1.5])},
    ) for mode in ["nearest", "linear", "cubic"] for c in COORDINATES},
    **{f"Resize nearest by {r}": (
        net(f'y = Resize<mode="nearest",nearest_mode="{r}">(x, , s)'),
        {"s": np.array([1, 1, 1.25, 0.5])},
    ) for r in ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]},
    "Resize cubic without outside": (
        net('y = Resize<mode="cubic",exclude_outside=1,cubic_coeff_a=-0.5>(x, , s)'),
        {"s": np.array([1, 1, 2, 0.5])},
    ),
    "Resize to a shape": (
        net('h = Shape<start=0,end=2>(x) q = Concat<axis=0>(h, s) y = Resize<mode="linear">'
            "(x, , , q)"),
        {"s": ints(16, 13)},
    ),
    "Resize to one pixel": (
        net('y = Resize<mode="linear",coordinate_transformation_mode="pytorch_half_pixel">'
            "(x, , s)"),
        {"s": np.array([1, 1, 0.125, 0.5])},
    ),
    "Conv of one axis": (
        net("y = Conv<pads=[1,2],strides=[2]>(x, w, b)", image="N,4,9", out="float[N,C,L] y"),
        {"w": (6, 4, 3), "b": (6,)},
    ),
    "AveragePool of one axis": (
        net("y = AveragePool<kernel_shape=[3],pads=[1,1]>(x)", image="N,4,9",
            out="float[N,C,L] y"), {},
    ),
    "Conv, computed kernel": (
        net("k = Reshape(w, s) y = Conv<pads=[1,1,1,1]>(x, k, b)"),
        {"w": (6, 36), "b": (6,), "s": ints(6, 4, 3, 3)},
    ),
}  # fmt: skip


def case(name):
    text, constants = CASES[name]
    return parse(text, opset=21, **constants)


@pytest.mark.parametrize("name", CASES)
def test_layers(name):
    model = case(name)
    worst, names = worst_db(model)
    assert worst >= FP32_DB
    outputs = {output for node in model.graph.node for output in node.output if output}
    assert names == (outputs | {"y (run)"}) - {"k"}  # k depends on no input


HALF = [
    "Relu", "LeakyRelu<alpha=0.2>", "Sigmoid", "Tanh", "HardSwish", "Exp", "Add", "Mul", "Div",
    "Max", "Clip", "BatchNormalization", "GlobalAveragePool", "GlobalMaxPool", "Softmax",
    "ReduceSum", "Reshape by a computed shape", "Slice backwards", "Concat", "Gather", "Pad",
    "MatMul", "Gemm", "Resize linear half_pixel", "Where", "Conv of one axis",
]  # fmt: skip


@pytest.mark.parametrize("name", HALF)
def test_layers_in_float16(name):
    text, constants = CASES[name]
    text = text.replace("float[", "float16[")
    generator = np.random.default_rng(0)
    for key, value in constants.items():
        array = generator.standard_normal(value) if isinstance(value, tuple) else np.asarray(value)
        real = array.dtype.kind == "f" and not name.startswith("Resize")
        constants = constants | {key: array.astype(np.float16) if real else array}
    worst, names = worst_db(parse(text, opset=21, **constants), own=True)
    assert worst >= FP16_DB
    assert "y" in names


SIZES = st.integers(1, 4)
CONVOLUTIONS = st.fixed_dictionaries(
    {
        "image": st.tuples(st.integers(3, 11), st.integers(3, 11)),
        "kernel": st.tuples(SIZES, SIZES),
        "strides": st.tuples(SIZES, SIZES),
        "dilations": st.tuples(st.integers(1, 3), st.integers(1, 3)),
        "pads": st.tuples(*[st.integers(0, 3)] * 4),
        "auto_pad": st.sampled_from(["NOTSET"] * 3 + ["SAME_UPPER", "SAME_LOWER"]),
        "groups": st.sampled_from([(1, 4, 6), (2, 4, 6), (4, 4, 4), (4, 4, 8), (1, 1, 1)]),
        "batch": st.integers(1, 3),
    }
)


def same_padding(g, axis):
    """Return both paddings together; negative when windows leave elements between them."""
    length, stride = g["image"][axis], g["strides"][axis]
    return (length - 1) // stride * stride + g["kernel"][axis] - length


def convolution(g):
    group, channels, filters = g["groups"]
    pads = f"pads={list(g['pads'])}," if g["auto_pad"] == "NOTSET" else ""
    text = net(
        f'y = Conv<{pads}auto_pad="{g["auto_pad"]}",strides={list(g["strides"])},'
        f"dilations={list(g['dilations'])},group={group}>(x, w, b)",
        image=f"N,{channels},{g['image'][0]},{g['image'][1]}",
    )
    return parse(text, w=(filters, channels // group, *g["kernel"]), b=(filters,))


@settings(max_examples=60)
@given(CONVOLUTIONS)
def test_convolutions_of_any_geometry(g):
    for axis in (0, 1):
        extent = 1 + g["dilations"][axis] * (g["kernel"][axis] - 1)
        padding = g["pads"][axis] + g["pads"][axis + 2] if g["auto_pad"] == "NOTSET" else 0
        assume(extent <= g["image"][axis] + padding)
        assume(g["auto_pad"] == "NOTSET" or same_padding(g, axis) >= 0)
        # SAME of ONNX Runtime ignores dilation.
        assume(g["auto_pad"] == "NOTSET" or g["dilations"][axis] == 1)
    model = convolution(g)
    worst, _ = worst_db(model, batch=g["batch"])
    assert worst >= FP32_DB


POOLINGS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["MaxPool", "AveragePool", "AveragePool, padding counts"]),
        "image": st.tuples(st.integers(3, 11), st.integers(3, 11)),
        "kernel": st.tuples(SIZES, SIZES),
        "strides": st.tuples(SIZES, SIZES),
        "pads": st.tuples(*[st.integers(0, 2)] * 4),
        "mode": st.sampled_from(["floor", "floor", "ceil", "SAME_UPPER", "SAME_LOWER"]),
    }
)


@settings(max_examples=60)
@given(POOLINGS)
def test_poolings_of_any_geometry(g):
    explicit = not g["mode"].startswith("SAME")
    for axis in (0, 1):
        assume(explicit or same_padding(g, axis) >= 0)
        assume(max(g["pads"][axis], g["pads"][axis + 2]) < g["kernel"][axis] or not explicit)
        room = g["image"][axis] + g["pads"][axis] + g["pads"][axis + 2] - g["kernel"][axis]
        assume(room >= 0)
        # ONNX drops a window that lies in the padding alone; TensorRT keeps it.
        last = -(-room // g["strides"][axis]) * g["strides"][axis]
        assume(g["mode"] != "ceil" or last < g["image"][axis] + g["pads"][axis])
    op, _, counts = g["op"].partition(",")
    options = [f"kernel_shape={list(g['kernel'])}", f"strides={list(g['strides'])}"]
    options += [f"pads={list(g['pads'])}"] if explicit else [f'auto_pad="{g["mode"]}"']
    options += ["ceil_mode=1"] if g["mode"] == "ceil" else []
    options += ["count_include_pad=1"] if counts else []
    text = net(f"y = {op}<{','.join(options)}>(x)", image=f"N,2,{g['image'][0]},{g['image'][1]}")
    worst, _ = worst_db(parse(text, opset=19))
    assert worst >= FP32_DB


def with_operation(network, kind, change):
    """Return the network with the operations of a kind changed."""
    layers = tuple(
        replace(layer, operation=change(layer.operation)) if layer.kind == kind else layer
        for layer in network.layers
    )
    return replace(network, layers=layers)


def test_wrong_padding_is_noticed():
    model = parse(net("y = Conv<pads=[0,1,2,1]>(x, w)"), w=(4, 4, 3, 3))
    network = parsed(model)

    def swap(operation):
        window = operation.window
        return replace(operation, window=replace(window, before=window.after, after=window.before))

    assert worst_db(model, network=network)[0] >= FP32_DB
    assert worst_db(model, network=with_operation(network, "CONVOLUTION", swap))[0] < 20


def test_counting_padding_is_noticed():
    model = parse(net("y = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(x)"))
    wrong = with_operation(parsed(model), "POOLING", lambda o: replace(o, count_padding=True))
    assert worst_db(model, network=wrong)[0] < 20


def test_a_convolution_in_many_blocks_is_the_same(monkeypatch):
    model = parse(
        net("a = Conv<pads=[1,1,1,1]>(x, w) y = Conv<group=4,pads=[1,1,1,1]>(a, d)"),
        w=(4, 4, 3, 3),
        d=(4, 1, 3, 3),
    )
    for block, fewest, channels in [(1 << 21, 256, 1 << 17), (1, 8, 1), (1, 200, 1)]:
        monkeypatch.setattr("deploy.networks.ops.convolution._BLOCK_BYTES", block)
        monkeypatch.setattr("deploy.networks.ops.convolution.FEWEST_COLUMNS", fewest)
        monkeypatch.setattr("deploy.networks.ops.convolution._CHANNEL_BYTES", channels)
        assert worst_db(model, batch=5)[0] >= FP32_DB


def test_the_error_function():
    x = np.array([0, 1e-7, 0.5, -0.5, 1, 2.5, -4, 7, np.inf, -np.inf, np.nan], np.float32)
    expected = [0, 1.1283792e-7, 0.52049988, -0.52049988, 0.84270079, 0.99959305, -1, 1, 1, -1]
    np.testing.assert_allclose(erf(x)[:-1], expected, rtol=1e-7, atol=1e-7)
    assert np.isnan(erf(x)[-1])


def test_padding_layers():
    """No parser at hand makes one; older ones of TensorRT do."""
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    padded = Padding((1, -1), (2, 0))([x])
    np.testing.assert_array_equal(padded, np.pad(x[..., 1:], [(0, 0), (0, 0), (1, 2), (0, 0)]))


def test_the_parser_rounds_the_defaults_of_selu():
    """1.6732 and 1.0507 in place of ONNX's seven digits: what TensorRT was asked to compute."""
    worst, _ = worst_db(parse(net("y = Selu(x)")))
    assert 80 < worst < FP32_DB


def test_resize_goes_by_lengths_as_tensorrt_says():
    """8 · 1.3 gives 10 elements: 0.8 apart in TensorRT, 1 / 1.3 apart in ONNX."""
    model = parse(net('y = Resize<mode="linear">(x, , s)'), s=np.array([1, 1, 1, 1.3]))
    by_length = parse(net('y = Resize<mode="linear">(x, , , s)'), s=ints(3, 4, 8, 10))
    feeds = random_feeds(model)
    ours, theirs = parsed(model).run(feeds)["y"], reference(by_length, feeds)["y"]
    assert difference_db(ours, theirs) >= FP32_DB
    assert worst_db(model)[0] < FP32_DB


UNKNOWN = {
    "TOPK": net("y = ArgMax<axis=1,keepdims=0>(x)", out="int64[N,H,W] y"),
    "LRN": net("y = LRN<size=3>(x)"),
    "DECONVOLUTION": net("y = ConvTranspose(x, w)"),
    "EINSUM": net('y = Einsum<equation="nchw->nhwc">(x)'),
    "3 dimensions": net("u = Unsqueeze(x, a) y = MaxPool<kernel_shape=[1,2,2]>(u)",
                        out="float[N,C,D,H,W] y"),
    "BF16": net("h = Cast<to=16>(x) y = Cast<to=1>(h)"),
}  # fmt: skip


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_not_known_is_named(kind):
    model = parse(UNKNOWN[kind], opset=17, w=(4, 4, 2, 2), a=ints(1))
    with pytest.raises(GraphError, match=f"(?s)layer 'node_of_.'.*{kind}") as caught:
        parsed(model)
    assert "ONNX Runtime" in caught.value.hint


def test_same_padding_that_would_crop_is_refused():
    model = parse(net('y = MaxPool<kernel_shape=[1,1],strides=[3,3],auto_pad="SAME_UPPER">(x)'))
    with pytest.raises(GraphError, match="SAME_UPPER padding"):
        parsed(model).run(random_feeds(model))


def test_what_tensorrt_refuses_is_refused():
    text = net("y = MaxPool<kernel_shape=[2,2],dilations=[2,2]>(x)")
    with pytest.raises(BuildError, match="MaxPool"):
        parsed(parse(text))
