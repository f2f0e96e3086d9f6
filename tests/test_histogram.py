import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.errors import MissingBackendError
from exporter.calibration.counts import histogram, tally
from exporter.calibration.counts.histogram import BUCKETS, SHIFT, Histogram, bucket_edges, every_of
from exporter.calibration.counts.tally import Tally

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = arrays(np.float32, st.integers(1, 40), elements=FLOATS)


def of(*parts: np.ndarray) -> Histogram:
    tally = Tally()
    for part in parts:
        tally.add(part)
    return tally.histogram()


def same(a: Histogram, b: Histogram) -> bool:
    return (
        np.array_equal(a.buckets, b.buckets)
        and np.array_equal(a.counts, b.counts)
        and (a.minimum, a.maximum) == (b.minimum, b.maximum)
    )


@given(ARRAYS)
def test_counts_and_bounds_are_exact(x):
    h = of(x)
    expected = np.bincount(x.view(np.uint32) >> np.uint32(SHIFT), minlength=BUCKETS)
    assert np.array_equal(np.nonzero(expected)[0], h.buckets)
    assert np.array_equal(expected[h.buckets], h.counts)
    assert (h.minimum, h.maximum) == (float(x.min()), float(x.max()))
    assert h.amax == float(np.abs(x).max())
    assert (h.count, h.nonfinite) == (x.size, 0)
    assert h.buckets.dtype == np.int32
    assert h.counts.dtype == np.int64


@given(st.lists(ARRAYS, min_size=1, max_size=5), st.randoms())
def test_any_split_and_order_agree(parts, random):
    whole = of(np.concatenate(parts))
    random.shuffle(parts)
    assert same(whole, of(*parts))
    merged = Histogram.empty()
    for part in parts:
        merged = merged + of(part)
    assert same(whole, merged)
    assert not same(whole, merged + of(np.float32([1.0])))  # the comparison can fail


def test_a_million_values_of_all_magnitudes():
    x = np.random.default_rng(0).normal(size=1_000_003).astype(np.float32)
    x *= np.exp2(np.linspace(-120, 120, x.size)).astype(np.float32)
    h = of(x[:300_001].reshape(-1, 1), x[300_001:])
    expected = np.bincount(x.view(np.uint32) >> np.uint32(SHIFT), minlength=BUCKETS)
    assert np.array_equal(expected[h.buckets], h.counts)
    assert h.count == x.size
    assert h.amax == float(np.abs(x).max())


def test_of_a_large_image_a_part_is_counted_that_holds_every_column():
    """Bounds are of all of it; and what is counted does not depend on the batch."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 64, 30, 30)).astype(np.float32)
    every = every_of(x[0].size)
    assert every == 3  # and 3 divides the width
    turns = [0, 1, 2, 3, 4, 5]
    whole = Tally()
    assert whole.add(x, turns)
    apart = [Tally() for _ in x]
    for one, image, turn in zip(apart, x, turns, strict=True):
        assert one.add(image[None], [turn])
    h = whole.histogram()
    assert same(h, sum((one.histogram() for one in apart), Histogram.empty()))
    assert h.count == x.size // every
    assert (h.minimum, h.maximum) == (float(x.min()), float(x.max()))
    columns = np.zeros(30, int)
    for column in range(30):
        only = np.zeros_like(x)
        only[..., column] = 1.0
        tally = Tally()
        tally.add(only, turns)
        columns[column] = tally.histogram().magnitudes()[1][-1]
    assert columns.min() > 0.9 * columns.mean()
    quantiles = [0.5, 0.9, 0.99, 0.999]
    magnitudes, counts = h.magnitudes()
    reached = np.cumsum(counts) / counts.sum()
    found = bucket_edges(magnitudes[np.searchsorted(reached, quantiles)])[0]
    np.testing.assert_allclose(found, np.quantile(np.abs(x), quantiles), rtol=0.01)


def in_blocks(x: np.ndarray, width: int, filling: float = 0.0) -> np.ndarray:
    """Return (N, C, P) as (N, G, P, B), filled up with something that must not count."""
    images, channels, size = x.shape
    groups = -(-channels // width)
    full = np.full((images, groups * width, size), filling, np.float32)
    full[:, :channels] = x
    return np.ascontiguousarray(full.reshape(images, groups, width, size).transpose(0, 1, 3, 2))


@given(
    st.sampled_from([8, 16]), st.integers(1, 40), st.integers(1, 70), st.integers(1, 3),
    st.sampled_from([1 << 4, 1 << 7, 1 << 14]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_in_blocks_of_channels_the_same_is_counted(width, channels, size, images, enough, seed):
    """At every sampling, however many channels fill the last block, whatever fills it up."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.3, 1, (images, channels, size)).astype(np.float32)
    x[rng.random(x.shape) < 0.3] = 0
    turns = rng.integers(0, 2**32, images).tolist()
    planes, blocks = Tally(), Tally()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(histogram, "_ENOUGH", enough)
        assert planes.add(x, turns)
        for _ in range(2):
            assert blocks.add(
                in_blocks(x, width, rng.choice([0.0, -99.0, np.nan])), turns, channels=channels
            )
    one = planes.histogram()
    assert same(one + one, blocks.histogram())
    apart, twice = blocks.channels(), planes.channels() + planes.channels()
    for name in ("cells", "counts", "low", "high"):
        assert np.array_equal(getattr(apart, name), getattr(twice, name))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_in_blocks_a_value_that_is_not_finite_is_seen_wherever_it_is(bad):
    x = np.ones((2, 19, 77), np.float32)
    for at in range(0, x.size, 41):
        x.reshape(-1)[at] = bad
        assert not Tally().add(in_blocks(x, 8), [0, 1], channels=19)
        x.reshape(-1)[at] = 1.0
    assert Tally().add(in_blocks(x, 8), [0, 1], channels=19)


