"""SQNR, cosine and largest difference: against float64 by hand, and by their properties."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.metrics import Difference, difference, sqnr_db

SEEDS = st.integers(0, 2**32 - 1)


def pair(seed: int, size: int, noise: float = 1e-2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    r = rng.standard_normal(size).astype(np.float32)
    return r, r + (rng.standard_normal(size) * noise).astype(np.float32)


def by_hand(r: np.ndarray, c: np.ndarray) -> tuple[float, float, float]:
    """Return SQNR, cosine and largest difference, all in float64 and all at once."""
    r, c = r.astype(np.float64), c.astype(np.float64)
    noise = ((r - c) ** 2).sum()
    return (
        10 * math.log10((r**2).sum() / noise),
        (r * c).sum() / math.sqrt((r**2).sum() * (c**2).sum()),
        np.abs(r - c).max(),
    )


def agrees(d: Difference, expected: tuple[float, float, float]) -> bool:
    return (
        abs(d.sqnr_db - expected[0]) < 1e-5
        and abs(d.cosine - expected[1]) < 1e-6
        and abs(d.max_abs - expected[2]) <= 1e-6 * expected[2]
    )


@given(seed=SEEDS, size=st.integers(1, 200_000), noise=st.sampled_from([1.0, 1e-2, 1e-5]))
def test_metrics_are_those_of_float64(seed, size, noise):
    r, c = pair(seed, size, noise)
    if not np.array_equal(r, c):
        assert agrees(difference(r, c), by_hand(r, c))


def test_one_wrong_value_in_a_hundred_thousand_is_seen():
    """The twin of the test above: its tolerances notice a single displaced value."""
    r, c = pair(1, 100_000)
    expected = by_hand(r, c)
    c[70_000] += 0.05
    assert not agrees(difference(r, c), expected)


@given(seed=SEEDS, cuts=st.lists(st.integers(0, 150_000), max_size=4))
def test_any_split_folds_to_the_same(seed, cuts):
    r, c = pair(seed, 150_000)
    edges = [0, *sorted(cuts), r.size]
    parts = [difference(r[a:b], c[a:b]) for a, b in pairwise(edges)]
    assert agrees(sum(parts, Difference()), by_hand(r, c))


def test_a_part_left_out_of_a_fold_shows():
    """The twin of the test above."""
    r, c = pair(2, 150_000)
    assert not agrees(difference(r[:149_000], c[:149_000]), by_hand(r, c))


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-18, 1e-3, 1e18, 1e22, 1e30])
def test_units_do_not_matter(scale):
    """Squares of these leave float32's range, on either side; the ratio must not notice."""
    r, c = (array * np.float32(scale) for array in pair(3, 100_000))
    assert agrees(difference(r, c), by_hand(r, c))


def test_a_difference_far_below_the_signal_keeps_its_digits():
    r = np.full(70_000, 1e-3, np.float32)
    c = r + np.float32(2**-30)
    assert agrees(difference(r, c), by_hand(r, c))
    tiny = np.zeros(70_000, np.float32)
    tiny[1] = 1e-25
    assert difference(np.ones_like(tiny), np.ones_like(tiny)).sqnr_db == math.inf
    assert difference(tiny, np.zeros_like(tiny)).max_abs == pytest.approx(1e-25)


@given(
    x=arrays(np.float32, 40, elements=st.floats(-1e3, 1e3, width=32)),
    k=st.floats(2**-6, 64, width=32),
)
def test_cosine_ignores_a_factor_and_sqnr_does_not(x, k):
    if np.abs(x).max() > 1e-3:
        d = difference(x, x * np.float32(k))
        assert d.cosine == pytest.approx(1, abs=1e-6)
        if abs(k - 1) > 1e-3:
            assert d.sqnr_db == pytest.approx(-20 * math.log10(abs(k - 1)), abs=1e-2)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_one_value_that_is_not_finite_makes_every_metric_nan(bad, side, dtype):
    both = [array.astype(dtype) for array in pair(4, 70_000)]
    both[side][69_999] = bad
    d = difference(*both)
    assert d.nonfinite == 1
    assert d.count == 70_000
    folded = difference(*pair(5, 10)) + d
    assert all(math.isnan(v) for v in (folded.sqnr_db, folded.cosine, folded.max_abs))


def test_infinities_that_are_equal_are_no_agreement():
    x = np.array([1, math.inf], np.float32)
    assert math.isnan(sqnr_db(x, x))


def test_equal_silent_and_empty():
    x, zero = np.ones(5, np.float32), np.zeros(5, np.float32)
    assert difference(x, x).sqnr_db == math.inf
    assert difference(x, x).cosine == 1
    assert difference(zero, zero).sqnr_db == math.inf
    assert difference(zero, zero).cosine == 1
    assert difference(zero, x).sqnr_db == -math.inf
    assert difference(x, zero).cosine == 0
    assert difference(x, zero).sqnr_db == 0
    assert math.isnan(difference(x[:0], x[:0]).sqnr_db)


def test_other_types_and_orders_are_measured_too():
    a = np.arange(24).reshape(2, 3, 4)
    b = (a + 1).astype(np.int8)
    assert difference(a, b).max_abs == 1
    assert difference(a.astype(np.float16), b.astype(np.float32)).max_abs == 1
    assert difference(a.T, b.T) == difference(np.ascontiguousarray(a.T), b.T)
    assert difference(np.array([True, False]), np.array([1.0, 1.0])).max_abs == 1
    assert difference(np.float32(2.0).reshape(()), np.float32(1.0).reshape(())).count == 1


def test_another_shape_is_a_bug_in_the_caller():
    with pytest.raises(ValueError, match="shapes differ"):
        difference(np.zeros((2, 3)), np.zeros((3, 2)))


def test_measuring_leaves_the_arrays_alone():
    r, c = pair(6, 5)
    c[2] = math.nan
    before = r.copy(), c.copy()
    difference(r, c)
    assert np.array_equal(r, before[0])
    assert np.array_equal(c, before[1], equal_nan=True)
