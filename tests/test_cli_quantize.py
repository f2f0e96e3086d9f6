import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from resnet_graph import resnet

from calib_data.preprocess import PRESETS
from core.artifacts import sha256_file
from core.metrics import sqnr_db
from deploy.cli import cli
from deploy.images import ImageRequest, open_images
from exporter.onnx_file import Card, card_of, load, save
from exporter.session import open_session


def strata(*args, code=0):
    """Run a command; return what it printed."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and its statistics over 12 images."""
    folder = tmp_path_factory.mktemp("net")
    card = Card(preprocess=PRESETS["fashion-mnist"], labels=("a", "b"), stage="optimized")
    save(resnet((1, 1), size=32), folder / "optimized.onnx", card)
    out = strata("calibrate", folder / "optimized.onnx", "--images", 12, "--json")
    facts = json.loads(out)
    assert facts["images"] == 12
    assert facts["sha256"] == sha256_file(folder / "statistics.npz")
    assert facts["data"] == "fashion-mnist:train"
    return folder


def test_the_chain(folder, tmp_path):
    out = tmp_path / "int8.onnx"
    statistics = folder / "statistics.npz"
    text = strata(
        "quantize", folder / "optimized.onnx", "-o", out, "--statistics", statistics
    )  # fmt: skip
    assert "10 in INT8" in text
    table = json.loads((tmp_path / "calibration.json").read_text())
    assert table["parents"]["model"] == sha256_file(folder / "optimized.onnx")
    card = card_of(load(out))
    assert (card.stage, card.labels, card.preprocess) == (
        "int8",
        ("a", "b"),
        PRESETS["fashion-mnist"],
    )
    assert card.parents == {
        "model": sha256_file(folder / "optimized.onnx"),
        "statistics": sha256_file(statistics),
        "calibration": sha256_file(tmp_path / "calibration.json"),
    }
    # Images of the kind it was calibrated with, other ones.
    images = open_images(ImageRequest("fashion-mnist:test", 8), {"": PRESETS["fashion-mnist"]})
    x = next(iter(images.batches()))[1]
    before, after = (
        open_session(p)({"input": x})["logits"] for p in (folder / "optimized.onnx", out)
    )
    assert sqnr_db(before, after) > 25


@pytest.mark.parametrize("arguments", [["--batch", 1], ["--batch", 32, "--threads", 1]])
def test_the_same_file_however_it_is_run(folder, tmp_path, arguments):
    out = tmp_path / "statistics.npz"
    strata("calibrate", folder / "optimized.onnx", "--images", 12, "-o", out, *arguments)
    assert out.read_bytes() == (folder / "statistics.npz").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.npz"]


def test_shards_merge_into_the_same_file(folder, tmp_path):
    parts = [tmp_path / f"{i}.npz" for i in (1, 2, 3)]
    for i, part in enumerate(parts):
        strata("calibrate", folder / "optimized.onnx", "--images", 12,
               "--shard", f"{i + 1}/3", "-o", part)  # fmt: skip
    out = tmp_path / "statistics.npz"
    assert "12 images from 3 parts" in strata("merge", *parts[::-1], "-o", out)
    assert out.read_bytes() == (folder / "statistics.npz").read_bytes()
    again = strata("merge", parts[0], parts[0], "-o", tmp_path / "x.npz", code=2)
    assert "would count twice" in again
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("method", ["max", "percentile:99.9", "entropy"])
def test_methods_and_a_float16_rest(folder, tmp_path, method):
    out = strata(
        "quantize", folder / "optimized.onnx", "-o", tmp_path / "int8.onnx", "--float", "fp16",
        "--statistics", folder / "statistics.npz", "--method", method, "--json",
    )  # fmt: skip
    facts = json.loads(out)
    assert (facts["method"], facts["float"], facts["layers"]) == (method, "fp16", 10)


def test_float16(folder, tmp_path):
    strata("quantize", folder / "optimized.onnx", "--precision", "fp16", "-o", tmp_path / "h.onnx")
    assert card_of(load(tmp_path / "h.onnx")).stage == "fp16"
    assert not (tmp_path / "calibration.json").exists()


def test_trials_have_a_row_each_and_the_best_is_pointed_at(folder, tmp_path):
    words = [
        "quantize", folder / "optimized.onnx", "-o", tmp_path / "int8.onnx",
        "--statistics", folder / "statistics.npz", "--data", "fashion-mnist:train",
    ]  # fmt: skip
    tried = json.loads(strata(*words, "--json"))["tried"]
    text = strata(*words)
    rows = [line for line in text.splitlines() if " dB  " in line]
    assert [float(row.split(" dB  ")[0].split()[-1]) for row in rows] == [
        pytest.approx(decibels, abs=0.051) for decibels in tried.values()
    ]
    taken = [name for row, name in zip(rows, tried, strict=True) if row.endswith("<- taken")]
    assert taken == [max(tried, key=tried.get)]
    assert max(map(len, text.splitlines())) < 140


