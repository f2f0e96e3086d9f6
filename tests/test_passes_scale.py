"""Constant factors and terms behind a Conv, folded or left for a reason."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_text import apply, constants, operators, parse

from exporter.passes.fold_scale import fold_scale

TEXT = """g (float[N,4,9,9] x) => (float[N,6,9,9] y) {
    [conv1] c = Conv<pads=[1,1,1,1]>(x, w, b)
    [scale] s = OP
    [relu] y = Relu(s)
}"""
W = (6, 4, 3, 3)


def text(op):
    return TEXT.replace("OP", op)


@pytest.mark.parametrize("op", ["Mul(c, k)", "Mul(k, c)", "Div(c, k)", "Add(c, k)", "Add(k, c)",
                                "Sub(c, k)"])  # fmt: skip
@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1), (1, 1, 1, 1)])
def test_folded_into_one_conv_that_keeps_the_surviving_names(op, shape):
    k = np.random.default_rng(3).uniform(0.5, 2, shape)
    after, result = apply(fold_scale, parse(text(op), w=W, b=(6,), k=k))
    assert operators(after) == ["Conv", "Relu"]
    conv = after.graph.node[0]
    assert (conv.name, list(conv.output), list(conv.input)) == ("conv1", ["s"], ["x", "w", "b"])
    assert "1 (scale)" in result.reason


def test_the_arithmetic_by_hand():
    one = np.ones((1, 1, 1, 1))
    body = """g (float[1,1,1,1] x) => (float[1,1,1,1] y) {
        c = Conv(x, w, b) d = Div(c, k) e = Sub(d, t) y = Identity(e)
    }"""
    model = parse(body, w=6 * one, b=[5.0], k=np.float32(2), t=np.float32(0.25))
    after, _ = apply(fold_scale, model)
    assert constants(after)["w"].item() == 3.0
    assert constants(after)["b"].item() == 2.25


def test_without_a_bias_grouped_and_one_dimensional():
    body = """g (float[N,4,9] x) => (float[N,8,9] y) {
        [conv1] c = Conv<group=4, pads=[1,1]>(x, w) m = Mul(c, k) a = Add(m, t) y = Relu(a)
    }"""
    after, _ = apply(fold_scale, parse(body, w=(8, 1, 3), k=(8, 1), t=(1, 8, 1)))
    assert operators(after) == ["Conv", "Relu"]
    assert list(after.graph.node[0].input) == ["x", "w", "conv1.bias"]


def test_a_weight_that_others_read_is_not_overwritten():
    body = """g (float[N,4,9,9] x) => (float[N,6,9,9] y, float[N,6,9,9] z) {
        c = Conv<pads=[1,1,1,1]>(x, w) y = Mul(c, k) z = Conv<pads=[1,1,1,1]>(x, w)
    }"""
    after, result = apply(fold_scale, parse(body, w=W, k=(6, 1, 1)))
    assert result.changed
    one, other = (set(node.input) for node in after.graph.node)
    assert one & other == {"x"}


@pytest.mark.parametrize(
    ("op", "k", "why"),
    [
        ("Div(k, c)", (6, 1, 1), "what it divides by"),
        ("Sub(k, c)", (6, 1, 1), "or subtracts"),
        ("Mul(c, k)", (9,), "nor one for each channel"),
        ("Mul(c, k)", (6, 9, 9), "nor one for each channel"),
        ("Mul(c, k)", np.full((6, 1, 1), 3e38), "not finite"),
        ("Div(c, k)", np.zeros((6, 1, 1)), "not finite"),
    ],
)
def test_left_for_a_reason(op, k, why):
    with np.errstate(all="ignore"):
        if why == "not finite":
            result = fold_scale(ir.from_proto(parse(text(op), w=np.full(W, 9.0), b=(6,), k=k)))
        else:
            _, result = apply(fold_scale, parse(text(op), w=W, b=(6,), k=k))
    assert not result.changed
    assert why in result.reason


def test_a_result_that_others_read_is_left():
    body = text("Mul(c, k)").replace("float[N,6,9,9] y", "float[N,6,9,9] y, float[N,6,9,9] c")
    _, result = apply(fold_scale, parse(body, w=W, b=(6,), k=(6, 1, 1)))
    assert "read by others" in result.reason


def test_an_addition_of_two_branches_is_no_term():
    body = text("Add(c, d)").replace("[scale]", "[other] d = Conv<pads=[1,1,1,1]>(x, w) [scale]")
    _, result = apply(fold_scale, parse(body, w=W, b=(6,)))
    assert not result.changed
    assert "left" not in result.reason
