from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refused

from calib_data.batches import data_digest, sample
from calib_data.idx import IdxSource
from calib_data.sources import array_digest

PIXELS = np.random.default_rng(0).integers(0, 256, (53, 9, 7), dtype=np.uint8)
SOURCE = IdxSource("noise", PIXELS)


def numbers(count):
    return IdxSource("numbers", np.zeros((count, 1, 1), np.uint8))


@given(total=st.integers(1, 300), data=st.data(), seed=st.integers(0, 2**64))
def test_sample_is_without_replacement_and_prefix_stable(total, data, seed):
    few = data.draw(st.integers(1, total))
    more = data.draw(st.integers(few, total))
    source = numbers(total)
    picked = sample(source, few, seed=seed)
    assert picked.dtype == np.int64
    assert picked.shape == (few,)
    assert len(set(picked.tolist())) == few
    assert picked.min() >= 0
    assert picked.max() < total
    assert np.array_equal(picked, sample(source, more, seed=seed)[:few])


def test_sample_of_all_is_in_order():
    assert sample(SOURCE, None).tolist() == list(range(53))
    assert sample(SOURCE, None, seed=3).tolist() == list(range(53))


def test_sample_is_the_same_everywhere_and_for_ever():
    # Records name their images by seed: these numbers may never change.
    assert sample(numbers(20_000), 6).tolist() == [16026, 6037, 855, 921, 3697, 12977]
    assert sample(numbers(20_000), 3, seed=1).tolist() == [13390, 15176, 15571]


def test_sample_is_fair():
    first = Counter(int(sample(numbers(5), 1, seed=seed)[0]) for seed in range(2000))
    assert set(first) == set(range(5))
    assert all(320 < count < 480 for count in first.values())  # 400 ± 4.5 deviations


@pytest.mark.parametrize("count", [0, -1, 54])
def test_sample_of_more_than_there_is(count):
    error = refused(lambda: sample(SOURCE, count), f"{count} images asked of noise, which has 53")
    assert "1 to 53" in error.hint


def test_sample_with_a_negative_seed():
    refused(lambda: sample(SOURCE, 3, seed=-1), "seed -1")


# Digests


@given(order=st.permutations(range(12)))
def test_data_digest_is_independent_of_order(order):
    assert data_digest(SOURCE, order) == data_digest(SOURCE, range(12))


def test_data_digest_tells_other_images_and_other_counts():
    digest = data_digest(SOURCE, range(12))
    changed = PIXELS.copy()
    changed[3, 0, 0] ^= 1
    assert data_digest(IdxSource("noise", changed), range(12)) != digest
    assert data_digest(SOURCE, range(11)) != digest
    assert data_digest(SOURCE, [*range(12), 3]) != digest
    assert data_digest(IdxSource("other name", PIXELS), range(12)) == digest


def test_array_digest_tells_shape_and_type():
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    same = {array_digest(values), array_digest(np.asfortranarray(values))}
    others = {array_digest(values.T), array_digest(values.ravel()), array_digest(values.view("i1"))}
    assert len(same) == 1
    assert len(same | others) == 4
