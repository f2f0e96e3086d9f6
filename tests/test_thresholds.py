import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from core.errors import InputError
from core.int8 import fake_quant
from core.metrics import sqnr_db
from exporter.calibration.counts.histogram import Histogram, bucket_edges, every_of
from exporter.calibration.counts.tally import Tally
from exporter.quantization.thresholds import (
    METHODS,
    Method,
    choose_amax,
    clipped_share,
    expected_sqnr_db,
)

RNG = np.random.default_rng(0)
NORMAL = RNG.normal(size=50_000)
SETS = {
    "normal": NORMAL,
    "relu": np.maximum(NORMAL, 0),
    "heavy": RNG.standard_t(3, size=50_000),
    "outlier": np.concatenate([np.maximum(NORMAL, 0), [90.0]]),
    "tiny": np.maximum(NORMAL, 0) * 1e-12,
}
MAX = Method("max")


def of(values) -> Histogram:
    tally = Tally()
    tally.add(np.asarray(values, np.float32))
    return tally.histogram()


def noise(x, amax):
    return float(np.mean((fake_quant(x, amax / 127) - x.astype(np.float64)) ** 2))


@pytest.mark.parametrize("name", SETS)
def test_max_is_exact(name):
    x = SETS[name].astype(np.float32)
    assert choose_amax(of(x), MAX) == (float(np.abs(x).max()), MAX)
    assert clipped_share(of(x), float(np.abs(x).max())) == 0.0


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("percent", [99.0, 99.9, 99.99])
def test_percentile_is_numpys_within_a_bucket(name, percent):
    x = SETS[name].astype(np.float32)
    amax, method = choose_amax(of(x), Method("percentile", percent))
    exact = np.percentile(np.abs(x), percent)
    assert amax == pytest.approx(exact, rel=0.006, abs=0)
    assert amax != pytest.approx(np.percentile(np.abs(x), percent - 1), rel=0.006, abs=0)
    assert str(method) == f"percentile:{percent:g}"
    assert clipped_share(of(x), amax) == pytest.approx(1 - percent / 100, rel=0.1, abs=1e-5)


@pytest.mark.parametrize("name", SETS)
def test_mse_finds_the_least_noise(name):
    x = SETS[name].astype(np.float32)
    amax, _ = choose_amax(of(x), Method("mse"))
    top = float(np.abs(x).max())
    brute = min(noise(x, a) for a in top * np.exp2(-np.linspace(0, 8, 200)))
    assert noise(x, amax) <= 1.01 * brute
    assert noise(x, amax / 2) > 1.01 * brute


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("part", [0.2, 0.7, 1.0, 3.0])
def test_expected_sqnr_is_what_quantization_gives(name, part):
    x = np.abs(SETS[name]).astype(np.float32)
    amax = part * float(np.percentile(x, 99.9))
    expected, real = expected_sqnr_db(of(x), amax), sqnr_db(x, fake_quant(x, amax / 127))
    assert expected == pytest.approx(real, abs=0.05)
    assert expected_sqnr_db(of(x), amax * 1.4) != pytest.approx(real, abs=0.05)


def test_an_amax_at_the_very_edge_of_a_bucket():
    x = np.float32([4.0] * 100 + [0.0] * 100)
    assert choose_amax(of(x), MAX)[0] == 4.0
    assert clipped_share(of(x), 4.0) == 0.0
    assert expected_sqnr_db(of(x), 10.0) == pytest.approx(
        sqnr_db(x, fake_quant(x, 10 / 127)), abs=0.5
    )


