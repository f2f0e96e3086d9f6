"""Sums over pairs of tensors: held against numpy, and the same in any batch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.bin_kernel import bin_values
from deploy.comparison.sums.codes import Rounding, Same
from deploy.comparison.sums.folding import Into, Rule, fold
from deploy.comparison.sums.pair_sums import PairSums, SideSums

ANY = st.floats(width=32)  # NaN, infinities, both zeros and the smallest numbers among them
SHAPES = array_shapes(min_dims=2, max_dims=4, max_side=5)
TENSORS = arrays(np.float32, SHAPES, elements=ANY)


def channels(array):
    """Return the values of each channel, a row each."""
    return np.moveaxis(array, 1, 0).reshape(array.shape[1], -1)


def bounds_of(array, batch):
    sums = SideSums()
    for start in range(0, len(array), batch):
        sums.add(array[start : start + batch])
    return sums


@given(TENSORS, st.integers(1, 5), st.sampled_from([np.float32, np.float64]))
def test_bounds_are_those_of_the_numbers(array, batch, dtype):
    sums = bounds_of(array.astype(dtype), batch)
    rows = channels(array)
    np.testing.assert_array_equal(sums.low, np.fmin.reduce(rows, axis=1))
    np.testing.assert_array_equal(sums.high, np.fmax.reduce(rows, axis=1))
    assert (sums.nan, sums.inf) == (np.isnan(array).sum(), np.isinf(array).sum())


def test_bounds_of_rows_longer_than_a_register():
    row = np.linspace(-3.0, 5.0, 1003, dtype=np.float32).reshape(1, 1, 1003)
    assert bounds_of(row, 1).bounds() == (-3.0, 5.0)
    row[0, 0, 501] = np.nan
    sums = bounds_of(row, 1)
    assert (sums.bounds(), sums.nan, sums.inf) == ((-3.0, 5.0), 1, 0)
    row[0, 0, 700] = -np.inf
    assert bounds_of(row, 1).bounds() == (-np.inf, 5.0)


def test_no_number_has_no_bounds():
    sums = bounds_of(np.full((2, 3, 4), np.nan, np.float32), 1)
    assert np.isnan(sums.bounds()).all()
    assert (sums.nan, sums.dead) == (24, 0)


@given(
    arrays(np.float32, (3, 2, 37), elements=st.floats(-100, 100, width=32)),
    arrays(np.float32, (3, 2, 37), elements=st.floats(-1, 1, width=32)),
)
def test_a_pair_is_summed_in_float64(reference, noise):
    candidate = reference + noise
    sums = PairSums()
    for n in range(3):
        fold(reference[n : n + 1], candidate[n : n + 1], np.array([10 + n]), Into(sums))
    r, c = channels(reference).astype(np.float64), channels(candidate).astype(np.float64)
    d = c - r
    expected = [r.sum(1), (r * r).sum(1), (c * c).sum(1), d.sum(1), (d * d).sum(1)]
    np.testing.assert_allclose(sums.sums, np.transpose(expected), rtol=1e-12, atol=1e-9)
    assert sums.largest == np.abs(d).max()
    if sums.largest:
        image, (k, i) = sums.at.image - 10, sums.at.index
        assert abs(float(candidate[image, k, i]) - float(reference[image, k, i])) == sums.largest


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_counted_and_says_nothing_of_the_rest(value):
    reference = np.zeros((1, 2, 20), np.float32)
    candidate = reference + np.float32(0.5)
    candidate[0, 1, 3] = value
    sums = PairSums()
    fold(reference, candidate, np.array([0]), Into(sums))
    assert sums.nonfinite == 1
    assert np.isnan(sums.errors().sqnr_db)
    assert sums.sums[0].tolist() == [0.0, 0.0, 5.0, 10.0, 5.0]


def test_the_largest_difference_may_be_beyond_float32():
    big = np.full((1, 1, 9), 3e38, np.float32)
    sums = PairSums()
    fold(big, -big, np.array([0]), Into(sums))
    assert sums.largest == pytest.approx(6e38)


def test_the_place_of_the_largest_difference_is_found_in_a_long_row():
    r = np.zeros((2, 3, 5000), np.float32)
    c = r.copy()
    c[0, 2, 4999], c[1, 1, 4100] = 0.5, 7
    sums = PairSums()
    fold(r, c, np.array([8, 9]), Into(sums))
    assert (sums.largest, sums.at.image, sums.at.index) == (7, 9, (1, 4100))


def test_codes_below_what_is_passed_on_are_compared_too():
    r, c = np.full((1, 1, 6), -1.0, np.float32), np.full((1, 1, 6), -2.0, np.float32)
    into = Into(same=Same(), least=0.0)
    rule = Rule(quantizer=Quantizer("x", 0.1, 0.1, 0, "int8", -128, 127))
    fold(r, c, np.arange(1), into, rule)
    assert into.pair.noises.tolist() == [0]
    assert (into.same.equal, into.same.largest) == (0, 10)


def test_bins_hold_every_number():
    counts = np.zeros(64, np.int64)
    bin_values(np.array([0.0, 0.5, 1.0, -7.0, 9.0, np.nan], np.float32), 0.0, 1.0, counts)
    assert (counts[0], counts[32], counts[63], counts.sum()) == (2, 1, 2, 5)


def test_infinities_of_both_signs_are_told_without_a_warning():
    """Sums of channels that overflowed up and down have no sum; warnings are errors here."""
    r = np.zeros((1, 2, 4), np.float32)
    c = r.copy()
    c[0, 0, 1], c[0, 1, 2] = np.inf, -np.inf
    sums = PairSums()
    fold(r, c, np.arange(1), Into(sums))
    assert sums.nonfinite == 2
    assert np.isnan(sums.errors().sqnr_db)


@given(pairs=arrays(np.float32, (2, 4, 3, 5), elements=st.floats(width=32)))
def test_bounds_taken_on_the_way_are_those_taken_alone(pairs):
    r, c = pairs
    sides, alone = (SideSums(), SideSums()), (SideSums(), SideSums())
    fold(r, c, np.arange(4), Into(sides=sides))
    for side, sums, array in zip(sides, alone, (r, c), strict=True):
        sums.add(array)
        np.testing.assert_array_equal(side.found, sums.found)


@pytest.mark.parametrize("parts", [[4], [1, 3], [1, 1, 1, 1]])
def test_noise_is_kept_image_by_image_however_they_come(parts):
    r, c = np.random.default_rng(0).normal(size=(2, 4, 3, 5)).astype(np.float32)
    c[2, 1] += 10  # the worst of channel 1
    sums, first = PairSums(), 0
    for count in parts:
        one = slice(first, first + count)
        fold(r[one], c[one], np.arange(4)[one], Into(sums))
        first += count
    noise = np.square(c.astype(np.float64) - r).sum(axis=2)
    np.testing.assert_allclose(sums.noises, noise.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(sums.worst[:, 0], noise.max(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(sums.worst[:, 1], noise.argmax(axis=0))
    assert sums.worst[1, 1] == 2


@pytest.mark.parametrize("size", [4, 150])  # counted whole, and one value of five
def test_what_is_tallied_does_not_depend_on_how_many_come_at_a_time(size):
    values = np.random.default_rng(0).normal(size=(5, 3, size, size)).astype(np.float32)
    quantizer = Quantizer("x", 0.02, 0.02, 0, "int8", -128, 127)
    whole, parts = (Into(rounding=Rounding()) for _ in range(2))
    rule = Rule(quantizer=quantizer)
    fold(values, values, np.arange(5), whole, rule)
    for n, image in enumerate(values):
        fold(image[None], image[None], np.array([n]), parts, rule)
    whole, parts = whole.rounding, parts.rounding
    np.testing.assert_array_equal(parts.tally, whole.tally)
    np.testing.assert_array_equal(parts.sums, whole.sums)
    counted = whole.tally.sum()
    assert counted == pytest.approx(values.size / (1 if size == 4 else 5), rel=0.01)


def test_outliers_can_be_left_out_of_the_account():
    values = np.random.default_rng(0).uniform(0.1, 1, (1, 1, 100, 100)).astype(np.float32)
    values[0, 0, 0, 0] = 4
    quantizer = Quantizer("x", 4 / 127, 4 / 127, 0, "int8", -128, 127)
    rounding = Rounding()
    fold(values, values, np.arange(1), Into(rounding=rounding), Rule(quantizer=quantizer))
    factor, gain = rounding.best(without=1e-3)
    assert factor == pytest.approx(0.25, rel=0.1)
    assert gain == pytest.approx(12, abs=1)
    assert rounding.best()[1] < gain
