import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from refusal import refused

import core.memory
from calib_data.idx import open_idx
from calib_data.npz import open_npz
from core.errors import InputError
from core.memory import memory_bytes, require_memory
from core.stored_arrays import read_array, read_stored
from deploy.evaluation.predictions_file import read_predictions
from exporter.calibration.statistics import read_statistics

ARRAY = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def npy(array, **said):
    """The bytes of an .npy, whose header may say something else."""
    file = io.BytesIO()
    header = np.lib.format.header_data_from_array_1_0(array) | said
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + array.tobytes("A")


def archive_of(data, method=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("a.npy", data)
    return zipfile.ZipFile(file)


@pytest.mark.parametrize("array", [ARRAY, np.asfortranarray(ARRAY), ARRAY[:0], np.float64(2.0)])
def test_what_was_stored_is_read(array):
    found = read_array(archive_of(npy(np.asarray(array))), "a")
    assert found.dtype == array.dtype
    assert found.shape == array.shape
    assert np.array_equal(found, array)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (npy(ARRAY, shape=(1 << 40, 1 << 20)), "96 are there"),
        (npy(ARRAY, shape=(1,)), "is 4 bytes, 96 are there"),
        (npy(ARRAY, descr="|O"), "holds Python objects"),
        (npy(ARRAY, descr="|S0"), "is 0 bytes, 96 are there"),
        (npy(ARRAY)[:90], "EOF"),
        (b"\x93NUMPY\x03\x00" + bytes(50), "format"),
        (b"", "EOF"),
    ],
)
def test_a_header_that_lies_is_refused(data, says):
    with pytest.raises(ValueError, match=says):
        read_array(archive_of(data), "a")


def test_a_packed_array_is_refused_since_it_could_unpack_to_any_size():
    packed = archive_of(npy(np.zeros(10_000_000, np.uint8)), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="packed"):
        read_array(packed, "a")
    with pytest.raises(KeyError):
        read_stored(packed, "b")


@pytest.mark.parametrize("read", [read_statistics, read_predictions])
def test_files_of_ours_that_are_packed_are_refused(read, tmp_path):
    path = tmp_path / "s.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}" + " " * 10_000_000)
    refused(lambda: read(path), "packed")


@pytest.fixture
def little_memory(monkeypatch):
    monkeypatch.setattr(core.memory, "memory_bytes", lambda: (1 << 20, 1 << 30))


def test_memory_is_asked_for():
    free, whole = memory_bytes()
    assert 0 < free <= whole
    require_memory(free // 2, where="a", hint="b")
    with pytest.raises(InputError, match=r"a takes \d+\.\d GiB of memory"):
        require_memory(whole * 2, where="a", hint="b")


@pytest.mark.usefixtures("little_memory")
def test_packed_images_that_the_memory_does_not_hold(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((8, 256, 256, 3), np.uint8))
    refused(lambda: open_npz(tmp_path / "a.npz"), "of memory")
    np.savez(tmp_path / "b.npz", images=np.zeros((8, 256, 256, 3), np.uint8))
    assert len(open_npz(tmp_path / "b.npz")) == 8


@pytest.mark.usefixtures("little_memory")
def test_a_packed_idx_file_that_the_memory_does_not_hold(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    header = struct.pack(">4I", 0x0803, 1 << 31, 1 << 10, 1 << 10)
    path.write_bytes(gzip.compress(header + bytes(33 << 20)))
    refused(lambda: open_idx(path), "of memory")
