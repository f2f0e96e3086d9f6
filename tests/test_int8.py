"""INT8 arithmetic against ONNX's own reference, and by its properties."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array
from onnx.reference import ReferenceEvaluator

from core.errors import CalibrationError
from core.int8 import QMAX, QMIN, dequantize, fake_quant, quantize, scale_of
from exporter.session import open_session

reals = arrays(
    np.float32, array_shapes(max_dims=3, max_side=6), elements=st.floats(-64, 64, width=32)
)
scales = st.floats(2**-10, 4, width=32).map(np.float32)


def onnx_quantize(x: np.ndarray, scale: np.ndarray, axis: int) -> np.ndarray:
    node = onnx.helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], axis=axis)
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node],
        "q",
        [info("x", 1, None), info("s", 1, None), info("z", 3, None)],
        [info("q", 3, None)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 19)])
    zero = np.zeros(scale.shape, np.int8)
    return ReferenceEvaluator(model).run(None, {"x": x, "s": scale, "z": zero})[0]


@given(x=reals, scale=scales)
def test_per_tensor_codes_are_those_of_onnx(x, scale):
    assert np.array_equal(quantize(x, scale), onnx_quantize(x, np.asarray(scale), 0))


@given(x=arrays(np.float32, (3, 4, 2), elements=st.floats(-9, 9, width=32)))
def test_per_channel_codes_are_those_of_onnx(x):
    scale = np.array([0.5, 0.03, 2.0, 0.125], np.float32)
    assert np.array_equal(quantize(x, scale, 1), onnx_quantize(x, scale, 1))


def test_halves_go_to_even_and_the_ends_clamp():
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 1e9, -1e9], np.float32)
    expected = [0, 2, 2, 0, -2, 126, 127, 127, -128]
    assert quantize(x, 1.0).tolist() == expected


@given(x=reals, scale=scales)
def test_error_is_at_most_half_a_step_inside_the_range(x, scale):
    inside = np.clip(x, QMIN * scale, QMAX * scale)
    error = np.abs(fake_quant(inside, scale).astype(np.float64) - inside)
    assert error.max() <= 0.5001 * scale


def test_truncation_would_break_the_half_step_bound():
    """The twin of the test above: another rounding is caught by its bound."""
    x = np.array([0.9], np.float32)
    assert np.abs(np.trunc(x / 1.0) - x).max() > 0.5001


@given(x=reals, scale=scales)
def test_quantizing_twice_changes_nothing(x, scale):
    once = quantize(x, scale)
    assert np.array_equal(quantize(dequantize(once, scale), scale), once)


def test_scale_maps_amax_to_127_and_spares_dead_channels():
    scale = scale_of(np.array([127.0, 0.0, 1e-44]))
    assert scale.dtype == np.float32
    assert scale[0] == 1.0
    assert scale[1] == 1.0
    assert scale[2] > 0


@pytest.mark.parametrize("amax", [np.nan, np.inf, -1.0])
def test_scale_refuses_what_no_engine_can_use(amax):
    with pytest.raises(CalibrationError, match="not finite"):
        scale_of([1.0, amax])


def test_float16_is_divided_in_float32_as_onnxruntime_does():
    """A quotient in float16 would give other codes at 46 of these points."""
    scale = np.float16(0.3333)
    x = np.arange(0, 0x5000, dtype=np.uint16).view(np.float16)  # all from 0 to 32
    halves = np.clip(np.rint(x / scale), QMIN, QMAX)
    assert np.count_nonzero(quantize(x, scale) != halves) == 46
    graph = make_graph(
        [make_node("QuantizeLinear", ["x", "scale", "zero"], ["codes"])],
        "float16",
        [make_tensor_value_info("x", TensorProto.FLOAT16, ["N"])],
        [make_tensor_value_info("codes", TensorProto.INT8, ["N"])],
        [from_array(np.array(scale), "scale"), from_array(np.array(0, np.int8), "zero")],
    )
    model = make_model(graph, opset_imports=[make_opsetid("", 19)], ir_version=9)
    assert np.array_equal(quantize(x, scale), open_session(model)({"x": x})["codes"])