def test_an_edited_plan_and_an_edited_table(folder, tmp_path):
    plan = json.loads(strata("quantize", folder / "optimized.onnx", "--print-plan"))
    plan["weights"] = [w for w in plan["weights"] if w["tensor"] != "fc.weight"]
    plan["activations"] = [a for a in plan["activations"] if a["tensor"] != "flatten"]
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    common = ["quantize", folder / "optimized.onnx", "-o", tmp_path / "int8.onnx"]
    common += ["--plan", tmp_path / "plan.json"]
    strata(*common, "--statistics", folder / "statistics.npz", "--method", "mse")
    nodes = {node.name: node for node in load(tmp_path / "int8.onnx").graph.node}
    assert list(nodes["fc"].input) == ["flatten", "fc.weight", "fc.bias"]
    table = json.loads((tmp_path / "calibration.json").read_text())
    table["tensors"]["input"]["amax"] = 12.7
    (tmp_path / "calibration.json").write_text(json.dumps(table))
    strata(*common, "--table", tmp_path / "calibration.json")
    graph = load(tmp_path / "int8.onnx").graph
    (scale,) = (w for w in graph.initializer if w.name == "input.scale")
    assert scale.float_data or np.frombuffer(scale.raw_data, np.float32)[0] == np.float32(0.1)
    del table["tensors"]["maxpool"]
    (tmp_path / "calibration.json").write_text(json.dumps(table))
    out = strata(*common, "--table", tmp_path / "calibration.json", code=2)
    assert "no amax of 1 tensors to quantize, such as 'maxpool'" in out
    out = strata(*common, "--exclude", "fc", "--statistics", folder / "statistics.npz", code=2)
    assert "--plan together with" in out


def test_what_is_refused(folder, tmp_path):
    model, statistics = folder / "optimized.onnx", folder / "statistics.npz"
    other = tmp_path / "other.onnx"
    save(resnet((1,), size=32), other)
    out = tmp_path / "int8.onnx"
    for arguments, code, words in (
        (["quantize", model, "--statistics", tmp_path / "no.npz"], 2, "no.npz: cannot be read"),
        (["quantize", other, "--statistics", statistics], 2, "made from another model"),
        (["quantize", model, "--method", "best", "--statistics", statistics], 2, "method 'best'"),
        (["quantize", model, "--exclude", "zz", "--statistics", statistics], 2, "matches no layer"),
        (["quantize", tmp_path / "no.onnx"], 2, "no.onnx"),
        (["calibrate", other], 2, "no --data, and nothing says that this network"),
        (["calibrate", other, "--data", "fashion-mnist"], 2, "nothing says how to prepare images"),
        (["calibrate", model, "--data", "random"], 2, "random: noise, not images"),
        (["calibrate", model, "--data", "random:x", "--allow-synthetic"], 2, "no seed"),
        (["quantize", model, "--statistics", statistics, "--data", "random"], 2, "noise, not"),
        (["calibrate", model, "--images", 70000], 2, "70000 images asked"),
        (["calibrate", model, "--shard", "5/4"], 2, "5/4"),
        (["calibrate", model, "--preprocess", "imagenet-v2", "--images", 2], 2, "3×224×224"),
        (["merge", statistics, model, "-o", out], 2, "not a statistics file"),
    ):
        extra = [] if arguments[0] == "merge" else ["-o", out]
        assert words in strata(*arguments, *extra, code=code)
        assert not out.exists()


def test_an_overflow_names_tensor_and_image_and_leaves_no_file(folder, tmp_path):
    images = np.zeros((5, 3, 32, 32), np.float32)
    images[3] = 3e38  # finite, but what a convolution makes of it is not
    np.savez(tmp_path / "images.npz", images=images)
    out = strata("calibrate", folder / "optimized.onnx", "--data", tmp_path / "images.npz",
                 "--images", 5, "-o", tmp_path / "s.npz", code=4)  # fmt: skip
    assert "tensor 'maxpool': " in out
    assert "image 3" in out
    assert [path.name for path in tmp_path.iterdir()] == ["images.npz"]


