"""Weights rounded together: what they may become, and what that is good for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.quantization.rounding.nearest_plane import round_together


def net(seed, outputs, inputs, samples, rank=None):
    """Return weights in steps, and correlated samples of what they multiply."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(samples, rank or inputs)) @ rng.normal(size=(rank or inputs, inputs))
    return (rng.uniform(-127, 127, (outputs, inputs)).astype(np.float32), mixed.astype(np.float32))


def one_by_one(weights, reads):
    """Do the same without blocks, in float64."""
    spread = np.sqrt(np.mean(reads**2, axis=0, dtype=np.float64))
    order = np.argsort(spread.astype(np.float32), kind="stable")
    unit = reads[:, order].astype(np.float64) / spread[order]
    root = np.linalg.cholesky(unit.T @ unit / len(unit) + 0.1 * np.eye(len(order))).T
    root = root * spread[order]
    left, errors = weights[:, order].astype(np.float64), np.zeros(weights.shape)
    for k in reversed(range(len(order))):
        target = left[:, k] + errors[:, k + 1 :] @ root[k, k + 1 :] / root[k, k]
        code = np.clip(np.rint(target), np.floor(left[:, k]), np.ceil(left[:, k]))
        errors[:, k] = left[:, k] - code
    codes = np.empty(weights.shape)
    codes[:, order] = left - errors
    return codes


def output_noise(weights, codes, reads):
    return np.mean(((weights - codes) @ (reads - reads.mean(axis=0)).T) ** 2)


@given(
    st.integers(0, 2**16), st.integers(1, 5), st.integers(1, 40), st.integers(1, 60), st.booleans()
)
def test_each_weight_becomes_a_code_next_to_it(seed, outputs, inputs, samples, centred):
    weights, reads = net(seed, outputs, inputs, samples)
    codes = round_together(weights, reads, centred=centred)
    assert codes.dtype == np.int8
    assert codes.min() >= -127
    assert np.all(np.abs(codes - weights) < 1)


def test_two_alike_make_up_for_each_other():
    """Nearest, both would be 0, and 0.8 of the input lost; together they lose a fifth of it."""
    reads = np.array([[1.0, 1], [-1, -1], [2, 2]], np.float32)
    codes = round_together(np.full((1, 2), 0.4, np.float32), reads, centred=True)
    assert sorted(codes.ravel().tolist()) == [0, 1]


def test_what_is_not_alike_is_rounded_to_the_nearest():
    reads = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], np.float32)
    weights = np.random.default_rng(0).uniform(-5, 5, (7, 4)).astype(np.float32)
    codes = round_together(weights, reads, centred=False)
    np.testing.assert_array_equal(codes, np.rint(weights))


@pytest.mark.parametrize("inputs", [40, 128, 300])
def test_blocks_change_nothing(inputs):
    weights, reads = net(1, 30, inputs, 500)
    codes = round_together(weights, reads, centred=False)
    # In float32 a target halfway between two codes may go the other way, and others follow it.
    assert np.mean(codes == one_by_one(weights, reads)) > 0.97


@pytest.mark.parametrize("inputs", [64, 300])
def test_outputs_err_less_on_other_samples_too(inputs):
    weights, all_reads = net(2, 50, inputs, 4000, rank=inputs // 4)
    codes = round_together(weights, all_reads[:1000], centred=True)
    others = all_reads[1000:]
    nearest = output_noise(weights, np.rint(weights), others)
    assert output_noise(weights, codes, others) < nearest / 4


def test_the_mean_counts_where_no_bias_takes_it_up():
    rng = np.random.default_rng(3)
    weights = rng.uniform(-50, 50, (20, 30)).astype(np.float32)
    reads = (rng.normal(size=(500, 30)) + 10).astype(np.float32)
    mean = reads.mean(axis=0)
    drift = [
        np.abs((weights - round_together(weights, reads, centred=centred)) @ mean).mean()
        for centred in (True, False)
    ]
    assert drift[1] < drift[0] / 3


def test_inputs_that_are_never_seen_leave_the_nearest():
    weights, reads = net(4, 6, 20, 200)
    reads[:, 3:7] = 0
    codes = round_together(weights, reads, centred=True)
    np.testing.assert_array_equal(codes[:, 3:7], np.rint(weights[:, 3:7]))
    nothing = round_together(weights, np.zeros_like(reads), centred=True)
    np.testing.assert_array_equal(nothing, np.rint(weights))
    one = round_together(weights, reads[:1], centred=True)
    np.testing.assert_array_equal(one, np.rint(weights))
