"""Products with constant weights become Gemm(transB=1) with a bias vector."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx_text import apply, constants, operators, parse

from exporter.passes import plain_gemm as module
from exporter.passes.gemm_bias import gemm_bias
from exporter.passes.plain_gemm import plain_gemm


def text(body, inputs="float[N,4] x"):
    return f"g ({inputs}) => (float[N,3] y) {{ {body} }}"


def test_matmul_becomes_gemm():
    model = parse(text("[fc] y = MatMul(x, w)"), w=(4, 3))
    after, result = apply(plain_gemm, model)
    assert operators(after) == ["Gemm"]
    assert result.reason == "Gemm(transB=1): 1 (fc)"
    np.testing.assert_array_equal(constants(after)["w"], constants(model)["w"].T)


def test_a_shared_weight_is_not_transposed_under_another_reader():
    body = "[fc] a = MatMul(x, w) [add] b = Add(w, w) s = ReduceMean(b) y = Add(a, s)"
    after, _ = apply(plain_gemm, parse(text(body), w=(4, 3)))
    assert operators(after) == ["Gemm", "Add", "ReduceMean", "Add"]
    assert list(after.graph.node[0].input) == ["x", "fc.weight"]


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("[fc] y = Gemm(x, w, b)", {"w": (4, 3), "b": (3,)}),
        ("[fc] y = Gemm<transB=1, alpha=0.5>(x, w, b)", {"w": (3, 4), "b": (3,)}),
        ("[fc] y = Gemm<transB=1, beta=-2.0>(x, w, b)", {"w": (3, 4), "b": (1, 3)}),
        ("[fc] y = Gemm<alpha=3.0, beta=0.1>(x, w, b)", {"w": (4, 3), "b": ()}),
        ("[fc] y = Gemm<transB=1>(x, w, b)", {"w": (3, 4), "b": (1,)}),
        ("[fc] y = Gemm<transB=0>(x, w)", {"w": (4, 3)}),
    ],
)
def test_every_gemm_takes_one_form(body, weights):
    after, result = apply(plain_gemm, parse(text(body), **weights))
    node = after.graph.node[0]
    assert {a.name: a.i for a in node.attribute} == {"transB": 1}
    held = constants(after)
    assert held["w"].shape == (3, 4)
    assert "b" not in held or held["b"].shape == (3,)
    assert result.changed


def test_the_plain_form_is_left_in_silence():
    body = "[fc] y = Gemm<transB=1>(x, w, b)"
    _, result = apply(plain_gemm, parse(text(body), w=(3, 4), b=(3,)))
    assert not result.changed
    assert result.reason == "Gemm(transB=1): nothing to do"


@pytest.mark.parametrize(
    ("body", "inputs", "weights", "why"),
    [
        ("y = MatMul(x, v)", "float[N,4] x, float[4,3] v", {}, "not constant"),
        ("y = Gemm(x, v)", "float[N,4] x, float[4,3] v", {}, "not constant"),
        ("y = Gemm<transA=1>(x, w)", "float[4,N] x", {"w": (4, 3)}, "transposed"),
        ("y = Gemm(x, w, b)", "float[2,4] x", {"w": (4, 3), "b": (2, 3)}, "not a vector"),
        ("y = Gemm(x, w, b)", "float[3,4] x", {"w": (4, 3), "b": (3, 1)}, "not a vector"),
    ],
)
def test_another_product_is_left_and_said(body, inputs, weights, why):
    model = parse(text(body, inputs), **weights)
    after, result = apply(plain_gemm, model)
    assert not result.changed
    assert operators(after) == operators(model)
    assert why in result.reason


def test_a_stack_of_matrices_is_left():
    stack = "g (float[N,2,4] x) => (float[N,2,3] y) { y = MatMul(x, w) }"
    _, result = apply(plain_gemm, parse(stack, w=(4, 3)))
    assert "not known to be a matrix" in result.reason


@pytest.mark.parametrize("body", ["[add] y = Add(h, b)", "[add] y = Add(b, h)"])
@pytest.mark.parametrize("shape", [(3,), (1, 3), (1,), ()])
def test_a_bias_behind_it_moves_in(body, shape):
    model = parse(text(f"[fc] h = Gemm<transB=1>(x, w) {body}"), w=(3, 4), b=shape)
    after, result = apply(gemm_bias, model)
    assert operators(after) == ["Gemm"]
    assert (after.graph.node[0].name, after.graph.node[0].output[0]) == ("fc", "y")
    assert result.reason == "bias into Gemm: 1 (add)"


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("h = Gemm<transB=1>(x, w) y = Add(h, h)", {}),
        ("h = Gemm<transB=1>(x, w) r = Relu(h) y = Add(h, r)", {}),
        ("h = Gemm<transB=1>(x, w, b) y = Add(h, b)", {"b": (3,)}),
    ],
)
def test_another_addition_is_left(body, weights):
    model = parse(text(body), w=(3, 4), **weights)
    after, result = apply(gemm_bias, model)
    assert not result.changed
    assert operators(after) == operators(model)


def test_a_matrix_behind_it_is_left_and_said():
    body = "h = Gemm<transB=1>(x, w) [add] y = Add(h, b)"
    model = parse(text(body, "float[2,4] x").replace("[N,3]", "[2,3]"), w=(3, 4), b=(2, 3))
    _, result = apply(gemm_bias, model)
    assert "left 1 (add (what it adds, [2, 3], is not a vector of 3))" in result.reason


def test_matmul_and_add_together():
    model = parse(text("[fc] h = MatMul(x, w) [add] y = Add(h, b)"), w=(4, 3), b=(3,))
    middle, _ = apply(plain_gemm, model)
    after, _ = apply(gemm_bias, middle)
    assert operators(after) == ["Gemm"]
    assert list(after.graph.node[0].input) == ["x", "w", "b"]


def test_a_wrong_factor_would_be_seen(monkeypatch):
    monkeypatch.setattr(module, "_scaled", lambda array, factor: array * np.float32(factor + 1e-4))
    with pytest.raises(AssertionError):
        apply(plain_gemm, parse(text("y = Gemm<alpha=0.5>(x, w)"), w=(4, 3)))


def test_the_model_at_hand_is_edited():
    graph = ir.from_proto(parse(text("y = MatMul(x, w)"), w=(4, 3)))
    assert plain_gemm(graph).model is graph
