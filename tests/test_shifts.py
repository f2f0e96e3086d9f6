"""Full-range shifts: exact in float, and refused where they would not be."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.metrics import sqnr_db
from exporter.graph_file import to_proto
from exporter.quantization.shift import shift_tensors
from exporter.quantization.shifts import find_shifts
from exporter.session import open_session

RESIDUAL = """
<ir_version: 9, opset_import: ["" : 19]>
net (float[N,3,8,8] input) => (float[N,5] logits)
<float[4,3,3,3] w0, float[4] b0, float[6,4,1,1] w1, float[6,6,3,3] w2, float[4,6,1,1] w3,
 float[4] b3, float[4,4,1,1] w4, float[5,4] w5, float[5] b5>
{
  a0 = Conv <pads: ints = [1,1,1,1]> (input, w0, b0)
  a1 = Relu (a0)
  a2 = MaxPool <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1], strides: ints = [2,2]> (a1)
  m0 = Conv (a2, w1)
  m1 = Relu (m0)
  m2 = Conv <pads: ints = [1,1,1,1]> (m1, w2)
  m3 = Relu (m2)
  m4 = Conv (m3, w3, b3)
  s0 = Conv (a2, w4)
  add = Add (m4, s0)
  r = Relu (add)
  g = GlobalAveragePool (r)
  f = Flatten (g)
  logits = Gemm <transB: int = 1> (f, w5, b5)
}
"""


def residual() -> onnx.ModelProto:
    model = onnx.parser.parse_model(RESIDUAL)
    rng = np.random.default_rng(0)
    shapes = {
        v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.value_info
    }
    for name, shape in shapes.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    del model.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(model)


IMAGES = np.random.default_rng(1).standard_normal((3, 3, 8, 8)).astype(np.float32)


def run(model: onnx.ModelProto, *names: str) -> dict[str, np.ndarray]:
    return open_session(model, outputs=names or None)({"input": IMAGES})


def shifted(constants: dict[str, float], **options) -> onnx.ModelProto:
    graph = ir.from_proto(residual())
    every = find_shifts(graph.graph).constants(constants)
    shift_tensors(graph.graph, every, **options)
    model = to_proto(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def test_classes_are_what_can_move_together():
    classes = {frozenset(c) for c in find_shifts(ir.from_proto(residual()).graph).classes}
    assert frozenset({"a0", "a1", "a2"}) in classes  # conv, relu and pool, to 1×1s only
    assert frozenset({"m2", "m3"}) in classes
    assert frozenset({"s0"}) in classes  # a projection
    assert frozenset({"add", "r", "g", "f"}) in classes
    named = frozenset().union(*classes)
    assert "m1" not in named  # read by a padded 3×3
    assert "m4" not in named  # slack: it follows
    assert not named & {"input", "logits"}


@given(st.fixed_dictionaries({t: st.floats(-4, 4, width=16) for t in ("a1", "m3", "s0", "r")}))
def test_no_constant_moves_the_logits(constants):
    before, after = run(residual())["logits"], run(shifted(constants))["logits"]
    assert sqnr_db(before, after) > 100


def test_a_moved_tensor_holds_its_value_less_the_constant():
    model = shifted({"m3": 1.5, "r": 0.75, "s0": -2.0})
    for name, shift in {"m3": 1.5, "r": 0.75, "f": 0.75, "s0": -2.0, "m4": 2.75}.items():
        want = run(residual(), name)[name] - np.float32(shift)
        assert sqnr_db(want, run(model, f"{name}.shifted")[f"{name}.shifted"]) > 100


def test_sums_of_other_weights_change_the_result():
    """The twin: a constant that leaves by the wrong sum is seen."""
    model = shifted({"m3": 1.5}, weights=lambda v: v.const_value.numpy() * np.float32(1.01))
    assert sqnr_db(run(residual())["logits"], run(model)["logits"]) < 60


def test_nothing_chosen_changes_nothing():
    assert (
        shifted({}).SerializeToString() == to_proto(ir.from_proto(residual())).SerializeToString()
    )


@pytest.mark.parametrize("name", ["input", "m1", "m4", "logits", "no such tensor"])
def test_what_cannot_move_is_refused(name):
    with pytest.raises(ValueError, match="cannot be moved"):
        find_shifts(ir.from_proto(residual()).graph).constants({name: 1.0})


def test_one_class_has_one_constant():
    with pytest.raises(ValueError, match="two constants"):
        find_shifts(ir.from_proto(residual()).graph).constants({"r": 1.0, "g": 2.0})


@pytest.mark.parametrize(
    ("op", "moves"),
    [
        ("Clip (a0, zero, six)", True),
        ("MaxPool <kernel_shape: ints = [2,2]> (a0)", True),
        ("AveragePool <kernel_shape: ints = [2,2]> (a0)", True),
        ("AveragePool <kernel_shape: ints = [3,3], pads: ints = [1,1,1,1]> (a0)", False),
        ("Sigmoid (a0)", False),
        ("Mul (a0, six)", False),
        ("Add (a0, a0)", False),
        ("Add (a0, six)", False),
        ("Concat <axis: int = 1> (a0, a0)", True),
    ],
)
def test_what_an_operator_does_to_a_constant(op, moves):
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 19]>
        net (float[1,3,8,8] input) => (float[1,2,K,L] out)
        <float zero = {{0}}, float six = {{6}}>
        {{ a0 = Conv (input, w0) a1 = {op} out = Conv (a1, w1) }}""")
    rng = np.random.default_rng(0)
    width = 8 if "Concat" in op else 4
    for name, shape in {"w0": (4, 3, 1, 1), "w1": (2, width, 1, 1)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    graph = ir.from_proto(model)
    shifts = find_shifts(graph.graph)
    assert any({"a0", "a1"} <= set(c) for c in shifts.classes) is moves
    if moves:
        shift_tensors(graph.graph, shifts.constants({"a1": 1.25}))
        feed = {"input": IMAGES[:1]}
        before, after = (open_session(m)(feed)["out"] for m in (model, to_proto(graph)))
        assert sqnr_db(before, after) > 100


def everywhere(constants: dict[str, float]) -> onnx.ModelProto:
    graph = ir.from_proto(residual())
    every = find_shifts(graph.graph, borders=True).constants(constants)
    shift_tensors(graph.graph, every)
    model = to_proto(graph)
    onnx.checker.check_model(model, full_check=True)
    return model


@given(st.fixed_dictionaries({t: st.floats(-4, 4, width=16) for t in ("a1", "m1", "m3", "r")}))
def test_borders_are_mended(constants):
    before, after = run(residual())["logits"], run(everywhere(constants))["logits"]
    assert sqnr_db(before, after) > 100


def test_without_the_mended_border_the_result_is_wrong():
    """The twin: leaving the border as it is would be seen."""
    model = everywhere({"m1": 1.5})
    for initializer in model.graph.initializer:
        if initializer.name.endswith(".border"):
            zeros = np.zeros_like(onnx.numpy_helper.to_array(initializer))
            initializer.CopyFrom(onnx.numpy_helper.from_array(zeros, initializer.name))
    assert sqnr_db(run(residual())["logits"], run(model)["logits"]) < 40


@pytest.mark.parametrize("group", [1, 4])
def test_borders_of_any_geometry(group):
    model = onnx.parser.parse_model(f"""
        <ir_version: 9, opset_import: ["" : 19]>
        net (float[1,3,8,8] input) => (float[1,4,K,L] out)
        {{ a0 = Conv (input, w0)
           out = Conv <pads: ints = [2,0,1,3], strides: ints = [2,1], dilations: ints = [1,2],
                       group: int = {group}> (a0, w1) }}""")
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (4, 3, 1, 1), "w1": (4, 4 // group, 3, 2)}.items():
        array = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = onnx.shape_inference.infer_shapes(model)
    graph = ir.from_proto(model)
    shift_tensors(graph.graph, find_shifts(graph.graph, borders=True).constants({"a0": 1.25}))
    feed = {"input": IMAGES[:1]}
    before, after = (open_session(m)(feed)["out"] for m in (model, to_proto(graph)))
    assert sqnr_db(before, after) > 100
