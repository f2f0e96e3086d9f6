import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refused

from calib_data.npz import open_npz
from calib_data.preprocess import PreprocessSpec
from core.errors import InputError

SMALL = PreprocessSpec((8, 8), None, "bilinear", (0.5,) * 3, (0.25,) * 3)
rng = np.random.default_rng(0)
PIXELS = rng.integers(0, 256, (5, 12, 9, 3), dtype=np.uint8)
LABELS = np.array([1, 0, 2, 1, 0], np.uint8)
GREY = rng.integers(0, 256, (12, 9), dtype=np.uint8)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_pixels_are_mapped_not_read(tmp_path):
    stored = open_npz(save(tmp_path / "a.npz", images=PIXELS))
    assert isinstance(stored.images, np.memmap)
    assert [np.array_equal(stored.image(i), PIXELS[i]) for i in range(5)] == [True] * 5
    assert stored.labels is None
    assert stored.class_names == ()


def mapped_bytes():
    """Memory of this process that is a file's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssFile"))


@pytest.mark.parametrize("read", ["tensor", "digest"])
def test_npz_what_was_read_is_let_go(tmp_path, read):
    images = np.ones((64, 3, 256, 256), np.float32)  # 50 MB
    source = open_npz(save(tmp_path / "a.npz", images=images))
    before = mapped_bytes()
    np.asarray(source.images).sum()
    assert mapped_bytes() - before > images.nbytes // 2  # else this sees nothing
    for index in range(len(source)):
        getattr(source, read)(index, *([None] if read == "tensor" else []))
    assert mapped_bytes() - before < images.nbytes // 8


def test_npz_packed_and_mapped_are_one(tmp_path):
    np.savez_compressed(tmp_path / "b.npz", labels=LABELS, images=PIXELS)
    packed = open_npz(tmp_path / "b.npz")
    mapped = open_npz(save(tmp_path / "a.npz", labels=LABELS.astype(np.int32), images=PIXELS))
    assert packed.labels.tolist() == mapped.labels.tolist() == LABELS.tolist()
    assert [packed.digest(i) for i in range(5)] == [mapped.digest(i) for i in range(5)]
    fortran = open_npz(save(tmp_path / "c.npz", images=np.asfortranarray(PIXELS)))
    assert [fortran.digest(i) for i in range(5)] == [mapped.digest(i) for i in range(5)]


def test_npz_grey_is_made_rgb(tmp_path):
    source = open_npz(save(tmp_path / "a.npz", images=PIXELS[..., 1:2]))
    assert np.array_equal(source.image(3), PIXELS[3][..., [1, 1, 1]])


FLOATS = rng.standard_normal((4, 3, 6, 7)).astype(np.float32)


def test_npz_network_inputs_are_given_as_they_are(tmp_path):
    source = open_npz(save(tmp_path / "a.npz", images=FLOATS))
    assert source.preprocessed
    tensor = source.tensor(2, None)
    assert type(tensor) is np.ndarray
    assert np.array_equal(tensor, FLOATS[2])
    tensor[:] = 0  # the caller's own copy
    assert np.array_equal(source.tensor(2, None), FLOATS[2])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_npz_nan_is_named(tmp_path, value):
    floats = FLOATS.copy()
    floats[2, 1, 0, 3] = value
    source = open_npz(save(tmp_path / "a.npz", images=floats))
    source.tensor(1, None)
    refused(lambda: source.tensor(2, None), "a.npz: image 2", "1 values are NaN or infinite")


@pytest.mark.parametrize(
    ("images", "part", "hint"),
    [
        (PIXELS.transpose(0, 3, 1, 2), "uint8 of shape (5, 3, 12, 9)", "transpose(0, 2, 3, 1)"),
        (FLOATS.transpose(0, 2, 3, 1), "float32 of shape (4, 6, 7, 3)", "transpose(0, 3, 1, 2)"),
        (FLOATS.astype(np.float64), "float64", "astype(numpy.float32)"),
        (FLOATS.astype(">f4"), ">f4", "float32"),
        (PIXELS.astype(np.int64), "int64", "uint8"),
        (PIXELS[..., 0], "uint8 of shape (5, 12, 9)", "N×H×W×3"),
        (np.dstack([PIXELS[0], GREY])[None], "(1, 12, 9, 4)", "N×H×W×3"),
        (PIXELS[:0], "(0, 12, 9, 3)", "N×H×W×3"),
        (PIXELS[:, :0], "(5, 0, 9, 3)", "N×H×W×3"),
        (FLOATS[0], "(3, 6, 7)", "N×3×H×W"),
        (np.float32(1), "()", "N×3×H×W"),
        (np.array(["a"]), "<U1", "N×3×H×W"),
    ],
)
def test_npz_images_of_another_type_or_shape(tmp_path, images, part, hint):
    path = save(tmp_path / "a.npz", images=images)
    refused(lambda: open_npz(path), path, part, hint=hint)


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (LABELS[:4], "uint8 of shape (4,) for 5 images"),
        (LABELS.astype(np.float32), "float32"),
        (LABELS[:, None], "(5, 1)"),
        (LABELS > 0, "bool"),
        (LABELS.astype(np.int8) - 1, "labels from -1 to 1"),
        (LABELS.astype(np.uint64) + np.uint64(2**63), "labels from 9223372036854775808"),
    ],
)
def test_npz_labels_that_are_none(tmp_path, labels, part):
    path = save(tmp_path / "a.npz", images=PIXELS, labels=labels)
    refused(lambda: open_npz(path), path, part)


def test_npz_without_images(tmp_path):
    path = save(tmp_path / "a.npz", labels=LABELS)
    refused(lambda: open_npz(path), path, "labels without images")
    path = save(tmp_path / "b.npz", x=LABELS)
    refused(lambda: open_npz(path), path, "no array `images`")


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_npz_pickles_are_not_run(tmp_path, write):
    write(tmp_path / "a.npz", images=np.array([Trap()], object))
    refused(lambda: open_npz(tmp_path / "a.npz"), "a.npz", "Python objects")


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
def test_npz_truncated(tmp_path, write, keep):
    path = tmp_path / "a.npz"
    write(path, images=PIXELS)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    refused(lambda: open_npz(path), path, "not a readable .npz")


@given(data=st.data())
def test_damaged_npz_never_ends_in_a_traceback(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "a.npz"
    data.draw(st.sampled_from([np.savez, np.savez_compressed]))(path, images=PIXELS, labels=LABELS)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        near = st.integers(0, 150) | st.integers(len(damaged) - 200, len(damaged) - 1)
        damaged[data.draw(near)] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    try:
        source = open_npz(path)
    except InputError as err:
        problem = err.problem
        assert str(path) in problem
        return
    assert source.tensor(0, SMALL).dtype == np.float32


def test_npz_header_that_lies_takes_no_memory(tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": (10**9, 224, 224, 3)}
    )
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
            archive.writestr("images.npy", header.getvalue() + bytes(100))
        refused(lambda: open_npz(tmp_path / "a.npz"), "150528000000000 bytes, 100 are there")
