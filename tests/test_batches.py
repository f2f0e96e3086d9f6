import gc
import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refused

from calib_data import batches as batches_module
from calib_data.batches import batches, sample
from calib_data.idx import IdxSource
from calib_data.preprocess import PreprocessSpec
from core.errors import InputError

SPEC = PreprocessSpec((8, 8), None, "bilinear", (0.5,) * 3, (0.25,) * 3)
PIXELS = np.random.default_rng(0).integers(0, 256, (53, 9, 7), dtype=np.uint8)
SOURCE = IdxSource("noise", PIXELS)


def data_threads():
    return [t for t in threading.enumerate() if t.name.startswith("strata-data")]


@pytest.fixture(autouse=True)
def _threads_end():
    assert data_threads() == []
    yield
    gc.collect()
    assert data_threads() == []


@given(batch=st.integers(1, 60), seed=st.integers(0, 9), count=st.integers(1, 53))
def test_batches_are_the_images_in_order_whatever_their_size(batch, seed, count):
    indices = sample(SOURCE, count, seed=seed)
    seen = []
    for chunk, tensor in batches(SOURCE, indices, SPEC, batch=batch):
        assert tensor.dtype == np.float32
        assert tensor.shape == (len(chunk), 3, 8, 8)
        assert tensor.flags.c_contiguous
        assert 1 <= len(chunk) <= batch
        for index, image in zip(chunk, tensor, strict=True):
            assert np.array_equal(image, SOURCE.tensor(int(index), SPEC))
        seen += chunk.tolist()
    assert seen == indices.tolist()


def test_no_images_no_batches():
    assert list(batches(SOURCE, [], SPEC, batch=4)) == []


def test_batches_are_the_callers_own():
    stream = batches(SOURCE, range(8), SPEC, batch=4)
    (_, first), (_, second) = stream
    kept = second.copy()
    first[:] = 0
    assert np.array_equal(second, kept)


@pytest.mark.parametrize("batch", [0, -8])
def test_batch_size_is_checked_at_once(batch):
    refused(lambda: batches(SOURCE, range(4), SPEC, batch=batch), f"batch size {batch}")


class Watched:
    """A source that counts what is asked of it, and breaks at some images."""

    name = "watched"
    labels = None
    class_names = ()
    preprocessed = True

    def __init__(self, *broken, wide=(), seconds=0.0):
        self.broken = broken
        self.wide = wide
        self.seconds = seconds
        self.asked = []
        self.lock = threading.Lock()

    def __len__(self):
        return 1000

    def where(self, index):
        return f"watched/{index}.png"

    def tensor(self, index, spec):
        with self.lock:
            self.asked.append(index)
        time.sleep(self.seconds)
        if index in self.broken:
            raise InputError(f"{self.where(index)}: a broken image", hint="replace it")
        return np.full((3, 2, 2 + (index in self.wide)), index, np.float32)


def settle(source):
    """Wait until the threads have run out of work."""
    before = -1
    while before != len(source.asked):
        before = len(source.asked)
        time.sleep(0.05)
    return before


def test_one_batch_is_prepared_ahead_and_no_more():
    source = Watched()
    stream = batches(source, range(100), None, batch=10)
    assert settle(source) == 0
    for done in (1, 2, 3):
        next(stream)
        assert settle(source) == 10 * (done + 1)
    stream.close()


def test_a_broken_image_surfaces_when_its_batch_is_due():
    source = Watched(37, 33)
    stream = batches(source, range(100), None, batch=10)
    for _ in range(3):
        next(stream)
    error = refused(lambda: next(stream), "watched/33.png: a broken image")  # the first of two
    assert error.hint == "replace it"
    assert data_threads() == []
    assert list(stream) == []


def test_leaving_early_ends_the_threads_and_their_work():
    source = Watched(seconds=0.01)
    for _ in batches(source, range(1000), None, batch=200):
        break
    gc.collect()
    assert data_threads() == []
    assert settle(source) < 400  # what was queued is not worked off


def test_an_error_of_the_caller_ends_the_threads():
    def consume():
        for _ in batches(Watched(), range(1000), None, batch=10):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    gc.collect()
    assert data_threads() == []


def test_ctrl_c_while_waiting_ends_the_threads(monkeypatch):
    join = batches_module._join

    def interrupted(source, indices, parts):
        if indices[0] == 20:
            raise KeyboardInterrupt
        return join(source, indices, parts)

    monkeypatch.setattr(batches_module, "_join", interrupted)
    stream = batches(Watched(), range(1000), None, batch=10)
    next(stream)
    next(stream)
    with pytest.raises(KeyboardInterrupt):
        next(stream)
    assert data_threads() == []


def test_images_of_different_sizes_are_named():
    stream = batches(Watched(wide=[77]), range(70, 80), None, batch=10)
    error = refused(lambda: next(stream), "watched/77.png is 3×2", "watched/70.png 2×2")
    assert "crop" in error.hint


def test_memory_is_bounded_by_the_batch_not_the_set():
    source = IdxSource("grey", np.zeros((64, 64, 64), np.uint8))
    spec = PreprocessSpec(None, None, "bilinear", (0.5,) * 3, (0.25,) * 3)
    batch_bytes = 8 * 3 * 64 * 64 * 4
    peaks = {}
    for count in (64, 640):
        tracemalloc.start()
        for _, tensor in batches(source, np.arange(count) % 64, spec, batch=8):
            del tensor
        peaks[count] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    # The one at hand, the one ahead, and one on its way from the parts to the whole.
    assert batch_bytes <= peaks[64] < 3.3 * batch_bytes
    assert peaks[640] < 1.2 * peaks[64]


def test_the_embedded_set_flows_fast():
    source = IdxSource("grey", np.resize(PIXELS, (4096, 28, 28)))
    spec = PreprocessSpec((32, 32), None, "bilinear", (0.286,) * 3, (0.353,) * 3)
    start = time.process_time()
    for _ in batches(source, range(4096), spec, batch=128):
        pass
    # About 15,000 a second of one core's time; the bound only catches a lost fast path.
    assert 4096 / (time.process_time() - start) > 4000
