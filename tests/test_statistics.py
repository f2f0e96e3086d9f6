import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from calib_data.batches import data_digest
from calib_data.preprocess import PRESETS
from calib_data.sources import array_digest
from core.errors import CalibrationError, GraphError, InputError
from exporter.calibrate import calibrate
from exporter.calibration import collector
from exporter.calibration.image_record import Origin
from exporter.calibration.merging import merge
from exporter.calibration.statistics import read_statistics
from exporter.calibration.work import CalibrationOptions, ImageSet
from exporter.session import open_session

TENSORS = ["x", "b", "d", "f"]
TOY = """<ir_version: 10, opset_import: ["" : 21]>
toy (float[N,3,8,8] x) => (float[N,4] y) {
  a = Conv<pads = [1, 1, 1, 1]>(x, w)
  b = Relu(a)
  c = Conv(b, v)
  d = Log(c)
  e = GlobalAveragePool(d)
  f = Flatten(e)
  y = Gemm<transB = 1>(f, t)
}"""


class Arrays:
    """A source over preprocessed arrays."""

    name, labels, class_names, preprocessed = "arrays", None, (), True

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def where(self, index):
        return f"arrays: image {index}"

    def tensor(self, index, spec):
        return self.images[index]

    def digest(self, index):
        return array_digest(self.images[index])


