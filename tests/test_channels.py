import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exporter.calibration.counts.channels import (
    BASE,
    CELLS,
    COARSE,
    ChannelCounts,
    stride_of,
    turn_of,
)
from exporter.calibration.counts.histogram import bucket_edges
from exporter.calibration.counts.packing import CHANNEL_ARRAYS, pack_channels, unpack_channels
from exporter.calibration.counts.tally import Tally

SANE = st.floats(-60000, 60000, width=32, allow_nan=False)
TENSORS = arrays(np.float32, st.tuples(*[st.integers(1, 4)] * 3), elements=SANE)


def of(*parts: np.ndarray) -> ChannelCounts:
    tally = Tally()
    for part in parts:
        tally.add(part)
    return tally.channels()


def same(a: ChannelCounts, b: ChannelCounts) -> bool:
    pairs = [(getattr(a, n), getattr(b, n)) for n in ("cells", "counts", "low", "high")]
    return all(np.array_equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def test_cells_by_hand():
    # 1.0 is bits 0x3F800000; 0x3F800000 >> 20 = 1016, less BASE 887 is 129. 1.125 is the next.
    found = of(np.float32([[[1.0, 1.124, -1.0], [0.0, 1.125, 1e-9]]]))
    assert found.cells.tolist() == [129, 256 + 129, 512 + 0, 512 + 130]
    assert found.counts.tolist() == [2, 1, 2, 1]
    assert found.low.tolist() == [-1.0, 0.0]
    assert found.high.tolist() == [np.float32(1.124), 1.125]


@given(TENSORS)
def test_bounds_are_exact_and_counts_complete(x):
    found = of(x)
    assert np.array_equal(found.low, x.min(axis=(0, 2)) + 0)
    assert np.array_equal(found.high, x.max(axis=(0, 2)) + 0)
    totals = np.bincount(found.channel, found.counts, len(found))
    assert totals.tolist() == [x.shape[0] * x.shape[2]] * x.shape[1]


@given(TENSORS)
def test_edges_hold_the_values_of_their_entry(x):
    found = of(x)
    low, high = found.edges
    words = x.view(np.uint32)
    cell = np.clip(((words & 0x7FFFFFFF) >> COARSE).astype(np.int64) - BASE, 0, CELLS - 1)
    key = (np.arange(x.shape[1])[None, :, None] * 2 + (words >> 31)) * CELLS + cell
    at = np.searchsorted(found.cells, key)
    tiny = np.abs(x) < 2.0**-16  # all of those count as zero
    assert ((low[at] <= x) | tiny).all()
    assert ((x <= high[at]) | tiny).all()


@given(TENSORS, TENSORS)
def test_sums_do_not_depend_on_how_the_data_is_cut(x, y):
    if x.shape[1:] != y.shape[1:]:
        y = np.resize(y, (y.shape[0], *x.shape[1:]))
    whole = of(x, y)
    assert same(whole, of(x) + of(y))
    assert same(whole, of(y) + of(x))
    assert same(whole, of(np.concatenate([y, x])))
    assert same(whole, whole + ChannelCounts.empty())


def test_other_channels_are_no_sum():
    with pytest.raises(ValueError, match="2 and 3 channels"):
        of(np.ones((1, 2, 4), np.float32)) + of(np.ones((1, 3, 4), np.float32))
    tally = Tally()
    tally.add(np.ones((1, 2, 4), np.float32))
    with pytest.raises(ValueError, match="3 channels after 2"):
        tally.add(np.ones((1, 3, 4), np.float32))


def test_of_a_large_plane_some_are_counted_and_all_are_bounded():
    x = np.linspace(1, 2, 32 * 32, dtype=np.float32)[None, None]
    x[0, 0, 7] = 100.0  # no multiple of the stride
    found = of(x)
    assert stride_of(1024) > 1
    assert found.counts.sum() == -(-1024 // stride_of(1024))
    assert found.high[0] == 100.0
    assert stride_of(49) == 1


def test_vectors_have_channels_and_scalars_none():
    assert len(of(np.ones((3, 5), np.float32))) == 5
    assert len(of(np.ones(5, np.float32))) == 0


def test_means_and_quantiles():
    rng = np.random.default_rng(0)
    x = np.maximum(rng.standard_normal((13, 6, 60)), 0).astype(np.float32) * 3
    x[:, 4] = 0
    found = of(x)
    low, high = found.edges
    mean = found.means((low + high) / 2)
    assert mean == pytest.approx(x.mean(axis=(0, 2), dtype=np.float64), rel=0.01)
    squares = found.means((low * low + low * high + high * high) / 3)
    assert squares == pytest.approx(np.square(x, dtype=np.float64).mean(axis=(0, 2)), rel=0.02)
    exact = np.quantile(np.abs(x), 0.99, axis=(0, 2), method="inverted_cdf")
    quantile = found.quantile(0.99)
    assert (quantile >= exact - 1e-6).all()
    assert (quantile <= exact * 1.126 + 1e-6).all()
    assert found.quantile(1.0).tolist() == found.amax.tolist()


@given(TENSORS)
def test_divided_by_one_is_the_tensor_itself(x):
    found = of(x)
    histogram = found.divided(np.ones(len(found)))
    assert histogram.count == x.size
    assert (histogram.minimum, histogram.maximum) == (x.min() + 0, x.max() + 0)
    assert (np.diff(histogram.buckets) > 0).all()
    assert (histogram.counts > 0).all()


def test_divided_has_the_distribution_of_the_divided_tensor():
    rng = np.random.default_rng(1)
    spread = np.exp(rng.standard_normal(32))
    x = (rng.standard_normal((8, 32, 100)) * spread[:, None]).astype(np.float32)
    factors = np.sqrt(spread)
    histogram = of(x).divided(factors)
    y = x / factors[:, None]
    magnitudes, counts = histogram.magnitudes()
    _, high = bucket_edges(magnitudes)
    for value in np.quantile(np.abs(y), [0.1, 0.5, 0.9, 0.99, 0.999]):
        below = counts[high <= value].sum() / counts.sum()
        assert below == pytest.approx((np.abs(y) <= value).mean(), abs=0.01)
    assert histogram.maximum == pytest.approx(float(y.max()), rel=1e-6)
    assert histogram.minimum == pytest.approx(float(y.min()), rel=1e-6)
    negative = histogram.counts[histogram.buckets >= 65536].sum()
    assert abs(negative - (y < 0).sum()) <= 1  # one is so small that it counts as zero


def test_packing_keeps_all_and_sees_damage():
    parts = [
        of(np.float32([[[1.0, 2.0], [-3.0, 0.0]]])),
        ChannelCounts.empty(),
        of(np.ones((2, 3), "f")),
    ]
    packed = {p.name: np.concatenate(list(p.parts)).astype(p.kind) for p in pack_channels(parts)}
    assert set(packed) == set(CHANNEL_ARRAYS)
    assert all(map(same, unpack_channels(packed), parts))
    for name, bad in (
        ("cells", packed["cells"] + 2048),
        ("cell_counts", packed["cell_counts"] * 0),
        ("cell_lengths", packed["cell_lengths"] + 1),
        ("channels", packed["channels"] + 1),
    ):
        with pytest.raises(ValueError, match=r"its|impossible"):
            unpack_channels(packed | {name: bad})


def test_of_each_image_another_quarter_of_the_channels_is_counted():
    """Whatever the order and the batch; bounds are of all of them."""
    x = np.random.default_rng(0).normal(size=(8, 6, 8, 8)).astype(np.float32)
    turns = [turn_of(f"{number:08x}") for number in (3, 8, 4, 4, 2, 7, 1, 0)]
    assert {turn % 4 for turn in turns} == {0, 1, 2, 3}
    whole, one_by_one = Tally(), Tally()
    whole.add(x, turns)
    for at in np.random.default_rng(1).permutation(8):
        one_by_one.add(x[at : at + 1], [turns[at]])
    found = whole.channels()
    assert same(found, one_by_one.channels())
    images = np.array([sum((c - t) % 4 == 0 for t in turns) for c in range(6)])
    np.testing.assert_array_equal(np.bincount(found.channel, found.counts, 6), 64 * images)
    np.testing.assert_array_equal(found.high, x.max(axis=(0, 2, 3)))
    np.testing.assert_array_equal(found.low, x.min(axis=(0, 2, 3)))
    assert whole.histogram().count == x.size


def test_all_channels_of_small_planes_are_counted():
    x = np.ones((4, 5, 2, 2), np.float32)
    tally = Tally()
    tally.add(x, [0, 1, 2, 3])
    found = tally.channels()
    np.testing.assert_array_equal(np.bincount(found.channel, found.counts, 5), [16] * 5)


def test_a_cell_never_overflows():
    """More equal values of one channel than 16 bits hold, in one array and one by one."""
    x = np.ones((70_000, 2), np.float32)
    x[0, 1] = np.inf
    tally = Tally()
    assert not tally.add(x)
    assert tally.channels().counts.tolist() == [70_000, 69_999, 1]
    assert tally.histogram().count == 140_000
    tally, plane = Tally(), np.ones((8, 1, 64, 64), np.float32)
    for _ in range(200):
        tally.add(plane, [0] * 8)
    of_image = -(-4096 // stride_of(4096))
    assert of_image * 8 * 200 > 65_535
    assert tally.channels().counts.tolist() == [of_image * 8 * 200]


def test_counts_beyond_32_bits_are_packed_whole():
    counts = np.array([1 << 33, 5])
    found = ChannelCounts(np.int32([3, 4]), counts, np.float32([0.0]), np.float32([1.0]))
    packed = {p.name: np.concatenate(list(p.parts)).astype(p.kind) for p in pack_channels([found])}
    assert unpack_channels(packed)[0].counts.tolist() == counts.tolist()
