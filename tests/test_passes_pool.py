"""Means over height and width become GlobalAveragePool; reshapes to a matrix become Flatten."""

import onnx
import pytest
from onnx_text import apply, operators, parse

from exporter.passes.global_pool import global_pool
from exporter.passes.plain_flatten import plain_flatten


def mean(body, inputs="float[N,5,7,7] x", output="float[N,5,a,b] y"):
    return f"g ({inputs}) => ({output}) {{ {body} }}"


@pytest.mark.parametrize(
    ("opset", "body"),
    [
        (13, "[pool] y = ReduceMean<axes=[2,3]>(x)"),
        (13, "[pool] y = ReduceMean<axes=[-1,-2], keepdims=1>(x)"),
        (17, "[pool] y = AveragePool<kernel_shape=[7,7]>(x)"),
        (19, "[pool] y = AveragePool<kernel_shape=[7,7], strides=[7,7], ceil_mode=1>(x)"),
        (19, '[pool] y = AveragePool<kernel_shape=[7,7], auto_pad="VALID">(x)'),
        (19, "[pool] y = AveragePool<kernel_shape=[7,7], pads=[0,0,0,0]>(x)"),
    ],
)
def test_a_mean_over_height_and_width(opset, body):
    after, result = apply(global_pool, parse(mean(body), opset))
    assert operators(after) == ["GlobalAveragePool"]
    assert result.reason == "GlobalAveragePool: 1 (pool)"
    assert after.graph.node[0].name == "pool"


@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-2, -1]])
def test_axes_as_an_input(axes):
    after, _ = apply(global_pool, parse(mean("y = ReduceMean(x, axes)"), 18, axes=axes))
    assert operators(after) == ["GlobalAveragePool"]
    assert list(after.graph.node[0].input) == ["x"]


@pytest.mark.parametrize(("shape", "axes"), [("N,5,7", [2]), ("N,5,4,3,2", [2, 3, 4])])
def test_one_and_three_spatial_axes(shape, axes):
    text = f"g (float[{shape}] x) => (float[N,5{',u' * len(axes)}] y) {{ y = ReduceMean(x, axes) }}"
    after, _ = apply(global_pool, parse(text, 18, axes=axes))
    assert operators(after) == ["GlobalAveragePool"]


def test_without_keepdims_a_flatten_follows():
    body = "[pool] y = ReduceMean<keepdims=0>(x, axes)"
    after, _ = apply(global_pool, parse(mean(body, output="float[N,5] y"), 18, axes=[2, 3]))
    assert [(n.op_type, n.name, n.output[0]) for n in after.graph.node] == [
        ("GlobalAveragePool", "pool.pool", "y.pool"),
        ("Flatten", "pool", "y"),
    ]


def test_behind_a_transpose_to_channels_last():
    body = """t = Transpose<perm=[0,2,3,1]>(x)
              [pool] y = ReduceMean<axes=[1,2], keepdims=0>(t)"""
    graph = onnx.shape_inference.infer_shapes(parse(mean(body, output="float[N,5] y"), 13))
    after, _ = apply(global_pool, graph)
    assert operators(after) == ["Transpose", "GlobalAveragePool", "Flatten"]
    assert list(after.graph.node[1].input) == ["x"]


@pytest.mark.parametrize(
    ("perm", "output", "attributes"),
    [
        ("0,2,3,1", "float[a,b,c,d] y", "axes=[1,2], keepdims=1"),  # N×1×1×C
        ("1,2,3,0", "float[a,b] y", "axes=[1,2], keepdims=0"),  # C×N
        ("0,2,3,1", "float[a,b] y", "axes=[1,3], keepdims=0"),  # N×W
    ],
)
def test_behind_another_transpose(perm, output, attributes):
    body = f"t = Transpose<perm=[{perm}]>(x) y = ReduceMean<{attributes}>(t)"
    graph = onnx.shape_inference.infer_shapes(parse(mean(body, output=output), 13))
    _, result = apply(global_pool, graph)
    assert not result.changed
    assert "not all of height and width" in result.reason


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("y = ReduceMean<axes=[2]>(x)", "averages axes [2]"),
        ("y = ReduceMean<axes=[1,2,3]>(x)", "averages axes [1, 2, 3]"),
        ("y = ReduceMean(x)", "averages axes []"),
        ("y = AveragePool<kernel_shape=[6,7]>(x)", "kernel [6, 7] is not the whole [7, 7]"),
        ("y = AveragePool<kernel_shape=[7,7], pads=[1,1,1,1]>(x)", "pads"),
        ('y = AveragePool<kernel_shape=[7,7], auto_pad="SAME_UPPER">(x)', "pads"),
    ],
)
def test_another_mean_is_left_and_said(body, why):
    model = parse(mean(body, output="float[a,b,c,d] y"), 13)
    after, result = apply(global_pool, model)
    assert not result.changed
    assert operators(after) == operators(model)
    assert why in result.reason


