"""What a layer reads: multiplied by its weights, it is what ONNX Runtime computes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info

from exporter.graph_file import from_proto
from exporter.quantization.rounding.reads import Reader
from exporter.session import open_session


def model_of(op, weight, inputs, **attributes):
    node = make_node(op, ["x", "w"], ["y"], name="layer", **attributes)
    graph = make_graph(
        [node],
        "layer",
        [make_tensor_value_info("x", TensorProto.FLOAT, inputs)],
        [make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 19)], ir_version=9)


def reader_of(model) -> Reader | None:
    return Reader.of(next(iter(from_proto(model).graph)))


def products(reader, weight, x, count=10**6, image=0):
    """Return outputs × channels of what is sampled."""
    rows = reader.rows(weight)
    made = np.einsum("pgk,gmk->pgm", reader.sample(x, count, image), rows)
    return made.reshape(len(made), -1)


numbers = st.integers(1, 3)


@settings(max_examples=60)
@given(
    st.data(), st.integers(1, 3), st.tuples(numbers, numbers, numbers), st.integers(0, 2**16)
)  # fmt: skip
def test_a_convolution_reads_what_it_is_computed_of(data, axes, sizes, seed):
    rng = np.random.default_rng(seed)
    groups, inner, outer = sizes
    each = st.lists(numbers, min_size=axes, max_size=axes)
    kernel, strides, dilations = (data.draw(each) for _ in range(3))
    pads = data.draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes))
    shape = [
        data.draw(st.integers(max(1, d * (k - 1) + 1), 9))
        for k, d in zip(kernel, dilations, strict=True)
    ]
    weight = rng.normal(size=(groups * outer, inner, *kernel)).astype(np.float32)
    x = rng.normal(size=(1, groups * inner, *shape)).astype(np.float32)
    model = model_of(
        *("Conv", weight, x.shape),
        group=groups, strides=strides, dilations=dilations, pads=pads,
    )  # fmt: skip
    expected = open_session(model)({"x": x})["y"][0].reshape(groups * outer, -1).T
    reader = reader_of(model)
    np.testing.assert_allclose(products(reader, weight, x), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(reader.like(reader.rows(weight), weight.shape), weight)


@pytest.mark.parametrize(
    ("op", "shape", "attributes"),
    [
        ("MatMul", (2, 5, 6), {}),
        ("Gemm", (4, 6), {"transB": 0}),
        ("Gemm", (4, 6), {"transB": 1}),
    ],
)
def test_a_product_reads_its_rows(op, shape, attributes):
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3, 6) if attributes.get("transB") else (6, 3)).astype(np.float32)
    x = rng.normal(size=shape).astype(np.float32)
    model = model_of(op, weight, shape, **attributes)
    expected = open_session(model)({"x": x})["y"][:1].reshape(-1, 3)  # of the first image
    reader = reader_of(model)
    np.testing.assert_allclose(products(reader, weight, x), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(reader.like(reader.rows(weight), weight.shape), weight)


def test_padding_that_is_not_said_is_not_guessed():
    weight = np.ones((2, 3, 3, 3), np.float32)
    assert reader_of(model_of("Conv", weight, (1, 3, 8, 8), auto_pad="SAME_UPPER")) is None
    assert reader_of(model_of("Conv", weight, (1, 3, 8, 8), auto_pad="VALID")).pads == (0,) * 4
    graph = model_of("Conv", weight, (1, 3, 8, 8))
    graph.graph.input.append(
        onnx.helper.make_tensor_value_info("w", TensorProto.FLOAT, [2, 3, 3, 3])
    )
    del graph.graph.initializer[0]
    assert reader_of(graph) is None


@pytest.mark.parametrize("size", [(8, 8), (7, 9), (56, 56), (1, 5)])
def test_images_take_turns(size):
    """Outputs are drawn without repeats, and all of them before one comes again."""
    weight = np.ones((1, 1, 1, 1), np.float32)
    reader = reader_of(model_of("Conv", weight, (1, 1, *size)))
    places = np.arange(np.prod(size), dtype=np.float32).reshape(1, 1, *size)
    count = max(1, places.size // 4)
    turns = [reader.sample(places, count, image).ravel() for image in range(4)]
    assert all(len(turn) == count for turn in turns)
    assert len(np.unique(np.concatenate(turns))) == 4 * count
    for turn in turns:  # of every quarter of the picture a quarter, more or less
        quarters = np.histogram(turn, 4, (0, places.size))[0]
        assert np.ptp(quarters) <= 2 + count // 8


def test_an_input_without_a_weight_is_none():
    node = ir.Node("", "Gemm", [ir.Value(name="x"), ir.Value(name="y")])
    assert Reader.of(node) is None
