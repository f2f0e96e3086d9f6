"""Biases that take up the mean of what rounding adds."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from core.int8 import dequantize, quantize
from exporter.calibration.counts.channels import ChannelCounts
from exporter.calibration.counts.tally import Tally
from exporter.quantization.rounding.channel_means import ChannelMeans, channel_means
from exporter.quantization.rounding.correct_bias import correct_biases
from exporter.session import open_session


def counted(values):
    tally = Tally()
    tally.add(values)
    return tally.channels()


def rounded(values, scale, shift):
    return dequantize(quantize(values - np.float32(shift), np.float32(scale)), scale) + shift


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(0.01, 0.2),
    shift=st.sampled_from([0.0, 0.0, 1.5, -0.7]),
    spread=st.floats(0.5, 4.0),
)
def test_the_means_are_those_of_the_values_and_of_their_codes(seed, scale, shift, spread):
    """Evenly filled cells stand for the values; that costs a twentieth of a step.

    Where values are clipped, a twentieth of what is lost: there cells are many steps wide.
    """
    random = np.random.default_rng(seed)
    values = (random.normal(size=(160, 3, 8, 8)) * spread).astype(np.float32)
    means = channel_means(counted(values), None, scale, shift)
    hat = rounded(values, scale, shift)
    axes = (0, 2, 3)
    real, seen = values.mean(axis=axes), hat.mean(axis=axes)
    np.testing.assert_allclose(means.real, real, atol=0.01 * spread)
    slack = 0.05 * max(scale, float(np.abs(values - hat).mean(axis=axes).max()))
    np.testing.assert_allclose(means.seen - means.real, seen - real, atol=slack)


def test_clipping_moves_the_mean_by_what_is_lost():
    values = np.full((1, 2, 4, 4), 3.0, np.float32)
    values[0, 1] = 0.25
    means = channel_means(counted(values), None, 1 / 127, 0.0)  # 1 is the largest
    np.testing.assert_allclose(means.real, [3.0, 0.25], rtol=1e-6)
    np.testing.assert_allclose(means.seen, [1.0, 32 / 127], rtol=1e-6)


def test_factors_divide():
    values = np.abs(np.random.default_rng(0).normal(size=(8, 2, 16, 16))).astype(np.float32)
    factors = np.array([2.0, 0.5])
    divided = channel_means(counted(values), factors, 0.03, 0.0)
    plain = channel_means(
        counted((values / factors.reshape(1, 2, 1, 1)).astype(np.float32)), None, 0.03, 0.0
    )
    np.testing.assert_allclose(divided.real, plain.real, rtol=1e-5)
    np.testing.assert_allclose(divided.seen, plain.seen, rtol=1e-5)


def test_nothing_counted_has_no_means():
    assert len(channel_means(ChannelCounts.empty(), None, 1.0, 0.0).real) == 0


def layer(op, weight, bias=True, size=8, **attributes):
    outputs = len(weight) * (1 if op == "Conv" or attributes.get("transB") else 0)
    outputs = outputs or weight.shape[1]
    channels = weight.shape[1] * attributes.get("group", 1) if op == "Conv" else 6
    shape = [4, channels, size, size] if op == "Conv" else [4, channels]
    constants = [numpy_helper.from_array(weight, "w")]
    if bias:
        constants.append(numpy_helper.from_array(np.ones(outputs, np.float32), "b"))
    names = ["x", "w", "b"][: 2 + bias]
    graph = helper.make_graph(
        [helper.make_node(op, names, ["y"], name="layer", **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)])
    model.ir_version = 9
    return onnx.shape_inference.infer_shapes(model)


RANDOM = np.random.default_rng(3)
LAYERS = {
    "conv": ("Conv", RANDOM.normal(size=(5, 4, 1, 1)), {}),
    "padded": ("Conv", RANDOM.normal(size=(5, 4, 3, 3)), {"pads": [1, 1, 1, 1]}),
    "strided": ("Conv", RANDOM.normal(size=(5, 4, 3, 3)), {"pads": [1] * 4, "strides": [2, 2]}),
    "grouped": ("Conv", RANDOM.normal(size=(4, 2, 3, 3)), {"pads": [1, 0, 0, 1], "group": 2}),
    "dilated": ("Conv", RANDOM.normal(size=(3, 4, 3, 3)), {"pads": [2] * 4, "dilations": [2, 2]}),
    "no bias": ("Conv", RANDOM.normal(size=(5, 4, 3, 3)), {"pads": [1, 1, 1, 1], "bias": False}),
    "classifier": ("Gemm", RANDOM.normal(size=(3, 6)), {"transB": 1}),
    "transposed": ("Gemm", RANDOM.normal(size=(6, 3)), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERS)
def test_the_mean_of_every_output_channel_is_kept(name):
    """On values that do not depend on where they are, as the padding's share assumes."""
    op, weight, attributes = LAYERS[name]
    weight = weight.astype(np.float32)
    model = layer(op, weight, **attributes)
    coarse = (np.rint(weight * 2) / 2).astype(np.float32)  # weights with large errors
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    level = np.random.default_rng(1).uniform(0.2, 2.0, size=shape[1]).astype(np.float32)
    x = np.broadcast_to(level.reshape(1, -1, *[1] * (len(shape) - 2)), shape).copy()
    moved = (x * 0.75).astype(np.float32)  # what is read in its place
    means = ChannelMeans(level.astype(np.float64), level * 0.75)
    edited = ir.from_proto(model)
    assert correct_biases(edited.graph, {"layer": means}, lambda _: coarse) == ("layer",)
    corrected = ir.to_proto(edited)
    at = next(i for i in corrected.graph.initializer if i.name == "w")
    at.CopyFrom(numpy_helper.from_array(coarse, "w"))
    axes = (0, *range(2, len(shape)))
    wanted = open_session(model)({"x": x})["y"].mean(axis=axes)
    np.testing.assert_allclose(
        open_session(corrected)({"x": moved})["y"].mean(axis=axes), wanted, rtol=1e-4, atol=1e-4
    )


def test_a_layer_of_other_channels_is_left():
    model = layer("Conv", np.ones((5, 4, 1, 1), np.float32))
    edited = ir.from_proto(model)
    means = ChannelMeans(np.ones(3), np.ones(3))
    assert correct_biases(edited.graph, {"layer": means}, lambda _: np.ones(1)) == ()
    assert ir.to_proto(edited) == ir.to_proto(ir.from_proto(model))
