"""The passes that tidy: constants, no-ops, dead code, slices, inputs, names and shapes."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx_text import apply, bytes_of, constants, operators, parse

from core.errors import GraphError
from exporter.graph_file import to_proto
from exporter.optimize import check_optimized
from exporter.passes.base import outcome
from exporter.passes.dead_code import dead_code
from exporter.passes.fold_constants import fold_constants
from exporter.passes.infer_shapes import infer_shapes
from exporter.passes.merge_slices import merge_slices
from exporter.passes.name_nodes import name_nodes
from exporter.passes.plain_inputs import plain_inputs
from exporter.passes.remove_noops import remove_noops
from exporter.passes.run import run_passes
from exporter.passes.zero_bias import zero_bias

# ------------------------------------------------------------------------ fold_constants


def test_a_constant_expression_becomes_an_initializer_of_its_name():
    text = """g (float[N,3] x) => (float[N,4] y) {
        t = Transpose(w)
        two = Constant<value = float {2}>()
        v = Mul(t, two)
        y = MatMul(x, v)
    }"""
    model = parse(text, w=(4, 3))
    after, result = apply(fold_constants, model)
    assert operators(after) == ["MatMul"]
    np.testing.assert_array_equal(constants(after)["v"], constants(model)["w"].T * 2)
    assert result.reason == "computed once: 3 (1 Transpose, 1 Constant, 1 Mul)"


def test_a_shape_that_is_computed_from_a_static_input():
    text = """g (float[2,3,4] x) => (float[2,12] y) {
        s = Shape<start=0, end=1>(x)
        t = Concat<axis=0>(s, rest)
        y = Reshape(x, t)
    }"""
    after, _ = apply(fold_constants, parse(text, rest=[-1]))
    assert operators(after) == ["Reshape"]


def test_q_and_dq_of_a_weight_are_kept():
    text = """g (float[N,3] x) => (float[N,4] y) {
        w = DequantizeLinear(q, s, z)
        y = MatMul(x, w)
    }"""
    values = {"q": np.ones((3, 4), np.int8), "s": np.float32(0.5), "z": np.int8(0)}
    after, result = apply(fold_constants, parse(text, **values))
    assert operators(after) == ["DequantizeLinear", "MatMul"]
    assert not result.changed


@pytest.mark.parametrize(("length", "left"), [(4, 0), (4096, 1)])
def test_a_short_list_of_zeros_is_folded_and_a_long_one_left(length, left):
    text = """g (float[N] x) => (float[M] y) {
        zeros = ConstantOfShape(n)
        y = Concat<axis=0>(x, zeros)
    }"""
    after, _ = apply(fold_constants, parse(text, n=[length]))
    assert operators(after).count("ConstantOfShape") == left


def test_a_large_result_is_left_to_be_computed():
    text = """g (float[1] x) => (float[N,M] y) {
        big = Expand(one, shape)
        y = Add(x, big)
    }"""
    model = parse(text, one=[1.0], shape=[2048, 1024])
    after, result = apply(fold_constants, model)
    assert operators(after) == ["Expand", "Add"]
    assert not result.changed


def test_a_random_number_is_not_a_constant():
    text = (
        "g (float[2] x) => (float[2] y) { r = RandomNormal<shape=[2], seed=1.0>() y = Add(x, r) }"
    )
    after = ir.from_proto(parse(text))
    assert not fold_constants(after).changed


# -------------------------------------------------------------------------- remove_noops

NOOPS = {
    "Identity(t)": {},
    "Dropout(t)": {},
    "Dropout(t, r)": {"r": np.float32(0.5)},
    "Dropout(t, r, f)": {"r": np.float32(0.5), "f": np.bool_(False)},
    "Cast<to=1>(t)": {},
    "Pad(t, p)": {"p": [0] * 8},
    "Concat<axis=1>(t)": {},
    "Sum(t)": {},
    "AveragePool<kernel_shape=[1,1]>(t)": {},
    "MaxPool<kernel_shape=[1,1], strides=[1,1], pads=[0,0,0,0]>(t)": {},
    "Slice(t, s, e)": {"s": [0], "e": [2**63 - 1]},
    "Slice(t, s, e, a)": {"s": [0, 0], "e": [3, 2**31 - 1], "a": [1, -1]},
    "Slice(t, s, e, a, p)": {"s": [0], "e": [9], "a": [3], "p": [1]},
}


def between(op):
    return f"""g (float[N,3,5,5] x) => (float[N,3,5,5] y) {{
        [before] t = Relu(x)
        [noop] u = {op}
        [after] y = Sigmoid(u)
    }}"""


@pytest.mark.parametrize("op", NOOPS)
def test_a_noop_goes(op):
    model = onnx.shape_inference.infer_shapes(parse(between(op), **NOOPS[op]))
    after, result = apply(remove_noops, model)
    assert operators(after) == ["Relu", "Sigmoid"]
    assert result.reason == "removed: 1 (noop)"


@pytest.mark.parametrize("op", NOOPS)
def test_a_noop_before_the_output_goes_and_the_output_keeps_its_name(op):
    text = f"g (float[N,3,5,5] x) => (float[N,3,5,5] y) {{ t = Relu(x) y = {op} }}"
    model = onnx.shape_inference.infer_shapes(parse(text, **NOOPS[op]))
    after, _ = apply(remove_noops, model)
    assert [(n.op_type, n.output[0]) for n in after.graph.node] == [("Relu", "y")]


def test_a_flatten_of_a_matrix_goes():
    text = "g (float[N,4] x) => (float[N,4] y) { t = Relu(x) u = Flatten(t) y = Sigmoid(u) }"
    after, _ = apply(remove_noops, onnx.shape_inference.infer_shapes(parse(text)))
    assert operators(after) == ["Relu", "Sigmoid"]


SOMETHING = {
    "Cast<to=11>(t)": {},
    "Pad(t, p)": {"p": [0, 0, 0, 0, 0, 1, 0, 0]},
    "Concat<axis=1>(t, t)": {},
    "AveragePool<kernel_shape=[1,1], strides=[2,2]>(t)": {},
    "MaxPool<kernel_shape=[2,2]>(t)": {},
    "Slice(t, s, e)": {"s": [1], "e": [9]},
    "Slice(t, s, e, a)": {"s": [0], "e": [-1], "a": [3]},
    "Slice(t, s, e, a)  ": {"s": [0], "e": [2], "a": [1]},
    "Slice(t, s, e, a) ": {"s": [0], "e": [9], "a": [0]},  # the batch may be larger
    "Slice(t, s, e, a, p)": {"s": [0], "e": [9], "a": [3], "p": [2]},
}


@pytest.mark.parametrize("op", SOMETHING)
def test_what_does_something_stays(op):
    kind = "double" if "Cast" in op else "float"
    text = f"g (float[N,3,5,5] x) => ({kind}[a,b,c,d] y) {{ t = Relu(x) y = {op} }}"
    after, result = apply(remove_noops, parse(text, **SOMETHING[op]))
    assert len(operators(after)) == 2
    assert not result.changed


def test_a_dropout_that_trains_is_left_and_said():
    text = """g (float[N,3] x, bool train) => (float[N,3] y) {
        t = Relu(x)
        [drop] y = Dropout(t, ratio, train)
    }"""
    graph = ir.from_proto(parse(text, ratio=np.float32(0.5)))
    result = remove_noops(graph)
    assert not result.changed
    assert "left 1 (drop (in training mode, or it may be))" in result.reason


def test_a_dropout_whose_mask_is_used_is_left():
    text = "g (float[N,3] x) => (float[N,3] y, bool[N,3] m) { [drop] y, m = Dropout(x) }"
    _, result = apply(remove_noops, parse(text))
    assert "its mask is used" in result.reason


def test_an_identity_from_input_to_output_stays():
    after, result = apply(remove_noops, parse("g (float[N] x) => (float[N] y) { y = Identity(x) }"))
    assert operators(after) == ["Identity"]
    assert "a name of its own" in result.reason


# -------------------------------------------------------------------------- merge_slices


def test_cuts_along_different_axes_become_one():
    text = """g (float[N,3,8,8] x) => (float[N,3,h,w] y) {
        [first] t = Slice(x, s, e, a, p)
        [second] y = Slice(t, s2, e2, b)
    }"""
    cuts = {"s": [1], "e": [7], "a": [-1], "p": [2], "s2": [2], "e2": [6], "b": [2]}
    after, result = apply(merge_slices, parse(text, **cuts))
    assert [(n.op_type, n.name) for n in after.graph.node] == [("Slice", "second")]
    held = constants(after)
    assert held[after.graph.node[0].input[3]].tolist() == [2, 3]
    assert held[after.graph.node[0].input[4]].tolist() == [1, 2]
    assert result.changed


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("t = Slice(x, one, six, three) y = Slice(t, one, six, last)", "both cut one axis"),
        ("t = Slice(x, one, six, two) z = Relu(t) y = Slice(t, one, six, three)", "others read"),
        ("n = Size(x) t = Slice(x, n, six, two) y = Slice(t, one, six, three)", ""),
    ],
)
def test_other_slices_are_left(body, why):
    text = f"g (float[N,3,8,8] x) => (float[a,b,c,d] y) {{ {body} }}"
    values = {"one": [1], "six": [6], "two": [2], "three": [3], "last": [-1]}
    if "Size" in body:
        body = text = text.replace("n = Size(x)", "m = Shape<start=1, end=2>(x) n = Mul(m, one)")
    model = onnx.shape_inference.infer_shapes(parse(text, **values))
    after, result = apply(merge_slices, model)
    assert not result.changed
    assert operators(after) == operators(model)
    assert why in result.reason


# -------------------------------------------------- dead_code, zero_bias, names and inputs


def test_what_no_output_needs_is_removed():
    text = """g (float[N,3] x) => (float[N,3] y) {
        y = Relu(x)
        [lost] a = Sigmoid(x)
        [also] b = Add(a, w)
    }"""
    after, result = apply(dead_code, parse(text, w=(3,), unused=(5,)))
    assert operators(after) == ["Relu"]
    assert not after.graph.initializer
    assert "node lost" in result.reason


def test_a_bias_of_zeros_goes_and_another_stays():
    text = """g (float[N,4,5,5] x) => (float[N,6,5,5] y) {
        [a] t = Conv(x, w, zero)
        y = Conv(t, v, bias)
    }"""
    model = parse(text, w=(6, 4, 1, 1), zero=np.zeros(6), v=(6, 6, 1, 1), bias=(6,))
    after, result = apply(zero_bias, model)
    assert [len(node.input) for node in after.graph.node] == [2, 3]
    assert result.reason == "dropped: 1 (a)"


def test_unnamed_and_twice_named_nodes_get_a_name_of_their_own():
    text = """g (float[N] x) => (float[N] y) {
        a = Relu(x)
        [same] b = Relu(a)
        [same] c = Relu(b)
        [a] d = Relu(c)
        y = Relu(d)
    }"""
    graph = ir.from_proto(parse(text))  # ONNX Runtime refuses a name that two nodes have
    assert name_nodes(graph).changed
    assert [node.name for node in graph.graph] == ["a_1", "same", "c", "a", "y"]
    assert not name_nodes(graph).changed


def test_weights_leave_the_inputs():
    model = parse("g (float[N,3] x, float[3,2] w) => (float[N,2] y) { y = MatMul(x, w) }", w=(3, 2))
    model.ir_version = 3
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = ir.from_proto(copy)
    assert plain_inputs(graph).reason == "made plain: 1 (w)"
    after = to_proto(graph)
    assert [value.name for value in after.graph.input] == ["x"]
    assert after.ir_version == 4
    assert not plain_inputs(graph).changed


def test_functions_are_inlined():
    text = """<ir_version: 9, opset_import: ["": 19, "local": 1]>
    g (float[N,3] x) => (float[N,3] y) { y = local.twice(x) }
    <domain: "local", opset_import: ["": 19]>
    twice (a) => (b) { b = Add(a, a) }"""
    model = onnx.parser.parse_model(text)
    after, result = apply(plain_inputs, model)
    assert operators(after) == ["Add"]
    assert not after.functions
    assert "function twice" in result.reason


def test_shapes_are_written_and_the_batch_keeps_its_name():
    text = (
        "g (float[N,3,8,8] x) => (float[N,4,m,m] y) { t = Conv<strides=[2,2]>(x, w) y = Relu(t) }"
    )
    after, result = apply(infer_shapes, parse(text, w=(4, 3, 2, 2)))
    shape = after.graph.value_info[0].type.tensor_type.shape
    assert [dim.dim_param or dim.dim_value for dim in shape.dim] == ["N", 4, 4, 4]
    assert result.reason == "shapes: 2 of 2 tensors"


def test_a_sequence_is_not_taken_for_a_tensor():
    text = """g (float[N,3] x) => (float[N,3] y) {
        s = SequenceConstruct(x, x)
        y = SequenceAt(s, one)
    }"""
    model = parse(text, one=np.int64(1))
    graph = ir.from_proto(model)
    infer_shapes(graph)
    after = to_proto(graph)
    assert after.graph.value_info[0].type.HasField("sequence_type")
    assert list(check_optimized(model, after).sqnr_db) == ["y"]


def test_names_that_inference_invents_are_left_out():
    text = """g (float[N,3] x) => (float[M,3] y) {
        n = NonZero(x)
        c = Cast<to=1>(n)
        t = Transpose(c)
        y = MatMul(t, w)
    }"""
    after, _ = apply(infer_shapes, parse(text, w=(2, 3)))
    assert "unk__" not in str(after)
    shape = after.graph.value_info[0].type.tensor_type.shape
    assert [dim.WhichOneof("value") for dim in shape.dim] == ["dim_value", None]


# ------------------------------------------------------------------------- how they are run


def test_passes_that_undo_each_other_are_a_graph_error():
    def flip(model):
        model.graph.name = f"{model.graph.name}x"
        return outcome("flip", model, what="flipped", done=["a"])

    with pytest.raises(GraphError, match="flip"):
        run_passes(ir.from_proto(parse("g (float[N] x) => (float[N] y) { y = Relu(x) }")), (flip,))


def test_an_untouched_model_keeps_its_bytes():
    model = parse("g (float[N] x) => (float[N] y) { [a] y = Relu(x) }")
    graph = ir.from_proto(model)
    for run in (name_nodes, remove_noops, dead_code, merge_slices, zero_bias):
        assert not run(graph).changed
    plain = to_proto(ir.from_proto(model))
    assert bytes_of(to_proto(graph)) == bytes_of(plain)
