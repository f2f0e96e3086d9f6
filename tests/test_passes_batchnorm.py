"""Conv + BatchNormalization, folded or left for a reason."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_text import apply, assert_equal, batchnorm, constants, operators, parse

from exporter.graph_file import to_proto
from exporter.passes import fold_batchnorm as module
from exporter.passes.fold_batchnorm import fold_batchnorm

PAIR = """g (float[N,4,9,9] x) => (float[N,K,H,W] y) {
    [conv1] c = Conv<pads=[1,1,1,1]>(x, w)
    [bn1] b = BatchNormalization(c, gamma, beta, mean, var)
    [relu] y = Relu(b)
}"""


def test_a_pair_becomes_one_conv_that_keeps_the_surviving_names():
    model = parse(PAIR, w=(6, 4, 3, 3), **batchnorm(6))
    after, result = apply(fold_batchnorm, model)
    assert operators(after) == ["Conv", "Relu"]
    conv = after.graph.node[0]
    assert (conv.name, list(conv.output)) == ("conv1", ["b"])
    assert list(conv.input) == ["x", "w", "conv1.bias"]
    assert result.changed
    assert "1 (bn1)" in result.reason


def test_the_arithmetic_by_hand():
    one = np.ones((1, 1, 1, 1))
    text = """g (float[1,1,1,1] x) => (float[1,1,1,1] y) {
        c = Conv(x, w, b)
        y = BatchNormalization<epsilon=1.0>(c, gamma, beta, mean, var)
    }"""
    model = parse(text, w=3 * one, b=[5.0], gamma=[2.0], beta=[7.0], mean=[1.0], var=[3.0])
    after, _ = apply(fold_batchnorm, model)
    # s = 2 / √(3 + 1) = 1: w' = 3, b' = (5 − 1) · 1 + 7
    assert constants(after)["w"].item() == 3.0
    assert constants(after)["b"].item() == 11.0


@pytest.mark.parametrize("opset", [13, 14, 15, 18, 21, 23])
def test_every_opset(opset):
    after, _ = apply(fold_batchnorm, parse(PAIR, opset, w=(6, 4, 3, 3), **batchnorm(6)))
    assert operators(after) == ["Conv", "Relu"]


@pytest.mark.parametrize(("group", "shape"), [(2, (6, 2, 3, 3)), (4, (8, 1, 3, 3))])
def test_grouped_and_depthwise(group, shape):
    text = PAIR.replace("pads", f"group={group}, pads")
    after, _ = apply(fold_batchnorm, parse(text, w=shape, **batchnorm(shape[0])))
    assert operators(after) == ["Conv", "Relu"]


def test_a_bias_and_a_one_dimensional_conv():
    text = """g (float[N,4,9] x) => (float[N,K,L] y) {
        c = Conv(x, w, b)
        y = BatchNormalization(c, gamma, beta, mean, var)
    }"""
    after, _ = apply(fold_batchnorm, parse(text, w=(6, 4, 3), b=(6,), **batchnorm(6)))
    assert operators(after) == ["Conv"]
    assert list(after.graph.node[0].input) == ["x", "w", "b"]


def test_a_shared_weight_is_not_overwritten():
    text = """g (float[N,4,9,9] x) => (float[N,K,H,W] y, float[N,K,H,W] z) {
        [conv1] c = Conv(x, w)
        [bn1] y = BatchNormalization(c, gamma, beta, mean, var)
        [conv2] z = Conv(x, w)
    }"""
    after, _ = apply(fold_batchnorm, parse(text, w=(6, 4, 3, 3), **batchnorm(6)))
    assert list(after.graph.node[0].input) == ["x", "conv1.weight", "conv1.bias"]
    assert list(after.graph.node[1].input) == ["x", "w"]


def test_two_pairs_that_share_weight_and_bias():
    text = """g (float[N,4,9,9] x) => (float[N,K,H,W] y, float[N,K,H,W] z) {
        [conv1] c = Conv(x, w, b)
        [bn1] y = BatchNormalization(c, gamma, beta, mean, var)
        [conv2] d = Conv(x, w, b)
        [bn2] z = BatchNormalization(d, beta, gamma, mean, var)
    }"""
    after, result = apply(fold_batchnorm, parse(text, w=(6, 4, 3, 3), b=(6,), **batchnorm(6)))
    assert operators(after) == ["Conv", "Conv"]
    assert "2 (bn1, bn2)" in result.reason


def test_a_graph_output_keeps_its_name():
    text = """g (float[N,4,9,9] x) => (float[N,K,H,W] y) {
        c = Conv(x, w)
        y = BatchNormalization(c, gamma, beta, mean, var)
    }"""
    after, _ = apply(fold_batchnorm, parse(text, w=(6, 4, 3, 3), **batchnorm(6)))
    assert after.graph.output[0].name == after.graph.node[0].output[0] == "y"


LEFT = {
    "read by others": """g (float[N,4,9,9] x) => (float[N,K,H,W] y, float[N,K,H,W] z) {
        c = Conv(x, w)
        [bn1] y = BatchNormalization(c, gamma, beta, mean, var)
        z = Relu(c)
    }""",
    "'c' is read by others": """g (float[N,4,9,9] x) => (float[N,K,H,W] y, float[N,K,H,W] c) {
        c = Conv(x, w)
        [bn1] y = BatchNormalization(c, gamma, beta, mean, var)
    }""",
    "not from a Conv": """g (float[N,6,9,9] x) => (float[N,6,9,9] y) {
        c = Relu(x)
        [bn1] y = BatchNormalization(c, gamma, beta, mean, var)
    }""",
    "comes from ConvTranspose": """g (float[N,6,9,9] x) => (float[N,K,H,W] y) {
        c = ConvTranspose(x, t)
        [bn1] y = BatchNormalization(c, gamma, beta, mean, var)
    }""",
    "a graph input": """g (float[N,6,9,9] x) => (float[N,6,9,9] y) {
        [bn1] y = BatchNormalization(x, gamma, beta, mean, var)
    }""",
    "not constant": """g (float[N,4,9,9] x, float[6] mean2) => (float[N,K,H,W] y) {
        c = Conv(x, w)
        [bn1] y = BatchNormalization(c, gamma, beta, mean2, var)
    }""",
    "training mode": """g (float[N,4,9,9] x) => (float[N,K,H,W] y, float[6] m) {
        c = Conv(x, w)
        [bn1] y, m, v = BatchNormalization<training_mode=1>(c, gamma, beta, mean, var)
    }""",
}


@pytest.mark.parametrize("why", LEFT)
def test_what_cannot_be_folded_is_left_and_said(why):
    model = parse(LEFT[why], w=(6, 4, 3, 3), t=(6, 6, 2, 2), **batchnorm(6))
    after, result = apply(fold_batchnorm, model)
    assert operators(after) == operators(model)
    assert not result.changed
    assert "left 1 (bn1 (" in result.reason
    assert why in result.reason


@pytest.mark.parametrize(("name", "value"), [("var", -1.0), ("gamma", np.inf), ("mean", np.nan)])
def test_a_factor_that_is_not_finite_is_left(name, value):
    weights = batchnorm(6)
    weights[name][2] = value
    model = parse(PAIR, w=(6, 4, 3, 3), **weights)
    result = fold_batchnorm(ir.from_proto(model))
    assert not result.changed
    assert "not finite" in result.reason


def test_a_weight_that_underflows_to_nothing_is_still_folded():
    weights = batchnorm(6) | {"gamma": np.full(6, 1e-30)}
    after, _ = apply(fold_batchnorm, parse(PAIR, w=(6, 4, 3, 3), **weights))
    assert operators(after) == ["Conv", "Relu"]


def test_folded_in_float64_and_rounded_once():
    weights = batchnorm(6)
    model = parse(PAIR, w=(6, 4, 3, 3), **weights)
    after, _ = apply(fold_batchnorm, model)
    held = constants(model)
    gamma, beta, mean, var = (held[k].astype(np.float64) for k in ("gamma", "beta", "mean", "var"))
    scale = gamma / np.sqrt(var + 1e-5)
    weight = (held["w"].astype(np.float64) * scale[:, None, None, None]).astype(np.float32)
    np.testing.assert_array_equal(constants(after)["w"], weight)
    np.testing.assert_array_equal(
        constants(after)["conv1.bias"], (beta - mean * scale).astype(np.float32)
    )


def test_a_wrong_fold_would_be_seen(monkeypatch):
    # The twin of every test above: an epsilon that is off by 1 % of a variance.
    monkeypatch.setattr(module, "_EPSILON", 1e-3)
    with pytest.raises(AssertionError):
        apply(fold_batchnorm, parse(PAIR, w=(6, 4, 3, 3), **batchnorm(6)))


def test_half_precision_keeps_its_type():
    text = """g (float16[N,4,9,9] x) => (float16[N,K,H,W] y) {
        c = Conv(x, w)
        y = BatchNormalization(c, gamma, beta, mean, var)
    }"""
    half = {k: np.asarray(v, np.float16) for k, v in batchnorm(6).items()}
    w = np.random.default_rng(0).standard_normal((6, 4, 3, 3)).astype(np.float16)
    model = parse(text, w=w, **half)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = ir.from_proto(copy)
    assert fold_batchnorm(graph).changed
    after = to_proto(graph)
    assert {array.dtype for array in constants(after).values() if array.ndim > 0} == {
        np.dtype(np.float16)
    }
    assert_equal(model, after, floor_db=40)
