"""Artifacts are whole or absent, and a foreign parent is refused."""

import json
import os
import stat
import subprocess
import sys

import pytest

from core.artifacts import (
    read_json,
    require_parent,
    sha256_bytes,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
    write_whole,
)
from core.errors import InputError, OutputError


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_write_leaves_only_the_file(tmp_path):
    write_text(tmp_path / "a" / "x.txt", "é")
    assert names(tmp_path / "a") == ["x.txt"]
    assert (tmp_path / "a" / "x.txt").read_bytes() == "é".encode()
    assert sha256_file(tmp_path / "a" / "x.txt") == sha256_bytes("é".encode())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError])
def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path, error):
    path = tmp_path / "x"
    write_bytes(path, b"old")
    expected = OutputError if error is OSError else error
    with pytest.raises(expected), write_whole(path) as temporary:
        temporary.write_bytes(b"half")
        raise error("stop")
    assert names(tmp_path) == ["x"]
    assert path.read_bytes() == b"old"


def test_a_killed_writer_leaves_no_file_and_its_rest_is_removed(tmp_path):
    path = tmp_path / "x"
    code = (
        "import os, pathlib, signal, sys; from core.artifacts import write_whole\n"
        "with write_whole(pathlib.Path(sys.argv[1])) as t:\n"
        "    t.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert not path.exists()
    assert len(names(tmp_path)) == 1
    write_bytes(path, b"new")
    assert names(tmp_path) == ["x"]


def test_the_rest_of_a_living_writer_is_left_alone(tmp_path):
    other = tmp_path / f".x.{os.getppid()}.tmp"
    other.write_bytes(b"at work")
    write_bytes(tmp_path / "x", b"mine")
    assert other.exists()


def test_an_unwritable_place_is_an_output_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be written"):
        write_bytes(tmp_path / "file" / "x", b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")  # noqa: PTH110
def test_a_full_disk_is_an_output_error(tmp_path):
    with (
        pytest.raises(OutputError, match="No space left"),
        write_whole(tmp_path / "x"),
        open("/dev/full", "wb", buffering=0) as full,  # noqa: PTH123
    ):
        full.write(b"x")
    assert names(tmp_path) == []


def test_a_link_is_followed_and_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there" / "file")
    for text in ("new", "newer"):
        write_text(tmp_path / "link", text)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "there" / "file").read_text() == text
    assert names(tmp_path / "there") == ["file"]


def test_a_pipe_is_written_to_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        write_text(pipe, "text")
        assert reader.communicate(timeout=20)[0] == "text"
    assert pipe.is_fifo()
    assert names(tmp_path) == ["pipe"]


def test_a_full_device_is_an_output_error_and_stays_a_device(tmp_path):
    device = tmp_path / "full"
    try:  # one of its own: who may make it may also replace the machine's
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 7))
    except PermissionError:
        device.symlink_to("/dev/full")
    with pytest.raises(OutputError, match="No space left"):
        write_text(device, "text")
    assert device.is_char_device()


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("text", ["", "{", "[1]", "nul", "\x00", "[" * 100_000])
def test_what_is_no_json_object_is_an_input_error(tmp_path, text):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not a table"):
        read_json(path, what="table")


def test_json_round_trip(tmp_path):
    write_json(tmp_path / "x.json", {"b": [1, 2.5], "a": "é"})
    assert read_json(tmp_path / "x.json", what="table") == {"b": [1, 2.5], "a": "é"}
    assert json.loads((tmp_path / "x.json").read_text())


def test_a_foreign_parent_is_refused(tmp_path):
    parent = tmp_path / "model.onnx"
    parent.write_bytes(b"one")
    require_parent(tmp_path / "child", "model", sha256_file(parent), parent)
    parent.write_bytes(b"two")
    with pytest.raises(InputError, match="made from another model"):
        require_parent(tmp_path / "child", "model", sha256_bytes(b"one"), parent)
    with pytest.raises(InputError, match="does not say which model"):
        require_parent(tmp_path / "child", "model", None, parent)
