"""Summing up a folder: what is told, what is missing, and what does not belong together."""

import json
import math
import re
import subprocess
import sys

import pytest
from click.testing import CliRunner
from refusal import refused
from tiny_nets import SPEC, resnet, with_qdq

from core.artifacts import sha256_file
from deploy.cli import cli
from deploy.comparison.output.layers_json import write_report
from deploy.comparison.values.measures import Cell, Errors, Made, Status
from deploy.comparison.values.report import Report, Row, Subject
from deploy.comparison.values.verdict import Blame, Bounds, Reason, Verdict
from deploy.engines.manifest import Binding, Manifest, ShapeRange
from deploy.evaluation.accuracy import Accuracy, Answers, Changed, write_accuracy
from deploy.images import DataRecord
from deploy.summaries.summary import read_summary
from exporter.onnx_file import Card, save
from exporter.quantization.table import CalibrationTable, TensorAmax

DATA = DataRecord("fashion-mnist:test", "d" * 64, 10000, SPEC.to_json())
WEIGHTS = {
    "name": "fashion-mnist",
    "sha256": "e" * 64,
    "top1": "0.8841",
    "top1_of": "10000 images of fashion-mnist:test",
}


def fill(folder):
    """Make every artifact there is, each with the digests of those it was made from."""
    sha = {}

    def onnx(name, model, **card):
        save(model, folder / name, Card(preprocess=SPEC, weights=WEIGHTS, **card))
        sha[name] = sha256_file(folder / name)

    onnx("model.onnx", resnet(), stage="model")
    onnx("optimized.onnx", resnet(), stage="optimized", parents={"model": sha["model.onnx"]})
    (folder / "statistics.npz").write_bytes(b"statistics")
    statistics = sha256_file(folder / "statistics.npz")
    choice = TensorAmax(6.0, "mse", "relu", 0.0, 40.0)
    table = CalibrationTable(
        sha["optimized.onnx"], statistics, "auto", "", 512, "c" * 64, {"relu": choice}
    )
    table.write(folder / "calibration.json")
    parents = {
        "model": sha["optimized.onnx"],
        "statistics": statistics,
        "calibration": sha256_file(folder / "calibration.json"),
    }
    caveats = {"synthetic": "random:0", "caveats": ("calibrated with noise",)}
    onnx("int8.onnx", with_qdq(resnet()), stage="int8", parents=parents, **caveats)
    engine(folder, sha["int8.onnx"])
    layers(folder, sha)
    accuracy(folder, sha)
    (folder / ".times").mkdir()
    for stage, text in {"train": "240.5\n", "export": "12.345\n", "build": "?\n"}.items():
        (folder / ".times" / stage).write_text(text)
    return folder


def engine(folder, parent):
    plan = folder / "int8.engine"
    plan.write_bytes(bytes(2_500_000))
    manifest = Manifest(
        plan="int8.engine",
        plan_bytes=2_500_000,
        plan_sha256=sha256_file(plan),
        flavour="rtx",
        version="1.7.1.116",
        platform="linux-x86_64",
        targets=("sm86", "sm89"),
        inputs=(Binding("input", "float32", (-1, 3, 16, 16)),),
        outputs=(Binding("logits", "float32", (-1, 10)),),
        profiles=({"input": ShapeRange((1, 3, 16, 16), (8, 3, 16, 16), (32, 3, 16, 16))},),
        layers={"Conv": {"int8": ("conv1", "layer1.0.conv1")}, "Gemm": {"float32": ("logits",)}},
        parents={"onnx": parent},
        options={},
    )
    (folder / "int8.engine.json").write_text(manifest.to_text())


def layers(folder, sha, verdict=None):
    made = Made("n", "Conv", "float32", ("N", 8, 4, 4))
    rows = [
        Row(
            n,
            "layer1",
            (made, made),
            (Cell(Status.COMPARED, None, Errors(20.0 + k, 1, 1), Errors(own, 1, 1)),),
        )
        for k, (n, own) in enumerate([("a", 30.0), ("b", 25.0), ("c", math.inf)])
    ]
    subjects = tuple(
        Subject(name, file=name, sha256=sha[name], stage="", backend="ONNX Runtime", file_bytes=1)
        for name in ("optimized.onnx", "int8.onnx")
    )
    report = Report(subjects, DATA, tuple(rows), Bounds(), (verdict or Verdict(),))
    write_report(report, folder / "layers.json")