def test_a_value_that_is_not_finite_is_seen_wherever_it_is():
    x = np.zeros((1, 64, 60, 60), np.float32)
    for at in range(3):
        x[0, 7, 3, at] = np.nan
        assert not Tally().add(x, [0])
        x[0, 7, 3, at] = 0.0
    assert Tally().add(x, [0])


@pytest.mark.parametrize(
    ("values", "minimum", "maximum"),
    [([-3.0, -1.0, -2.0], -3.0, -1.0), ([2.0, 5.0], 2.0, 5.0), ([-0.0, -0.0], 0.0, 0.0)],
)
def test_bounds_of_one_sign(values, minimum, maximum):
    h = of(np.array(values, np.float32))
    assert (h.minimum, h.maximum) == (minimum, maximum)
    assert not np.signbit(h.maximum) or maximum < 0


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 4, 6])
def test_nonfinite_values_are_seen_and_counted(bad, at):
    x = np.linspace(-1, 1, 7, dtype=np.float32)
    tally = Tally()
    assert tally.add(x)
    x[at] = bad
    assert not tally.add(x)
    assert tally.histogram().nonfinite == 1


def test_nothing_counted():
    h = of(np.empty((0, 3), np.float32))
    assert (h.count, h.amax) == (0, 0.0)
    assert same(h, Histogram.empty())


def test_a_view_is_counted_by_its_own_values():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert same(of(x[:, ::2]), of(x[:, ::2].copy()))


def test_a_count_never_overflows(monkeypatch):
    monkeypatch.setattr(tally, "_MOST", 10)
    x = np.ones(6, np.float32)
    assert same(of(x, x, x), of(np.ones(18, np.float32)))
    assert of(x, x, x).counts.tolist() == [18]


@given(FLOATS)
def test_edges_hold_their_values(value):
    value = abs(value)  # −0 lies in a bucket of its own
    (bucket,) = of(np.float32([value])).buckets
    low, high = bucket_edges(np.array([bucket]))
    assert low[0] <= value < high[0]
    if low[0] >= np.finfo(np.float32).tiny:
        assert high[0] - low[0] <= low[0] / 256


def test_magnitudes_fold_the_sign():
    h = of(np.float32([-1.5, 1.5, 1.5, 0.25, -0.0, 0.0]))
    buckets, counts = h.magnitudes()
    assert counts.tolist() == [2, 1, 3]
    assert bucket_edges(buckets)[0].tolist() == [0.0, 0.25, 1.5]


def test_without_numba(monkeypatch):
    for module in (
        "exporter.calibration.counts.plane_kernel",
        "exporter.calibration.counts.block_kernel",
        "core.compiled",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, "numba", None)
    with pytest.raises(MissingBackendError, match="numba"):
        Tally()
