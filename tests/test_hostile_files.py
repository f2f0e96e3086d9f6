"""What is no file, no text, or a number of no size: one line and its exit code."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from tiny_nets import resnet, write

from core.artifacts import read_json, regular, sha256_file
from core.errors import InputError
from deploy.cli import cli
from deploy.evaluation.accuracy import read_accuracy
from deploy.onnx_files.reader import read_graph
from exporter.calibration.statistics import read_statistics
from exporter.card import Card
from exporter.onnx_file import load


@pytest.fixture
def pipe(tmp_path):
    path = tmp_path / "model.onnx"
    os.mkfifo(path)
    return path


def test_a_pipe_is_refused_where_a_file_is_read_more_than_once(pipe):
    with pytest.raises(InputError, match="a pipe, a device or a socket"):
        sha256_file(pipe)


def test_what_is_read_once_may_come_through_a_pipe():
    reading, writing = os.pipe()
    os.write(writing, b'{"a": 1}')
    os.close(writing)
    try:
        assert read_json(Path(f"/dev/fd/{reading}"), what="plan") == {"a": 1}
    finally:
        os.close(reading)


@pytest.mark.parametrize("command", ["inspect", "lint", "optimize", "evaluate", "build", "bench"])
@pytest.mark.parametrize("device", [False, True])
def test_commands_do_not_wait_for_a_pipe_nor_read_a_device_for_ever(command, device, pipe):
    if device:
        pipe.unlink()
        pipe.symlink_to("/dev/zero")
    result = CliRunner().invoke(cli, [command, str(pipe)])
    assert (result.exit_code, "a pipe, a device or a socket" in result.stderr) == (2, True)


def test_files_and_folders_are_regular(tmp_path):
    assert regular(tmp_path) == tmp_path
    with pytest.raises(FileNotFoundError):
        regular(tmp_path / "none")


@pytest.mark.parametrize("text", ["9" * 5000, '{"schema": ' + "9" * 5000 + "}", "[" * 100_000])
def test_json_that_python_will_not_read_is_no_json(text, tmp_path):
    path = tmp_path / "layers.json"
    path.write_text(text)
    with pytest.raises(InputError, match="not JSON"):
        read_json(path, what="comparison")


def test_half_a_character_is_no_json(tmp_path):
    (tmp_path / "l.json").write_text('{"a": "\\uD800"}')
    with pytest.raises(InputError, match="not JSON"):
        read_json(tmp_path / "l.json", what="comparison")
    for key, text in (("labels", '["\\ud800"]'), ("weights", '{"a": "\\ud800"}')):
        with pytest.raises(InputError, match="not JSON"):
            Card.from_metadata({f"strata.{key}": text}, where="m.onnx")
    assert Card.from_metadata({"strata.labels": '["\\ud83d\\ude00"]'}, where="m").labels == ("😀",)


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": 1e999}', '{"a": -1e39}', '{"a": 1' + "0" * 400 + "}"]
)
def test_shifts_are_finite(text):
    with pytest.raises(InputError, match=r"strata\.shifts: unreadable metadata \(a number"):
        Card.from_metadata({"strata.shifts": text}, where="m.onnx")


@pytest.mark.parametrize(
    ("key", "value"), [("images", float("inf")), ("sha256", None), ("name", 3), ("preprocess", [])]
)
def test_an_accuracy_of_wrong_kinds_is_refused(key, value, tmp_path):
    data = {"name": "d", "sha256": "0", "images": 1, "preprocess": None}
    accuracy = {"schema": "strata.accuracy/2", "data": data, "models": [], "not_run": []}
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(accuracy))
    assert read_accuracy(path).data.images == 1
    data[key] = value
    path.write_text(json.dumps(accuracy))
    with pytest.raises(InputError, match="not an evaluation"):
        read_accuracy(path)


def test_names_that_are_not_utf8_are_refused(tmp_path):
    path = write(resnet(), tmp_path / "m.onnx")
    data = path.read_bytes().replace(b"conv1", b"co\xffv1")
    onnx.ModelProto().ParseFromString(data)  # protobuf itself lets it pass
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"xffv1.* is not UTF-8"):
        load(path)
    with pytest.raises(InputError, match="can't decode byte 0xff"):
        read_graph(data, where="m.onnx")


@pytest.mark.parametrize("flag", [0x01, 0x20])  # encrypted, patched
def test_statistics_of_a_kind_of_zip_that_is_not_read(flag, tmp_path):
    path = tmp_path / "statistics.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.json", "{}")
    data = bytearray(path.read_bytes())
    for sign, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(sign) + at] |= flag
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a statistics file"):
        read_statistics(path)


def test_statistics_whose_compression_is_broken(tmp_path):
    path = tmp_path / "statistics.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({"kind": list(np.arange(99.0))}))
    data = bytearray(path.read_bytes())
    data[42:48] = b"\xff" * 6
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a statistics file"):
        read_statistics(path)


def broken(tmp_path, edit):
    model = resnet()
    edit(model)
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def twice(model):
    model.graph.node[2].output[0] = model.graph.node[1].output[0]


def huge(model):
    model.graph.initializer[0].dims[0] = 2**40


def typeless(model):
    model.graph.initializer[0].data_type = 77


@pytest.mark.parametrize(
    ("edit", "code", "words"),
    [
        (twice, 5, "the graph cannot be read"),
        (huge, 2, "bytes for float32 of shape [1099511627776"),
        (typeless, 2, "unknown element type 77"),
    ],
)
@pytest.mark.parametrize("command", [["optimize"], ["quantize", "--precision", "fp16"]])
def test_graphs_that_contradict_themselves(command, edit, code, words, tmp_path):
    path = broken(tmp_path, edit)
    result = CliRunner().invoke(cli, [*command, str(path)])
    assert (result.exit_code, words in result.stderr) == (code, True), result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["m.onnx"]


EVIL = "ev\x1b[2J\x1b]0;il\x07"


def renamed(model):
    """Give output and an operator a name that steers a terminal."""
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = [EVIL if name == old else name for name in node.output]
    model.graph.output[0].name = EVIL


def foreign(model):
    model.graph.node[1].op_type = EVIL


@pytest.mark.parametrize("edit", [renamed, foreign])
@pytest.mark.parametrize("command", ["inspect", "lint", "optimize", "evaluate", "build", "bench"])
def test_names_do_not_steer_the_terminal(command, edit, tmp_path):
    path = broken(tmp_path, edit)
    size = ["--size", "16x16"] if command in ("build", "bench") else []
    if command == "bench":
        size += ["--batch", "1", "--seconds", "0.02", "--warm-up", "0.01"]
    result = CliRunner().invoke(cli, [command, str(path), *size], color=True)
    assert not isinstance(result.exception, Exception) or result.exit_code != 1
    assert "\x1b[2J" not in result.output
    assert "\x07" not in result.output
    assert edit is renamed or "ev�[2J" in result.output


def evil_everywhere(model):
    """Give every node and every tensor between them such a name."""
    names = {name: name + EVIL for node in model.graph.node for name in node.output}
    names |= {tensor.name: tensor.name + EVIL for tensor in model.graph.initializer}
    for output in model.graph.output:
        names.pop(output.name)
    for node in model.graph.node:
        node.name += EVIL
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for tensor in model.graph.initializer:
        tensor.name = names[tensor.name]


def test_names_do_not_steer_the_terminal_through_the_chain(tmp_path, monkeypatch):
    path = broken(tmp_path, evil_everywhere)
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", images=np.random.default_rng(0).random((4, 3, 16, 16), np.float32))
    for command in (
        ["optimize", str(path), "-o", "o.onnx"],
        ["calibrate", "o.onnx", "--data", "d.npz", "--images", "4", "-o", "s.npz"],
        ["quantize", "o.onnx", "--statistics", "s.npz", "--method", "max", "-o", "q.onnx"],
        ["compare", "o.onnx", "q.onnx", "--data", "d.npz", "--images", "1"],
    ):
        result = CliRunner().invoke(cli, command, color=True)
        assert result.exit_code == 0, result.output
        assert "ev\x1b" not in result.output
        assert "\x07" not in result.output


def test_too_little_memory_is_said_in_a_line(monkeypatch, tmp_path):
    def full(path):
        raise MemoryError("Unable to allocate 512. GiB")

    monkeypatch.setattr("exporter.onnx_file.load", full)
    result = CliRunner().invoke(cli, ["lint", str(tmp_path)])
    assert (result.exit_code, "out of memory (Unable" in result.stderr) == (2, True)


def test_links_that_go_round(tmp_path):
    (tmp_path / "m.onnx").symlink_to("m.onnx")
    result = CliRunner().invoke(cli, ["build", str(tmp_path / "m.onnx")])
    assert (result.exit_code, "Too many levels" in result.stderr) == (2, True)
