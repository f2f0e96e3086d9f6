import gzip
import os
import struct

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from calib_data.open import open_data
from calib_data.preprocess import PRESETS, PreprocessSpec
from calib_data.sources import require_labels

SMALL = PreprocessSpec((8, 8), None, "bilinear", (0.5,) * 3, (0.25,) * 3)
rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
PIXELS = rng.integers(0, 256, (5, 12, 9, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 2, 1, 0], np.uint8)


def png(path, pixels=RGB):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def idx_bytes(values):
    kind = {1: 0x0801, 3: 0x0803, 4: 0x0804}[values.ndim]
    return struct.pack(f">{1 + values.ndim}I", kind, *values.shape) + values.tobytes()


def write_idx(folder, images, labels=None, *, suffix=".gz"):
    pack = gzip.compress if suffix else bytes
    folder.mkdir(exist_ok=True)
    if labels is not None:
        (folder / f"train-labels-idx1-ubyte{suffix}").write_bytes(pack(idx_bytes(labels)))
    path = folder / f"train-images-idx3-ubyte{suffix}"
    path.write_bytes(pack(idx_bytes(images)))
    return path


# The promises of every source


@pytest.fixture(params=["idx", "flat", "classes", "npz", "npz-grey", "npz-packed", "npz-float"])
def source(request, tmp_path):
    kind = request.param
    if kind == "idx":
        return open_data(str(write_idx(tmp_path, PIXELS[..., 0], LABELS)))
    if kind in ("flat", "classes"):
        for number, pixels in enumerate(PIXELS):
            folder = tmp_path / "data" / ("" if kind == "flat" else f"c{LABELS[number]}")
            png(folder / f"{number}.png", pixels)
        return open_data(str(tmp_path / "data"))
    path = tmp_path / "data.npz"
    images = {
        "npz": PIXELS,
        "npz-grey": PIXELS[..., :1],
        "npz-packed": PIXELS,
        "npz-float": PIXELS.transpose(0, 3, 1, 2).astype(np.float32),
    }[kind]
    (np.savez_compressed if kind == "npz-packed" else np.savez)(path, images=images, labels=LABELS)
    return open_data(str(path))


def test_promises_of_a_source(source):
    assert len(source) == 5
    assert "/" not in source.name
    assert len({source.where(i) for i in range(5)}) == 5
    assert not any(source.where(i).startswith("/") for i in range(5))
    digests = [source.digest(i) for i in range(5)]
    assert len(set(digests)) == 5
    assert all(len(digest) == 64 for digest in digests)
    for i in (4, 0, 4):
        tensor = source.tensor(i, SMALL)
        assert tensor.dtype == np.float32
        assert tensor.shape == ((3, 12, 9) if source.preprocessed else (3, 8, 8))
        assert np.array_equal(tensor, source.tensor(i, SMALL))
        assert source.digest(i) == digests[i]
        if not source.preprocessed:
            image = source.image(i)
            assert image.dtype == np.uint8
            assert image.shape == (12, 9, 3)
            assert np.array_equal(tensor, SMALL.apply(image))


def test_labels_are_int64_and_read_only(source):
    if source.labels is None:
        refused(lambda: require_labels(source), source.name, "no labels", hint="folder a class")
        return
    assert require_labels(source).dtype == np.int64
    assert sorted(require_labels(source)) == sorted(LABELS)
    with pytest.raises(ValueError, match="read-only"):
        source.labels[0] = 1


def test_pixels_without_a_spec_are_refused(source):
    if source.preprocessed:
        assert np.array_equal(source.tensor(1, None), source.tensor(1, SMALL))
        refused(lambda: source.image(1), "image 1", "preprocessed")
    else:
        refused(lambda: source.tensor(1, None), "how to prepare", hint="--preprocess")


def test_an_image_that_cannot_be_prepared_is_named(tmp_path):
    source = open_data(str(png(tmp_path / "thin.png", np.zeros((1, 9000), np.uint8)).parent))
    error = refused(lambda: source.tensor(0, PRESETS["imagenet-v1"]), "thin.png", "9000×1")
    assert "leave it out" in error.hint


# What a user may type


@pytest.mark.parametrize(
    ("text", "part", "hint"),
    [
        ("", "no such data set", "fashion-mnist[:train|:test]"),
        ("cifar10", "'cifar10': no such data set", "fashion-mnist[:train|:test]"),
        ("fashion-mnist:val", "no split 'val'", "fashion-mnist:train and fashion-mnist:test"),
        ("no/such.npz", "no such data set, folder or file", ".npz"),
    ],
)
def test_unknown_name(text, part, hint):
    refused(lambda: open_data(text), part, hint=hint)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("val.tar", "unpack the archive"),
        ("val.tar.gz", "unpack the archive"),
        ("val.ZIP", "unpack the archive"),
        ("a.npy", "numpy.savez"),
        ("a.pt", "numpy.savez"),
        ("photo.jpg", "name the folder"),
        ("train-images-idx3-ubyte", "fetch it again"),
        ("README", "fashion-mnist"),
    ],
)
def test_file_that_is_no_data_set(tmp_path, name, hint):
    (tmp_path / name).write_bytes(b"something else")
    refused(lambda: open_data(str(tmp_path / name)), name, hint=hint)


def test_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(lambda: open_data(str(tmp_path / "pipe")), "pipe")