def accuracy(folder, sha):
    models = (
        Answers("optimized.onnx", sha["optimized.onnx"], "onnxruntime", 8841, 9975, 0.34),
        Answers("int8.onnx", sha["int8.onnx"], "onnxruntime", 8838, 9974, 0.35, Changed(31, 38.25)),
        Answers("torch:w.safetensors", "9" * 64, "torch", 8841, 9975, 0.34, Changed(0, 120.0)),
    )
    write_accuracy(Accuracy(DATA, models), folder / "accuracy.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("resnet"))


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path)


def run(*arguments):
    return CliRunner().invoke(cli, ["summary", *map(str, arguments)])


def test_it_tells_what_a_person_wants_to_know(whole):
    done = run(whole)
    assert done.exit_code == 0, done.output
    text = done.stdout
    for part in [
        str(whole.name),
        "fashion-mnist, top-1 88.41 % of 10000 images of fashion-mnist:test in PyTorch",
        "on 512 images (sha256 cccccccccccc…), 1 tensors by auto",
        "caution calibrated with noise",
        "on 10,000 images of fashion-mnist:test",
        "TensorRT-RTX 1.7.1.116, 2.5 MB",
        "sm86, sm89",
        "1–32, tuned for 8",
        "2 in INT8, 1 in FP32",
        "runs on a GPU",
        "int8.onnx against optimized.onnx, 3 tensors on 10000 images",
    ]:
        assert re.sub(r"\s+", " ", part) in re.sub(r"\s+", " ", text), part
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert not any(line.endswith(" ") for line in lines)
    assert "\x1b" not in text

    words = [line.split() for line in lines]

    def row(name):
        return next(line for line in words if line[:1] == [name])

    assert " ".join(row("int8.onnx")) == "int8.onnx 88.38 % 99.74 % 0.3500 31 (0.31 %) 38.25"
    assert row("b")[-2:] == ["21.00", "25.00"]
    assert words.index(row("b")) < words.index(row("a"))
    assert row("export")[-2:] == ["12.3", "s"]
    assert row("train") == ["train", "240.5", "s"]
    assert row("build")[-1] == "–"


def test_a_layer_at_fault_is_told_last_and_fails(folder):
    sha = {name: sha256_file(folder / name) for name in ("optimized.onnx", "int8.onnx")}
    blame = Blame("b", "layer1.b", Reason.CLIPPING, 12.0, "amax 1 is too small", "calibrate again")
    layers(folder, sha, Verdict("b", (blame,)))
    done = run(folder)
    assert done.exit_code == 7
    assert "Accuracy" in done.stdout
    assert "b: clipping: amax 1 is too small" in done.stderr
    assert "calibrate again" in done.stderr


def test_it_is_wide_and_coloured_on_a_terminal_alone(whole):
    env = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "200"}
    done = CliRunner().invoke(cli, ["summary", str(whole)], env=env, color=True)
    assert "\x1b[" in done.stdout
    plain = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)
    assert max(map(len, plain.splitlines())) <= 100


def test_as_json(whole):
    value = json.loads(run(whole, "--json").stdout)
    assert value["schema"] == "strata.summary/1"
    assert value["weights"] == WEIGHTS
    assert (value["synthetic"], value["caveats"]) == ("random:0", ["calibrated with noise"])
    assert value["accuracy"]["models"][1]["changed"] == {"answers": 31, "sqnr_db": 38.25}
    assert [row["tensor"] for row in value["layers"]["worst"]] == ["b", "a", "c"]
    assert value["layers"]["worst"][2]["own_db"] == "Infinity"
    assert value["engines"]["int8.engine"]["targets"] == ["sm86", "sm89"]
    assert value["stages"][1] == {
        "stage": "export",
        "files": {"model.onnx": (whole / "model.onnx").stat().st_size},
        "seconds": 12.345,
    }


