"""Ranges of full-range INT8: the noise is what quantizing gives, and moving pays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.int8 import QMAX, fake_quant
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.counts.tally import Tally
from exporter.quantization.full_range import choose_ranges, grid_noise
from exporter.quantization.plan import Activation, QuantizationPlan

RNG = np.random.default_rng(0)
ACTIVE = np.maximum(RNG.standard_normal(20_000), 0).astype(np.float32)  # behind a ReLU
SIGNED = RNG.standard_normal(20_000).astype(np.float32) + np.float32(1.5)


def histogram(values: np.ndarray) -> Histogram:
    tally = Tally()
    tally.add(values)
    return tally.histogram()


def plan(*groups: tuple[str, str]) -> QuantizationPlan:
    activations = tuple(Activation(name, "", (), scale) for name, scale in groups)
    return QuantizationPlan(activations, (), {})


def noise(values: np.ndarray, scale: float, shift: float = 0.0) -> float:
    moved = values.astype(np.float64) - shift
    return float(((fake_quant(moved, scale) - moved) ** 2).sum())


@given(scale=st.floats(2**-8, 2**-3, width=32), shift=st.floats(-2, 2, width=16))
def test_noise_of_a_histogram_is_the_noise_of_its_values(scale, shift):
    counted = grid_noise(histogram(SIGNED), scale, shift)
    assert counted == pytest.approx(noise(SIGNED, scale, shift), rel=0.05)


def test_a_wrong_constant_shows_in_the_noise():
    """The twin: off by half a step of a coarse grid, the two would not agree."""
    counted = grid_noise(histogram(ACTIVE), 0.1, 0.05)
    assert counted != pytest.approx(noise(ACTIVE, 0.1), rel=0.05)


def test_behind_a_relu_all_codes_are_used_and_zero_has_no_error():
    found = choose_ranges(plan(("y", "y")), [("z", "y")], {"y": histogram(ACTIVE)})["y"]
    assert found.shift == 128 * found.scale
    codes = np.rint((ACTIVE - found.shift) / found.scale)
    assert codes.min() == -128
    assert codes[ACTIVE == 0].max() == -128
    seven_bits = noise(ACTIVE, float(ACTIVE.max()) / QMAX)
    assert noise(ACTIVE, found.scale, found.shift) < seven_bits / 3.5


def test_a_signed_tensor_is_centred():
    found = choose_ranges(plan(("y", "y")), [("y",)], {"y": histogram(SIGNED)})["y"]
    assert 1.0 < found.shift < 2.0
    assert noise(SIGNED, found.scale, found.shift) < noise(SIGNED, SIGNED.max() / QMAX) / 1.5


def test_a_symmetric_tensor_has_nothing_to_gain():
    values = np.concatenate([SIGNED - 1.5, 1.5 - SIGNED]).astype(np.float32)
    found = choose_ranges(plan(("y", "y")), [("y",)], {"y": histogram(values)})
    assert not found or abs(found["y"].shift) < 0.2


def test_a_class_has_one_constant_and_each_group_its_scale():
    means = ACTIVE.reshape(-1, 50).mean(axis=1)
    found = choose_ranges(
        plan(("y", "y"), ("g", "g")),
        [("y", "g")],
        {"y": histogram(ACTIVE), "g": histogram(means)},
    )
    assert found["y"].shift == found["g"].shift
    assert found["g"].scale < found["y"].scale


def test_tensors_that_share_a_scale_but_cannot_move_together_stay():
    found = choose_ranges(
        plan(("a", "a"), ("b", "a")), [("a",)], {"a": histogram(ACTIVE), "b": histogram(ACTIVE)}
    )
    assert found == {}


def test_zeros_stay():
    assert choose_ranges(plan(("y", "y")), [("y",)], {"y": histogram(np.zeros(9, "f4"))}) == {}


def test_float16_scales_are_float16_and_clip_nothing_more():
    ranges = [
        choose_ranges(plan(("y", "y")), [("y",)], {"y": histogram(ACTIVE)}, half=half)["y"]
        for half in (False, True)
    ]
    assert float(np.float16(ranges[1].scale)) == ranges[1].scale
    assert ranges[1].scale >= ranges[0].scale
    assert ranges[1].shift == 128 * ranges[1].scale


def test_the_search_does_not_fill_gaps():
    """Neighbouring buckets are searched together, but nothing lies between 1.25 and one 4."""
    tally = Tally()
    tally.add(np.append(np.linspace(0.3, 1.25, 2000), 4.0).astype(np.float32).reshape(1, 1, -1))
    few = tally.histogram()
    counts = few.counts * 10**6
    counts[-1] = 1
    histogram = Histogram(few.buckets, counts, few.minimum, few.maximum)
    plan = QuantizationPlan((Activation("x", "test", ("n",), "x"),), (), {})
    found = choose_ranges(plan, [("x",)], {"x": histogram})["x"]
    assert 1.2 / 255 < found.scale < 1.6 / 255  # the 4 is clipped
