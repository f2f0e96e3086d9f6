"""A convolution over few pixels is one product of matrices: the same numbers, fewer nodes."""

import sys

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from core.int8 import quantize, scale_of
from deploy.runners import open_model
from exporter.products import as_products
from exporter.session import open_session

C, K, N = 3, 4, 5
RANDOM = np.random.default_rng(0)


def conv(height, width, *, kernel=(3, 3), bias=True, opset=19, **attributes):
    """One convolution of N×3×height×width, its shapes written into the graph."""
    weight = RANDOM.standard_normal((K, C // attributes.get("group", 1), *kernel))
    weights = {"w": weight.astype(np.float32)}
    inputs = ["x", "w"]
    if bias:
        weights["b"] = RANDOM.standard_normal(K).astype(np.float32)
        inputs.append("b")
    node = helper.make_node("Conv", inputs, ["y"], name="conv", **attributes)
    return model([node], weights, (height, width), opset)


def model(nodes, weights, size, opset=19):
    info, kind = helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "few",
        [info("x", kind, ["N", C, *size])],
        [info("y", kind, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return onnx.shape_inference.infer_shapes(made)


def kinds(graph):
    return [node.op_type for node in graph.graph.node]


def agree(before, after, size):
    x = RANDOM.standard_normal((N, C, *size)).astype(np.float32)
    onnx.checker.check_model(after, full_check=True)
    wanted = open_session(before)({"x": x})["y"]
    found = open_session(after)({"x": x})["y"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    return found


PRODUCTS = {
    "3×3 over one pixel": ((1, 1), {"pads": [1] * 4}),
    "3×3 over 2×2": ((2, 2), {"pads": [1] * 4}),
    "3×3 stride 2, 2×2 to one": ((2, 2), {"pads": [1] * 4, "strides": [2, 2]}),
    "1×1 over one pixel": ((1, 1), {"kernel": (1, 1)}),
    "1×1 stride 2, 2×2 to one": ((2, 2), {"kernel": (1, 1), "strides": [2, 2]}),
    "7×7 over all of 7×7": ((7, 7), {"kernel": (7, 7)}),
    "no square": ((1, 2), {"pads": [1] * 4}),
    "dilated": ((3, 3), {"kernel": (2, 2), "dilations": [2, 2]}),
    "no bias": ((1, 1), {"pads": [1] * 4, "bias": False}),
}
LEFT = {
    "more pixels than the kernel sees": ((4, 4), {"pads": [1] * 4}),
    "1×1 over 2×2": ((2, 2), {"kernel": (1, 1)}),
    "1×1 stride 2, 3×3 to 2×2": ((3, 3), {"kernel": (1, 1), "strides": [2, 2]}),
    "free size": (("h", "w"), {"pads": [1] * 4}),
    "padding by name": ((1, 1), {"auto_pad": "SAME_UPPER"}),
    "an old opset": ((1, 1), {"pads": [1] * 4, "opset": 9}),
}


@pytest.mark.parametrize("case", PRODUCTS)
def test_it_is_a_product_of_the_same_numbers(case):
    size, options = PRODUCTS[case]
    before = conv(*size, **options)
    after = onnx.ModelProto.FromString(before.SerializeToString())
    assert as_products(after) == ["y"]
    assert "Conv" not in kinds(after)
    assert [node.name for node in after.graph.node if node.op_type == "Gemm"] == ["conv"]
    assert "w" not in {weight.name for weight in after.graph.initializer}
    agree(before, after, size)
    assert as_products(after) == []  # again: nothing to do


@pytest.mark.parametrize("case", LEFT)
def test_it_stays_a_convolution(case):
    size, options = LEFT[case]
    graph = conv(*size, **options)
    before = graph.SerializeToString()
    assert as_products(graph) == []
    assert graph.SerializeToString() == before


def test_groups_stay():
    graph = conv(1, 1, pads=[1] * 4)
    grouped = helper.make_node("Conv", ["x", "w"], ["y"], group=3, pads=[1] * 4)
    weight = RANDOM.standard_normal((K * 3, 1, 3, 3)).astype(np.float32)
    assert as_products(model([grouped], {"w": weight}, (1, 1))) == []
    assert as_products(graph) == ["y"]


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    pads=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    strides=st.lists(st.integers(1, 3), min_size=2, max_size=2),
    dilations=st.lists(st.integers(1, 2), min_size=2, max_size=2),
)
def test_whatever_is_rewritten_agrees(size, kernel, pads, strides, dilations):
    reach = [d * (k - 1) for k, d in zip(kernel, dilations, strict=True)]
    assume(all(s + pads[at] + pads[at + 2] > reach[at] for at, s in enumerate(size)))
    options = {"pads": pads, "strides": strides, "dilations": dilations}
    before = conv(*size, kernel=kernel, **options)
    after = onnx.ModelProto.FromString(before.SerializeToString())
    if as_products(after):
        x = RANDOM.standard_normal((2, C, *size)).astype(np.float32)
        wanted = ReferenceEvaluator(before).run(None, {"x": x})[0]
        np.testing.assert_allclose(open_session(after)({"x": x})["y"], wanted, rtol=1e-3, atol=1e-4)


def quantized(axis=0):
    """3×3 over one pixel with an INT8 weight per output channel and an INT32 bias."""
    weight = RANDOM.standard_normal((K, C, 3, 3)).astype(np.float32)
    scale = scale_of(np.abs(weight).max(axis=(1, 2, 3)))
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["w"], axis=axis),
        helper.make_node("DequantizeLinear", ["c", "t"], ["b"]),
        helper.make_node("Conv", ["x", "w", "b"], ["y"], name="conv", pads=[1] * 4),
    ]
    weights = {
        "q": quantize(weight, scale, axis=0),
        "s": scale.astype(np.float32),
        "z": np.zeros(K, np.int8),
        "c": np.arange(K, dtype=np.int32),
        "t": np.float32(0.125),
    }
    return model(nodes, weights, (1, 1))


def test_int8_weights_are_dequantized_as_onnx_runtime_does():
    before = quantized()
    after = onnx.ModelProto.FromString(before.SerializeToString())
    assert as_products(after) == ["y"]
    assert kinds(after) == ["Flatten", "Gemm", "Reshape"]
    assert not {"q", "s", "z", "c", "t"} & {weight.name for weight in after.graph.initializer}
    found = agree(before, after, (1, 1))
    # The twin: another scale is seen.
    moved = onnx.ModelProto.FromString(before.SerializeToString())
    scale = next(weight for weight in moved.graph.initializer if weight.name == "s")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 1.05, "s"))
    as_products(moved)
    assert found.shape == (N, K, 1, 1)
    with pytest.raises(AssertionError):
        agree(before, moved, (1, 1))