@pytest.mark.parametrize(
    ("gone", "text"),
    [
        (["accuracy.json"], "not made: accuracy.json"),
        (["layers.json"], "not made: layers.json"),
        (["int8.engine", "int8.engine.json"], "not made: an engine"),
        (["statistics.npz", "model.onnx"], "not made"),
    ],
)
def test_what_is_missing_is_said(folder, gone, text):
    for name in gone:
        (folder / name).unlink()
    done = run(folder)
    assert done.exit_code == 0, done.output
    assert text in done.stdout


def test_a_folder_with_one_file_of_ours_is_summed_up(tmp_path):
    save(resnet(), tmp_path / "model.onnx")
    done = run(tmp_path)
    assert done.exit_code == 0
    assert "unknown" in done.stdout
    assert run(tmp_path, "--json").exit_code == 0


CHANGES = {
    "model.onnx": ("optimized.onnx", "another model"),
    "optimized.onnx": ("calibration.json", "another model"),
    "statistics.npz": ("calibration.json", "another statistics"),
    "calibration.json": ("int8.onnx", "another calibration"),
    "int8.onnx": ("int8.engine.json", "another ONNX file"),
}


@pytest.mark.parametrize("changed", CHANGES)
def test_a_stale_artifact_is_refused_and_named(folder, changed):
    child, text = CHANGES[changed]
    path = folder / changed
    if path.suffix == ".json":
        path.write_text(path.read_text().replace('"auto"', '"max"'))
    elif path.suffix == ".onnx":
        model = resnet(width=4)
        save(model, path, Card(preprocess=SPEC, parents=parents_of(path)))
    else:
        path.write_bytes(b"others")
    error = refused(lambda: read_summary(folder), child, text, hint="again")
    assert changed in error.problem
    assert run(folder).exit_code == 2


def parents_of(path):
    from exporter.onnx_file import card_of, load

    return card_of(load(path)).parents


@pytest.mark.parametrize("name", ["layers.json", "accuracy.json"])
def test_a_result_of_another_network_is_refused(folder, name):
    path = folder / name
    digest = sha256_file(folder / "int8.onnx")
    path.write_text(path.read_text().replace(digest, "7" * 64))
    refused(lambda: read_summary(folder), name, "777777777777…", "int8.onnx", hint="again")
    path.write_text(path.read_text().replace("int8.onnx", "other.onnx"))
    refused(lambda: read_summary(folder), name, "other.onnx", "not in", hint="again")


def test_a_result_cannot_name_a_file_outside(folder):
    path = folder / "layers.json"
    path.write_text(path.read_text().replace("int8.onnx", "../../etc/passwd"))
    refused(lambda: read_summary(folder), "layers.json", "not in")


def test_a_changed_plan_is_refused(folder):
    plan = folder / "int8.engine"
    plan.write_bytes(b"x" + plan.read_bytes()[1:])
    refused(lambda: read_summary(folder), "int8.engine", hint="build")


def test_no_folder_and_an_empty_one(tmp_path):
    refused(lambda: read_summary(tmp_path / "no"), "no such folder", hint="make export")
    refused(lambda: read_summary(tmp_path), "nothing that Strata makes", hint="make export")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    refused(lambda: read_summary(tmp_path), "model.onnx")


def test_names_cannot_write_on_the_terminal(folder):
    path = folder / "layers.json"
    path.write_text(path.read_text().replace('"tensor": "b"', '"tensor": "[red]\\u001b[2Jb"'))
    text = run(folder).stdout
    assert "\x1b" not in text
    assert "[red]�[2Jb" in text


def test_it_imports_no_framework(whole):
    code = (
        "import sys; from deploy.cli import cli\n"
        f"cli(['summary', {str(whole)!r}], standalone_mode=False)\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'tensorrt', 'tensorrt_rtx'} & set(sys.modules)\n"
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