def test_a_warning_says_what_is_wrong_with_the_input(folder, tmp_path):
    images = np.random.default_rng(0).uniform(size=(12, 3, 32, 32)).astype(np.float32)
    images[3] = images[5]
    images[4] = 0
    np.savez(tmp_path / "images.npz", images=images)
    model, out = folder / "optimized.onnx", tmp_path / "s.npz"
    data = ("calibrate", model, "--data", tmp_path / "images.npz", "--images", 12, "-o", out)
    result = CliRunner().invoke(cli, [*map(str, data), "--json"])
    lines = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    starts = ("the inputs lie in [0, 1] where", "neighbouring pixels", "1 of 12", "1 of 12", "11")
    assert len(lines) == len(starts)
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(f"warning: {start}"), line
    assert "images.npz: image 4" in lines[2]
    found = json.loads(result.stdout)["input"]
    assert [f"warning: {text}" for text in found["warnings"]] == lines
    strata("quantize", model, "--statistics", out, "-o", tmp_path / "int8.onnx")
    table = json.loads((tmp_path / "calibration.json").read_text())["input"]
    assert len(table["warnings"]) == 5
    assert table["mean"] == pytest.approx(found["mean"], rel=1e-3)
    assert card_of(load(tmp_path / "int8.onnx")).caveats == tuple(table["warnings"])
    given = CliRunner().invoke(cli, [*map(str, data), "--preprocess", "mean=0,std=1"])
    assert "where the network's preprocessing gives" not in given.stderr


def test_shards_keep_quiet_of_how_few_they_are(folder, tmp_path):
    model, parts = folder / "optimized.onnx", [tmp_path / "1.npz", tmp_path / "2.npz"]
    for i, part in enumerate(parts, 1):
        data = ("calibrate", model, "--images", 12, "--shard", f"{i}/2", "-o", part)
        assert CliRunner().invoke(cli, list(map(str, data))).stderr == ""
    merge = ["merge", *map(str, parts), "-o", str(tmp_path / "s.npz")]
    assert "12 different images are few" in CliRunner().invoke(cli, merge).stderr


def test_noise_has_to_be_allowed_and_is_carried_on(folder, tmp_path):
    model, out = folder / "optimized.onnx", tmp_path / "s.npz"
    data = ["calibrate", model, "--data", "random:3", "--images", 12, "-o", out]
    assert "--allow-synthetic" in strata(*data, code=2)
    assert not out.exists()
    result = CliRunner().invoke(cli, [*map(str, data), "--allow-synthetic"])
    assert result.exit_code == 0
    assert "warning: calibrated with random:3, which is noise" in result.stderr
    strata("quantize", model, "--statistics", out, "-o", tmp_path / "int8.onnx")
    table = json.loads((tmp_path / "calibration.json").read_text())
    assert table["input"]["synthetic"] == "random:3"
    card = card_of(load(tmp_path / "int8.onnx"))
    assert card.synthetic == "random:3"
    assert "noise" in card.caveats[0]
    again = tmp_path / "again"  # from the table in place of the statistics
    strata("quantize", model, "--table", tmp_path / "calibration.json", "-o", again / "int8.onnx")
    assert card_of(load(again / "int8.onnx")).synthetic == "random:3"


def test_biases_are_corrected_where_that_is_asked_for(folder, tmp_path):
    model, statistics = folder / "optimized.onnx", folder / "statistics.npz"

    def biases(*words):
        out = tmp_path / "int8.onnx"
        facts = json.loads(strata("quantize", model, "-o", out, "--json", *words))
        net = load(out)
        arrays = {i.name: numpy_helper.to_array(i) for i in net.graph.initializer}
        return facts, [arrays[n.input[2]] for n in net.graph.node if n.op_type in ("Conv", "Gemm")]

    by = ("--statistics", statistics)
    plain, before = biases(*by, "--method", "mse")
    corrected, after = biases(*by, "--method", "mse", "--correct-biases")
    assert (plain["corrected"], corrected["corrected"]) == (0, 9)  # not the stem: it reads pixels
    assert corrected["method"] == "mse, biases corrected"
    moved = [bool(np.any(a != b)) for a, b in zip(before, after, strict=True)]
    assert moved == [False] + [True] * 9
    table = tmp_path / "calibration.json"
    _, again = biases(*by, "--table", table, "--correct-biases")
    assert all(np.array_equal(a, b) for a, b in zip(after, again, strict=True))
    other = tmp_path / "other.npz"
    strata("calibrate", model, "--images", 9, "-o", other)
    text = strata("quantize", model, "--statistics", other, "--table", table,
                  "--correct-biases", code=2)  # fmt: skip
    assert "made from other statistics" in text


@pytest.mark.parametrize("command", ["calibrate", "quantize"])
def test_without_onnx_the_library_is_named(command, folder):
    without = "import sys; sys.modules['onnx'] = None; from deploy.cli import main; main()"
    arguments = [sys.executable, "-c", without, command, str(folder / "optimized.onnx")]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 3, done.stderr
    assert "ing needs a library that is not here" in done.stderr
    assert "strata[export]" in done.stderr
