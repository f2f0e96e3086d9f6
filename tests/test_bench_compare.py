"""bench.compare: real processes on a small network, and a table that says what holds."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny_nets import SPEC, resnet, with_qdq

sys.path.insert(0, str(Path(__file__).parents[1]))  # bench/ is run from the repository

from bench.compare import main
from bench.compare_table import Course, Found, table
from bench.measure import Usage
from exporter.onnx_file import Card, save

MIB = 1 << 20


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("net")
    save(resnet(), folder / "optimized.onnx", Card(SPEC, stage="optimized"))
    save(with_qdq(resnet(), amax=0.5), folder / "int8.onnx", Card(SPEC, stage="int8"))
    return str(folder / "optimized.onnx"), str(folder / "int8.onnx")


def invoke(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_both_are_run_once_and_compared_whatever_is_to_blame(models, tmp_path):
    options = ("--images", 8, "--batch", 4, "--rounds", 1)
    done = invoke(*models, "-o", tmp_path, *options)
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert [line[:30].strip() for line in lines[1:4:2]] == [
        "both once in ONNX Runtime",
        "CPU time over both",
    ]
    assert any(line.startswith("polygraphy, 4 images") for line in lines)
    kept = json.loads((tmp_path / "compare.json").read_text())
    assert kept["setting"]["images"] == 8
    assert len(kept["found"]["plain"]) == len(kept["found"]["compared"]) == 1
    assert all(used["cpu_s"] > 0 for used in kept["found"]["batch"])
    log = (tmp_path / "compare.log").read_text()
    assert "shortcut" in log  # exit code 7, and nothing that stops the measuring
    assert not list(tmp_path.glob("*puts.json"))


def test_a_process_that_fails_is_named_with_its_log(models, tmp_path):
    broken = tmp_path / "int8.onnx"
    broken.write_bytes(b"no network")
    done = invoke(models[0], broken, "-o", tmp_path, "--images", 4, "--batch", 4, "--rounds", 0)
    assert done.exit_code == 1
    assert "compare: " in done.output
    assert str(tmp_path / "compare.log") in done.output


def test_parts_of_a_batch_are_refused(models, tmp_path):
    done = invoke(*models, "-o", tmp_path, "--images", 9, "--batch", 4)
    assert "--images 9 is no whole number of batches of 4" in done.output


def test_the_table_takes_ratios_round_by_round(tmp_path):
    plain = (Usage(2.0, 2.0, 100 * MIB), Usage(4.0, 4.0, 200 * MIB))
    compared = (Usage(6.0, 5.0, 130 * MIB), Usage(8.0, 8.0, 300 * MIB))
    batch = Usage(1.0, 1.0, 100 * MIB), Usage(9.0, 20.0, 4000 * MIB)
    course = Course((Path("a"), Path("b")), tmp_path, 32)
    text = table(Found(plain, compared, batch), course)
    assert "CPU time over both              2.25 (2.00…2.50), to be ≤ 2.5" in text
    assert "peak over the larger            1.40 (1.30…1.50), to be ≤ 1.5" in text
    assert "CPU time of it over ours        20.0, to be > 1" in text
    assert "peak of it over ours            40.0, to be ≥ 5" in text


def test_without_rounds_there_is_nothing_to_hold_it_against(tmp_path):
    course = Course((Path("a"), Path("b")), tmp_path, 2, batch=2)
    text = table(Found((), (Usage(6.0, 5.0, 130 * MIB),)), course)
    assert text.splitlines()[1].split() == [
        "strata",
        "compare,",
        "2",
        "images",
        "5.0",
        "6.0",
        "130",
    ]
    assert "over" not in text