def test_an_average_over_a_free_size_is_left():
    model = parse(mean("y = AveragePool<kernel_shape=[7,7]>(x)", "float[N,5,H,W] x"), 13)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 8
    _, result = apply(global_pool, model)
    assert "not static" in result.reason


def flat(body, inputs="float[N,5,1,1] x"):
    return f"g ({inputs}) => (float[N,M] y) {{ t = Relu(x) {body} }}"


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("[flat] y = Reshape(t, s)", {"s": [-1, 5]}),
        ("[flat] y = Reshape(t, s)", {"s": [0, -1]}),
        ("[flat] y = Reshape(t, s)", {"s": [0, 5]}),
        ("[flat] y = Squeeze(t, s)", {"s": [2, 3]}),
        ("[flat] y = Squeeze(t, s)", {"s": [-1, -2]}),
        ("[flat] y = Flatten<axis=-3>(t)", {}),
    ],
)
def test_a_flatten_in_disguise(body, weights):
    model = parse(flat(body), **weights)
    model = with_shapes(model)
    after, result = apply(plain_flatten, model)
    assert operators(after) == ["Relu", "Flatten"]
    assert result.reason == "Flatten(axis=1): 1 (flat)"
    assert after.graph.node[1].attribute[0].i == 1


def with_shapes(model):
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


@pytest.mark.parametrize("shape", [[-1, 20], [0, -1], [0, 20]])
def test_height_and_width_are_flattened_too(shape):
    model = parse(flat("y = Reshape(t, s)", "float[N,5,2,2] x"), s=shape)
    after, _ = apply(plain_flatten, with_shapes(model))
    assert operators(after) == ["Relu", "Flatten"]


def test_a_batch_that_is_written_as_a_number():
    text = "g (float[2,5,1,1] x) => (float[2,5] y) { y = Reshape(x, s) }"
    after, _ = apply(plain_flatten, parse(text, s=[2, 5]))
    assert operators(after) == ["Flatten"]


def test_a_shape_computed_from_the_input():
    text = """g (float[N,5,1,1] x) => (float[N,5] y) {
        s = Shape<start=0, end=1>(x)
        t = Concat<axis=0>(s, five)
        y = Reshape(x, t)
    }"""
    after, _ = apply(plain_flatten, with_shapes(parse(text, five=[5])))
    assert operators(after)[-1] == "Flatten"


@pytest.mark.parametrize(
    ("body", "shape", "inputs"),
    [
        ("y = Reshape(t, s)", [5, -1], "float[N,5,1,1] x"),  # mixes images
        ("y = Reshape(t, s)", [-1, 10], "float[N,5,2,2] x"),
        ("y = Reshape(t, s)", [-1, 5], "float[N,5,H,W] x"),
        ("y = Squeeze(t)", None, "float[2,5,1,1] x"),
        ("y = Flatten<axis=2>(t)", None, "float[N,5,2,2] x"),
        ("y = Flatten<axis=0>(t)", None, "float[N,5,2,2] x"),
    ],
)
def test_another_reshape_is_left(body, shape, inputs):
    model = parse(flat(body, inputs), **({} if shape is None else {"s": shape}))
    after, result = apply(plain_flatten, with_shapes(model))
    assert not result.changed
    assert operators(after) == operators(model)
