"""Work is spread over threads, done once, and its failures and settings come along."""

import threading

import numpy as np
import pytest

from deploy.networks.ops import products, threads
from deploy.networks.ops.threads import ONE_BLAS_THREAD, PART, spread, spread_flat


@pytest.fixture
def three(monkeypatch):
    """Three workers, whatever this machine has."""
    monkeypatch.setattr(threads, "workers", lambda: 3)
    monkeypatch.setattr(products, "workers", lambda: 3)
    threads._pool.cache_clear()
    yield
    threads._pool().shutdown()
    threads._pool.cache_clear()


def test_every_part_is_done_once(three):
    done, names = [], set()

    def work(part):
        names.add(threading.current_thread().name)
        done.append(part)

    spread(work, range(1000))
    assert sorted(done) == list(range(1000))
    assert names <= {"MainThread", "strata-layer_0", "strata-layer_1"}


def test_nothing_to_do(three):
    spread(lambda _: pytest.fail("called"), [])
    spread_flat(lambda _: pytest.fail("called"), 0)


def test_a_failure_is_raised_once_all_is_quiet(three):
    running = []

    def work(part):
        running.append(part)
        if part == 3:
            raise ValueError("part 3")
        running.remove(part)

    for _ in range(20):
        running.clear()
        with pytest.raises(ValueError, match="part 3"):
            spread(work, range(50))
        assert running == [3]


def test_numpys_error_state_comes_along(three):
    def work(part):
        np.float32(1) / np.zeros(1, np.float32)  # a warning, hence an error, elsewhere

    with np.errstate(divide="ignore"):
        spread(work, range(30))


@pytest.mark.parametrize("size", [1, PART, 20 * PART + 7])
def test_flat_parts_cover_the_array(three, size):
    seen = np.zeros(size, int)

    def work(part):
        assert 0 < part.stop - part.start <= PART
        seen[part] += 1

    spread_flat(work, size)
    assert (seen == 1).all()


@pytest.mark.parametrize("shape", [(1, 50, 30, 9), (1, 7, 30, 90), (12, 5, 3, 8)])
def test_products_are_spread_along_their_longest_axis(three, monkeypatch, shape):
    groups, filters, depth, count = shape
    generator = np.random.default_rng(0)
    factors = generator.integers(-9, 9, (groups, filters, depth)).astype(np.float32)
    columns = generator.integers(-9, 9, (groups, depth, count)).astype(np.float32)
    bias = generator.integers(-9, 9, (groups, filters)).astype(np.float32)
    for fewest in (1, 1 << 40):
        monkeypatch.setattr(products, "_FEWEST_STEPS", fewest)
        for offset in (None, bias):
            out = np.full((groups, filters, count), np.nan, np.float32)
            products.spread_product(factors, columns, offset, out)
            added = 0 if offset is None else bias[..., None]
            np.testing.assert_array_equal(out, factors @ columns + added)


def test_blas_gets_its_threads_back():
    controls = threads._controls()
    if controls is None:
        pytest.skip("this numpy has a BLAS whose threads cannot be held")
    before = controls[0]()
    with ONE_BLAS_THREAD:
        assert controls[0]() == 1
        with ONE_BLAS_THREAD:
            pass
        assert controls[0]() == 1
    assert controls[0]() == before


def test_another_blas_takes_one_worker(monkeypatch):
    monkeypatch.setattr(threads, "_controls", lambda: None)
    assert threads.workers.__wrapped__() == 1
    with ONE_BLAS_THREAD:
        spread(lambda _: None, range(3))