def test_weights_that_are_fed_or_computed_stay():
    graph = conv(1, 1, pads=[1] * 4)
    graph.graph.input.append(
        helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [K, C, 3, 3])
    )
    assert as_products(graph) == []
    computed = quantized()
    del computed.graph.initializer[1]  # the scale comes from somewhere else
    assert as_products(computed) == []


def test_no_tensor_loses_its_name_and_none_is_taken_twice():
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["m"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["m"], ["m.flat"]),
        helper.make_node("Conv", ["m.flat", "v"], ["y"], name="second", pads=[1] * 4),
    ]
    weights = {
        "w": RANDOM.standard_normal((K, C, 3, 3)).astype(np.float32),
        "b": np.ones(K, np.float32),
        "v": RANDOM.standard_normal((K, K, 3, 3)).astype(np.float32),
    }
    before = model(nodes, weights, (2, 2))
    after = onnx.ModelProto.FromString(before.SerializeToString())
    assert as_products(after) == ["m", "y"]
    made = [name for node in after.graph.node for name in node.output]
    assert len(made) == len(set(made))
    assert {"m", "m.flat", "y"} <= set(made)
    agree(before, after, (2, 2))


def test_a_weight_that_another_node_reads_stays():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["m"], pads=[1] * 4),
        helper.make_node("Reshape", ["w", "s"], ["r"]),
        helper.make_node("Add", ["m", "r"], ["y"]),
    ]
    weights = {"w": np.ones((1, C, 3, 3), np.float32), "s": np.array([27, 1, 1])}
    before = model(nodes, weights, (1, 1))
    after = onnx.ModelProto.FromString(before.SerializeToString())
    assert as_products(after) == ["m"]
    agree(before, after, (1, 1))


def test_graphs_with_graphs_in_them_stay():
    graph = conv(1, 1, pads=[1] * 4)
    inner = helper.make_graph([helper.make_node("Identity", ["y"], ["z"])], "inner", [], [])
    graph.graph.node.append(
        helper.make_node("If", ["k"], ["o"], then_branch=inner, else_branch=inner)
    )
    assert as_products(graph) == []


def test_small_images_are_evaluated_by_products(tmp_path, monkeypatch):
    """With many images, by the fast kernels, where onnx is here; to the same answers."""
    before = classifier()
    path = tmp_path / "few.onnx"
    onnx.save(before, path)
    images = RANDOM.standard_normal((9, C, 2, 2)).astype(np.float32)
    opened = []

    def record(source, **options):
        opened.append(source)
        return open_session(source, **options)

    monkeypatch.setattr("deploy.runners.onnx.open_session", record)
    wanted = open_model(str(path)).logits(images)
    np.testing.assert_allclose(
        open_model(str(path), many=True).logits(images), wanted, rtol=1e-5, atol=1e-6
    )
    assert opened[0] == path
    assert "Conv" not in kinds(opened[1])
    monkeypatch.setitem(sys.modules, "exporter.products", None)
    open_model(str(path), many=True)
    assert opened[2] == path


def classifier():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["m"], name="conv", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["m"], ["p"]),
        helper.make_node("Flatten", ["p"], ["y"]),
    ]
    return model(nodes, {"w": RANDOM.standard_normal((10, C, 3, 3)).astype(np.float32)}, (2, 2))
