import gzip
import struct

import numpy as np
import pytest
from refusal import refused

from calib_data.idx import open_idx
from calib_data.open import open_data

rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (5, 12, 9, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 2, 1, 0], np.uint8)


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


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_is_grey_made_rgb_with_the_labels_beside_it(tmp_path, suffix):
    images = PIXELS[..., 0]
    source = open_idx(write_idx(tmp_path, images, LABELS, suffix=suffix))
    assert source.name == f"train-images-idx3-ubyte{suffix}"
    assert source.labels.tolist() == LABELS.tolist()
    for i in range(5):
        assert np.array_equal(source.image(i), np.stack([images[i]] * 3, axis=-1))


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"),
        ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"),
        ("t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"),
        ("letters-images.gz", "letters-labels.gz"),
    ],
)
def test_idx_labels_are_found_by_name_whatever_is_packed(tmp_path, images, labels):
    for name, values in ((images, PIXELS[..., 0]), (labels, LABELS)):
        pack = gzip.compress if name.endswith(".gz") else bytes
        (tmp_path / name).write_bytes(pack(idx_bytes(values)))
    assert open_idx(tmp_path / images).labels.tolist() == LABELS.tolist()
    (tmp_path / labels).rename(tmp_path / "elsewhere")
    assert open_idx(tmp_path / images).labels is None


def test_idx_content_tells_gzip_not_the_name(tmp_path):
    path = write_idx(tmp_path, PIXELS[..., 0], suffix="")
    liar = path.rename(tmp_path / "images.gz")
    assert len(open_idx(liar)) == 5


def test_idx_label_count_must_be_the_images(tmp_path):
    path = write_idx(tmp_path, PIXELS[..., 0], LABELS[:4])
    refused(lambda: open_idx(path), "train-labels-idx1-ubyte.gz", "4 labels for the 5 images")


def test_idx_labels_without_images(tmp_path):
    path = write_idx(tmp_path, PIXELS[..., 0], LABELS)
    labels = path.with_name("train-labels-idx1-ubyte.gz")
    refused(
        lambda: open_data(str(labels)), labels, "labels without images", hint=f"such as {path.name}"
    )


@pytest.mark.parametrize("cut", [0, 3, 4, 10, 15, 16, 17, -1])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_truncated(tmp_path, cut, suffix):
    path = write_idx(tmp_path, PIXELS[..., 0], suffix=suffix)
    path.write_bytes(path.read_bytes()[:cut])
    refused(lambda: open_idx(path), path)


def test_idx_truncated_says_the_numbers(tmp_path):
    path = write_idx(tmp_path, PIXELS[..., 0], suffix="")
    path.write_bytes(path.read_bytes()[:-1])
    refused(lambda: open_idx(path), "5×12×9 = 540 bytes announced, 539 there")
    path.write_bytes(idx_bytes(PIXELS[..., 0]) + b"x")
    refused(lambda: open_idx(path), "540 bytes announced, more there")


def test_idx_damaged_gzip(tmp_path):
    path = write_idx(tmp_path, PIXELS[..., 0])
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # the checksum
    path.write_bytes(data)
    refused(lambda: open_idx(path), path, "CRC")


def test_idx_header_that_lies_takes_no_memory(tmp_path):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(struct.pack(">4I", 0x0803, 2**32 - 1, 2**16, 2**16) + b"x")
    refused(lambda: open_idx(path), "1 there")


@pytest.mark.parametrize(
    ("data", "part"),
    [
        (b"\x00\x00\x08\x04" + bytes(20), "0x00000804, not 0x00000803"),
        (b"\x00\x00\x0d\x03" + bytes(20), "0x00000d03, not 0x00000803"),
        (b"hello world", "0x68656c6c"),
        (b"", "(nothing)"),
        (struct.pack(">4I", 0x0803, 0, 28, 28), "holds no pixels (0×28×28)"),
        (struct.pack(">4I", 0x0803, 3, 0, 28), "holds no pixels (3×0×28)"),
    ],
)
def test_idx_of_another_kind(tmp_path, data, part):
    path = tmp_path / "images-idx3-ubyte"
    path.write_bytes(data)
    refused(lambda: open_idx(path), path, part)


def test_idx_missing(tmp_path):
    refused(lambda: open_idx(tmp_path / "no"), tmp_path / "no", "No such file")
