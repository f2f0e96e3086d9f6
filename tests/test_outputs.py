"""Where results are to go is looked at before the work, and what is read is not written over."""

import os
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from refusal import refused
from tiny_nets import resnet

from core.errors import OutputError
from core.outputs import require_outputs
from deploy.cli import cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(resnet().SerializeToString())
    np.savez("d.npz", images=np.random.default_rng(0).random((4, 3, 16, 16), np.float32))
    return tmp_path


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}


DATA = ["--data", "d.npz"]


@pytest.mark.parametrize(
    "command",
    [
        ["optimize", "m.onnx", "-o", "m.onnx"],
        ["optimize", "m.onnx", "-o", "x/../m.onnx"],
        ["optimize", "link.onnx", "-o", "m.onnx"],
        ["optimize", "optimized.onnx"],
        ["calibrate", "m.onnx", *DATA, "-o", "m.onnx"],
        ["calibrate", "m.onnx", *DATA, "-o", "d.npz"],
        ["quantize", "m.onnx", "-o", "m.onnx"],
        ["quantize", "m.onnx", "--statistics", "d.npz", "-o", "d.npz"],
        ["quantize", "fp16.onnx", "--precision", "fp16"],
        ["merge", "d.npz", "-o", "d.npz"],
        ["build", "m.onnx", "-o", "m.onnx"],
        ["refit", "m.engine", "m.onnx", "-o", "m.engine"],
        ["inspect", "m.engine", "--svg", "m.engine"],
        ["compare", "m.onnx", "optimized.onnx", *DATA, "--json", "optimized.onnx"],
        ["compare", "m.onnx", "trt-network:m.onnx", *DATA, "--html", "m.onnx"],
        ["compare", "m.onnx", "optimized.onnx", *DATA, "--json", "r", "--html", "r"],
        ["evaluate", "m.onnx", *DATA, "--json", "m.onnx"],
        ["evaluate", "m.onnx", *DATA, "--predictions", "d.npz"],
        ["check", "m=m.onnx", "--baseline", "d.npz", "--junit", "m.onnx"],
        ["check", "m=m.onnx", "--baseline", "d.npz", "--markdown", "d.npz"],
        ["bench", "m.onnx", "--svg", "m.onnx"],
        ["export", "--weights", "w.pth", "-o", "w.pth"],
    ],
)
def test_what_is_read_is_not_written_over(command, folder):
    for name in ("optimized.onnx", "fp16.onnx", "m.engine", "w.pth"):
        shutil.copy("m.onnx", name)
    (folder / "link.onnx").symlink_to("m.onnx")
    before = contents(folder)
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2, result.output
    assert "would be written" in result.stderr
    assert contents(folder) == before


@pytest.mark.parametrize(
    "command",
    [
        ["optimize", "none.onnx", "-o"],
        ["calibrate", "none.onnx", "-o"],
        ["quantize", "none.onnx", "-o"],
        ["build", "none.onnx", "-o"],
        ["export", "--weights", "none.pth", "-o"],
        ["baseline", "none.onnx", "-o"],
        ["bundle", "none", "-o"],
        ["compare", "none.onnx", "none2.onnx", "--json"],
        ["compare", "none.onnx", "none2.onnx", "--html"],
        ["evaluate", "none.onnx", "--json"],
        ["evaluate", "none.onnx", "--predictions"],
        ["check", "none.onnx", "--markdown"],
        ["bench", "none.onnx", "--json"],
    ],
)
def test_an_output_that_cannot_be_written_is_found_before_the_work(command, folder):
    result = CliRunner().invoke(cli, [*command, "/proc/none/out"])
    assert (result.exit_code, "/proc/none/out: cannot be written" in result.stderr) == (8, True)


def test_results_go_to_new_folders_links_and_devices(tmp_path):
    (tmp_path / "old").write_text("old")
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "null").symlink_to(os.devnull)
    places = [tmp_path / name for name in ("a/b/c", "old", "link", "null")]
    require_outputs(places, [tmp_path / "input"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "null", "old"]


def test_what_takes_no_file(tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "a", tmp_path / ("a" * 300)):
        with pytest.raises(OutputError, match="cannot be written"):
            require_outputs([place])


def test_two_results_in_one_file(tmp_path):
    refused(lambda: require_outputs([tmp_path / "a", tmp_path / "b" / ".." / "a"]), "two results")