def kl_amax(x):
    """The entropy method, bin by bin, as its docstring says it."""
    top = float(np.abs(x).max())
    bins = np.histogram(np.abs(x), 2048, (0, top))[0].astype(float)
    bins[0] = bins[1]
    best = (np.inf, 0)
    for i in range(128, 2049):
        p = bins[:i].copy()
        p[-1] += bins[i:].sum()
        level = np.arange(i) * 128 // i
        filled = bins[:i] > 0
        total = np.bincount(level, bins[:i], minlength=128)
        q = np.where(filled, (total / np.maximum(np.bincount(level, filled), 1))[level], 0)
        if np.any((q == 0) & (p > 0)):
            continue
        p, q = p / p.sum(), q / q.sum()
        some = p > 0
        kl = float(np.sum(p[some] * np.log(p[some] / q[some])))
        if kl <= best[0]:
            best = (kl, i)
    return best[1] * top / 2048


@pytest.mark.parametrize("name", ["normal", "relu", "heavy"])
def test_entropy_is_what_its_definition_gives(name):
    x = SETS[name].astype(np.float32)
    amax, _ = choose_amax(of(x), Method("entropy"))
    assert amax == pytest.approx(kl_amax(x), rel=0.08)
    assert amax < np.abs(x).max()


@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(-1e3, 1e3, width=32)))
def test_every_method_gives_an_amax_within_what_was_seen(x):
    top = float(np.abs(x).max())
    for name in METHODS:
        amax, _ = choose_amax(of(x), Method(name))
        assert 0.0 < amax <= top or amax == top == 0.0


def test_where_a_percentile_would_clip_everything_max_serves():
    x = np.zeros(100_000, np.float32)
    x[7] = 3.0
    assert choose_amax(of(x), Method("percentile")) == (3.0, MAX)


def test_merged_parts_give_the_same_choice():
    x = SETS["heavy"].astype(np.float32)
    whole, parts = of(x), of(x[:70_000]) + of(x[70_000:])
    for name in METHODS:
        assert choose_amax(whole, Method(name)) == choose_amax(parts, Method(name))


def large_activation() -> np.ndarray:
    """Smooth images behind a ReLU, (8, 64, 112, 112); their largest value stands alone."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, 64, 14, 14)) * np.exp(rng.standard_normal((64, 1, 1)) / 2)
    x = np.repeat(np.repeat(x, 8, axis=2), 8, axis=3) + rng.standard_normal((8, 64, 112, 112)) / 4
    x = np.maximum(x, 0).astype(np.float32)
    x[5, 40, 3, 2] = 2 * x.max()
    return x


@pytest.mark.parametrize("text", [*METHODS, "percentile:99.9", "percentile:100"])
def test_a_part_of_a_large_activation_gives_the_choice_of_all_of_it(text):
    x = large_activation()
    every = every_of(x[0].size)
    assert every > 1
    part = Tally()
    part.add(x, list(range(8)))
    counted = part.histogram()
    assert counted.count < x.size / (every - 1)
    of_part, of_all = (choose_amax(h, Method.parse(text))[0] for h in (counted, of(x.ravel())))
    assert of_part == pytest.approx(of_all, rel=0.02)
    if text in {"max", "percentile:100"}:
        assert of_part == float(x.max())
        # Were that value counted, this test could not tell the bound from the last bucket.
        magnitudes, _ = counted.magnitudes()
        assert bucket_edges(magnitudes)[1][-1] < x.max()


@pytest.mark.parametrize("text", ["max", "mse", "entropy", "percentile:99.9", "percentile:100"])
def test_methods_read_and_write(text):
    assert str(Method.parse(text)) == text
    assert str(Method.parse("percentile")) == "percentile:99.99"


@pytest.mark.parametrize(
    "text",
    ["", "best", "max:3", "percentile:", "percentile:nan", "percentile:12", "percentile:101"],
)
def test_no_such_method(text):
    with pytest.raises(InputError, match="method"):
        Method.parse(text)


def test_all_methods_together_take_milliseconds():
    histograms = [of(x) for x in SETS.values()]
    start = time.process_time()
    for histogram in histograms:
        for name in METHODS:
            choose_amax(histogram, Method(name))
    assert time.process_time() - start < 0.5  # 55 tensors in 2 s is 0.18 for these
