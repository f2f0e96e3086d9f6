"""Reaches of tensors that share their channels' factors: what is least, and what it is good for."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exporter.quantization.balance import balanced

magnitudes = arrays(
    np.float64, st.tuples(st.integers(1, 5), st.integers(1, 8)), elements=st.floats(1e-3, 1e3)
)


def noise(table, factors):
    """What the rounding of all tensors adds, each at the reach that the factors leave it."""
    reach = (table / factors).max(axis=1)
    return np.sum(factors**2) * np.sum(reach**2)


@given(magnitudes)
@example(np.array([[1.0, 1, 3], [5, 5, 5]]))  # the first is nowhere the one that widens
def test_it_is_never_worse_than_equal_reaches(table):
    assert noise(table, balanced(table)) <= noise(table, table.max(axis=0)) * (1 + 1e-9)


@given(magnitudes, st.floats(0.1, 10))
def test_the_unit_does_not_matter(table, unit):
    found, scaled = balanced(table), balanced(table * unit)
    np.testing.assert_allclose(scaled / scaled.max(), found / found.max(), rtol=1e-6)


def test_one_tensor_alone_keeps_its_magnitudes():
    np.testing.assert_array_equal(balanced(np.array([[1.0, 0.0, 4.0]])), [1, 0, 4])


def test_one_wide_tensor_does_not_widen_all():
    """Two tensors of even channels, and one in which another channel is 16 times as large."""
    table = np.array([[1.0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 16]])
    equal = noise(table, table.max(axis=0))
    found = balanced(table)
    assert noise(table, found) < equal / 2
    assert found[3] / found[0] < 16


@pytest.mark.parametrize("octaves", [(-1, 0, 0), (1, 0, 0), (0, 0, 1), (0.5, -0.5, 0)])
def test_no_reach_near_it_is_better(octaves):
    table = np.random.default_rng(3).uniform(0.1, 4, (3, 12))
    found = balanced(table)
    reach = (table / found).max(axis=1)
    moved = (table / (reach * np.exp2(octaves))[:, None]).max(axis=0)
    assert noise(table, found) <= noise(table, moved) * 1.01