def toy(path, *, text=TOY, batch="N"):
    model = onnx.parser.parse_model(text.replace("N,", f"{batch},"))
    rng = np.random.default_rng(0)
    for name, shape in {"w": (6, 3, 3, 3), "v": (8, 6, 1, 1), "t": (4, 8)}.items():
        values = rng.uniform(0.1, 1, shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


@pytest.fixture
def model(tmp_path):
    return toy(tmp_path / "toy.onnx")


@pytest.fixture
def images():
    return np.random.default_rng(1).uniform(0.1, 1, (21, 3, 8, 8)).astype(np.float32)


def run(model, images, order=None, **options):
    order = np.arange(len(images)) if order is None else np.asarray(order)
    data = ImageSet(Arrays(images), order, None)
    return calibrate(model, data, TENSORS, CalibrationOptions(**options))


def test_counts_everything_once(model, images):
    found = run(model, images)
    session = open_session(model, optimize=True, outputs=TENSORS)
    values = [session({"x": image[None]}) for image in images]
    for name in TENSORS:
        every = np.concatenate([value[name].ravel() for value in values])
        histogram = found.tensors[name]
        assert histogram.count == every.size
        assert (histogram.minimum, histogram.maximum) == (every.min(), every.max())
    assert list(found.tensors) == TENSORS
    source = Arrays(images)
    assert found.images_sha256 == data_digest(source, np.arange(21))
    first = found.images[0]
    image = images[[source.digest(i) for i in range(21)].index(first.digest)]
    np.testing.assert_allclose(first.mean, image.mean(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(first.std, image.std(axis=(1, 2)), rtol=1e-5)
    assert first.low == tuple(image.min(axis=(1, 2)).tolist())
    assert first.high == tuple(image.max(axis=(1, 2)).tolist())
    assert first.roughness == pytest.approx(1, abs=0.3)  # noise


def test_the_file_depends_on_the_set_of_images_alone(model, images):
    expected = run(model, images).to_bytes()
    shuffled = np.random.default_rng(2).permutation(21)
    assert run(model, images, shuffled, threads=1).to_bytes() == expected
    assert run(model, images[shuffled], threads=5).to_bytes() == expected
    assert run(model, images, range(20)).to_bytes() != expected


@pytest.mark.parametrize("batch", [1, 4])
def test_a_network_of_a_fixed_batch_counts_the_same(tmp_path, model, images, batch):
    fixed = toy(tmp_path / "fixed.onnx", batch=batch)
    expected = run(model, images)
    found = replace(run(fixed, images), model=expected.model)
    assert found.to_bytes() == expected.to_bytes()


def test_shards_in_any_order_merge_into_the_same_file(tmp_path, model, images):
    images = np.concatenate([images, images[:3]])  # a set may hold an image twice
    whole = run(model, images)
    parts = []
    for i in range(1, 5):
        part = run(model, images, shard=(i, 4))
        part.write(tmp_path / f"{i}.npz")
        parts.append(read_statistics(tmp_path / f"{i}.npz"))
    assert sum(len(part.images) for part in parts) == 24
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):
        merged = merge([parts[i] for i in order], [f"{i + 1}.npz" for i in order])
        assert merged.to_bytes() == whole.to_bytes()
    partly = merge(parts[:2], ["1.npz", "2.npz"])
    assert merge([parts[3], partly, parts[2]], list("abc")).to_bytes() == whole.to_bytes()


def test_what_may_not_be_merged(tmp_path, model, images):
    one, two = (run(model, images, shard=(i, 2)) for i in (1, 2))
    with pytest.raises(InputError, match=r"a.npz and b.npz share 11 images"):
        merge([one, one], ["a.npz", "b.npz"])
    for change, words in (
        ({"model": "0" * 64}, "different model"),
        ({"preprocess": "{}"}, "different preprocessing"),
        ({"origin": Origin("inputs", "", "random:0")}, "different origin"),
        ({"tensors": {"x": two.tensors["x"]}}, "different tensors"),
    ):
        with pytest.raises(InputError, match=words):
            merge([one, replace(two, **change)], ["a.npz", "b.npz"])


@pytest.mark.parametrize("shard", [(0, 4), (5, 4), (1, 0), (-1, -1)])
def test_no_such_shard(model, images, shard):
    with pytest.raises(InputError, match="shard"):
        run(model, images, shard=shard)


def test_an_empty_shard(model, images):
    with pytest.raises(InputError, match="empty"):
        run(model, images[:2], shard=(3, 3))


def test_write_and_read(tmp_path, model, images):
    found = run(model, images)
    path = tmp_path / "statistics.npz"
    found.write(path)
    assert read_statistics(path).to_bytes() == found.to_bytes() == path.read_bytes()
    with np.load(path) as arrays:  # a plain .npz for everybody else
        assert arrays["image_digests"].shape == (21, 32)
        assert arrays["counts"].sum() == sum(h.count for h in found.tensors.values())


def rewritten(path, name, content):
    with zipfile.ZipFile(path) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    entries[name] = content(entries[name])
    with zipfile.ZipFile(path, "w") as archive:
        for entry, value in entries.items():
            archive.writestr(entry, value)


def reworded(path, old, new):
    rewritten(path, "header.json", lambda text: text.replace(old, new))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda p: p.write_bytes(p.read_bytes()[:-40]),
        lambda p: p.write_bytes(b"PK\x03\x04 nonsense"),
        lambda p: p.write_bytes(p.read_bytes().replace(b"counts", b"cuonts")),
        lambda p: rewritten(p, "header.json", lambda _: b"[1]"),
        lambda p: reworded(p, b'"version": 2', b'"version": 1'),
        lambda p: reworded(p, b'"x"', b'"x", "z"'),
        lambda p: reworded(p, b'"images_sha256": "', b'"images_sha256": "0'),
        lambda p: rewritten(p, "counts.npy", lambda a: a[:-8] + bytes(8)),
        lambda p: rewritten(p, "buckets.npy", lambda a: a[:-8]),
        lambda p: rewritten(p, "buckets.npy", lambda a: a[:-4] + b"\xff" * 4),
        lambda p: p.unlink(),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, model, images, spoil):
    path = tmp_path / "statistics.npz"
    run(model, images[:3]).write(path)
    spoil(path)
    with pytest.raises(InputError, match=r"statistics.npz"):
        read_statistics(path)


@pytest.mark.parametrize(("bad", "words"), [(np.nan, "1 NaN and 0 Inf"), (np.inf, "0 NaN and 1")])
@pytest.mark.parametrize("threads", [1, 3])
def test_nonfinite_input_names_tensor_and_image(model, images, bad, words, threads):
    images[7, 1, 2, 3] = bad
    with pytest.raises(CalibrationError, match=rf"'x': {words}.* image 7"):
        run(model, images, threads=threads)


@pytest.mark.parametrize("batch", ["N", 4])
def test_nonfinite_activation_names_tensor_and_image(tmp_path, images, batch):
    model = toy(tmp_path / "toy.onnx", batch=batch)
    images[11] = -1  # log of a negative number, and of 0 behind a ReLU
    with pytest.raises(CalibrationError, match=r"'d': 0 NaN and 512 Inf among 512 .* image 11"):
        run(model, images)


def test_networks_and_tensors_that_do_not_fit(tmp_path, model, images):
    with pytest.raises(InputError, match="no tensor named 'zz'"):
        calibrate(model, ImageSet(Arrays(images), np.arange(3), None), ["zz"])
    with pytest.raises(InputError, match="fed float32 1×3×4×8"):
        run(model, images[:, :, :4])
    flat = toy(tmp_path / "flat.onnx", text=TOY.replace("f = Flatten(e)", "f = Squeeze(e)"))
    with pytest.raises(GraphError, match="'f' is float32 of shape"):
        run(flat, images)


class Seen(list):
    """Keeps what a stage reports."""

    def __call__(self, done, total, note=""):
        self.append(done)


def interrupted(model, images, partial, monkeypatch, *, after):
    """Run until ``after`` images are done, with a checkpoint after each moment."""
    monkeypatch.setattr(collector, "_CHECKPOINT_SECONDS", 0.0005)

    def stop(done, total, note=""):
        if done == after:
            raise MemoryError

    data = ImageSet(Arrays(images), np.arange(len(images)), None)
    with pytest.raises(MemoryError):
        calibrate(
            model, data, TENSORS, CalibrationOptions(threads=2, partial=partial), progress=stop
        )
    return len(read_statistics(partial).images)


def test_a_broken_off_run_is_carried_on(tmp_path, model, images, monkeypatch):
    partial = tmp_path / ".statistics.npz.partial"
    left = interrupted(model, images, partial, monkeypatch, after=9)
    assert 0 < left < 9
    data = ImageSet(Arrays(images), np.arange(len(images)), None)
    seen = Seen()
    found = calibrate(model, data, TENSORS, CalibrationOptions(partial=partial), progress=seen)
    assert seen[0] == left + 1
    assert seen[-1] == 21
    assert found.to_bytes() == run(model, images).to_bytes()


@pytest.mark.parametrize("change", ["images", "model", "tensors", "origin", "file"])
def test_what_another_calibration_left_is_not_taken_up(
    tmp_path, model, images, monkeypatch, change
):
    partial = tmp_path / ".statistics.npz.partial"
    interrupted(model, images, partial, monkeypatch, after=9)
    tensors, origin = TENSORS, Origin()
    if change == "images":
        images = np.sqrt(images)
    elif change == "model":
        model = toy(tmp_path / "other.onnx", text=TOY.replace("toy", "other"))
    elif change == "tensors":
        tensors = ["x", "d"]
    elif change == "origin":
        origin = Origin("pixels")
    else:
        partial.write_bytes(partial.read_bytes()[:-5])
    data = ImageSet(Arrays(images), np.arange(len(images)), None, origin)
    seen = Seen()
    found = calibrate(model, data, tensors, CalibrationOptions(partial=partial), progress=seen)
    assert len(seen) == 21  # Log: one at a time, and none was taken up
    assert seen[-1] == len(found.images) == 21


CHILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background ignores it
sys.path.insert(0, {tests!r})
import numpy as np
import test_statistics as t
from exporter.calibration import collector
collector._CHECKPOINT_SECONDS = 0.05
class Held(t.Arrays):
    taken = 0
    def tensor(self, index, spec):
        Held.taken += 1
        time.sleep(0.02)
        while Held.taken > 10 and not t.Path({go!r}).exists():
            time.sleep(0.01)
        time.sleep(Held.taken > 12)
        return super().tensor(index, spec)
data = t.ImageSet(Held(np.load({images!r})), np.arange(21), None)
options = t.CalibrationOptions(threads=2, partial=t.Path({partial!r}))
print("ready", flush=True)
t.calibrate(t.Path({model!r}), data, t.TENSORS, options)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_carried_on(tmp_path, model, images, how):
    partial, go = tmp_path / ".statistics.npz.partial", tmp_path / "go"
    np.save(tmp_path / "images.npy", images)
    code = textwrap.dedent(CHILD).format(
        tests=str(Path(__file__).parent),
        images=str(tmp_path / "images.npy"),
        partial=str(partial),
        model=str(model),
        go=str(go),
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    with child:  # held at its eleventh image until `go` is there
        assert child.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 120
        while not partial.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(child.pid, how)
        time.sleep(0.2)
        go.touch()
        assert child.wait() != 0
    assert 0 < len(read_statistics(partial).images) < 21
    assert run(model, images, partial=partial).to_bytes() == run(model, images).to_bytes()


def test_the_preprocessing_is_recorded(model, images):
    data = ImageSet(Arrays(images), np.arange(3), PRESETS["imagenet-v2"])
    found = calibrate(model, data, TENSORS)
    assert json.loads(found.preprocess)["resize"] == 232
