"""`strata triton --check`: a table of wrong repositories, each made of a right one."""

import json
import shutil

import pytest
from click.testing import CliRunner
from refusal import refused
from triton_bundles import bundle, manifest, shapes

from deploy.cli import cli
from deploy.engines.manifest import Binding
from deploy.triton.check import check_model, check_repository


def strata(*arguments):
    return CliRunner().invoke(cli, ["triton", *map(str, arguments)])


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """Two models: plans for two GPUs, and the graph with ONNX Runtime's TensorRT."""
    root = tmp_path_factory.mktemp("right")
    path = bundle(root / "net.strata.zip", [("sm86", {}), ("sm89", {})])
    assert strata(path, "-o", root / "models", "--name", "plan").exit_code == 0
    more = ("--name", "graph", "--backend", "onnxruntime", "--accelerate")
    assert strata(path, "-o", root / "models", *more).exit_code == 0
    return root / "models"


@pytest.fixture
def models(right, tmp_path):
    shutil.copytree(right, tmp_path / "models")
    return tmp_path / "models"


def edit(folder, old, new):
    path = folder / "config.pbtxt"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def problems(folder):
    return [(problem.where, problem.what) for problem in check_model(folder).problems]


def test_what_we_write_is_right(right):
    plan, graph = reversed(check_repository(right))
    assert (plan.name, plan.backend, plan.versions) == ("plan", "tensorrt", ("1",))
    assert (graph.name, graph.backend) == ("graph", "onnxruntime")
    assert plan.problems == graph.problems == plan.notes == graph.notes == ()
    done = strata("--check", right)
    assert done.exit_code == 0
    assert "plan: tensorrt, versions 1: no problems" in done.stdout


# What is changed in which model → where, and what is said.
TEXTS = [
    ("plan", 'name: "plan"', 'name: "net"', "name: 'net' is not the folder's"),
    ("plan", 'platform: "tensorrt_plan"', "", "neither a platform nor a backend"),
    ("plan", "max_batch_size: 16", "max_batch_size: 32", "takes 16 images at most"),
    ("plan", "max_batch_size: 16", "max_batch_size: -1", "-1 is below 0"),
    ("plan", "max_batch_size: 16", "max_batch_size: 0", "[3, 16, 16], but [-1, 3, 16, 16]"),
    ("plan", "max_batch_size: 16", "max_batch: 16", "max_batch: Triton knows no such field"),
    ("plan", "max_batch_size: 16", 'max_batch_size: "16"', "is not a whole number"),
    ("plan", "max_batch_size: 16", "max_batch_size: 16 {", "not protobuf's text format"),
    ("plan", 'name: "input"', 'name: "image"', "input 'image' is not in 1/model_sm86.plan"),
    ("plan", 'name: "input"', 'name: "image"', "input 'input' of 1/model_sm86.plan is not there"),
    ("plan", 'name: "logits"', 'name: "probabilities"', "output 'probabilities' is not in"),
    ("plan", 'name: "logits"', 'name: ""', "an output has no name"),
    ("plan", "dims: [3, 16, 16]", "dims: [3, 224, 224]", "has dims [3, 224, 224], but [3, 16, 16]"),
    ("plan", "dims: [3, 16, 16]", "dims: [16, 16, 3]", "has dims [16, 16, 3]"),
    ("plan", "dims: [3, 16, 16]", "dims: [768]", "has dims [768]"),
    ("plan", "dims: [3, 16, 16]", "dims: []", "input 'input': dims []"),
    ("plan", "dims: [3, 16, 16]", "dims: [3, 0, 16]", "input 'input': dims [3, 0, 16]"),
    ("plan", "TYPE_FP32", "TYPE_FP16", "'input' is TYPE_FP16, but TYPE_FP32 in"),
    ("plan", "TYPE_FP32", "TYPE_FLOAT", "input 'input': TYPE_FLOAT data_type"),
    ("plan", "dims: [10]", "dims: [11]", "'logits' has dims [11], but [10] behind the batch"),
    ("plan", "output {", 'output { name: "logits" data_type: TYPE_FP32 dims: [10] }\noutput {',
     "output 'logits' is there twice"),
    ("plan", "labels.txt", "names.txt", "is named by label_filename and is not there"),
    ("plan", '"8.6"', '"sm86"', "'sm86' is no compute capability"),
    ("plan", '"8.6"', '"7.5"', "is for sm86, and cc_model_filenames gives it to 7.5"),
    ("plan", "model_sm89.plan", "model_sm90.plan", "is not there"),
    ("plan", "model_sm89.plan", "../1/model_sm89.plan", "is no file name"),
    ("plan", "[8, 16]", "[8, 32]", "preferred_batch_size 32 is not 1 to 16"),
    ("plan", "microseconds: 500", "microseconds: -1", "max_queue_delay_microseconds is below 0"),
    ("plan", "KIND_GPU", "KIND_CPU", "a plan of TensorRT on KIND_CPU"),
    ("plan", "KIND_GPU", "KIND_TPU", "kind: KIND_TPU"),
    ("plan", "count: 1", "count: 0", "count is below 1"),
    ("plan", "kind: KIND_GPU", 'kind: KIND_GPU profile: "1"', "profile 1: 1/model_sm86.plan has 1"),
    ("plan", "kind: KIND_GPU", 'kind: KIND_GPU profile: "a"', "profile 'a'"),
    ("plan", "kind: KIND_GPU", 'kind: KIND_GPU profile: "' + "9" * 5000 + '"', "profile '99"),
    ("plan", "batch_size: 8", "batch_size: 17", "batch_size 17 is not 1 to 16"),
    ("plan", "zero_data: true", "", "warm-up of 'input': no data"),
    ("plan", "zero_data: true", 'input_data_file: "x.bin"', "is not there"),
    ("plan", "zero_data: true", "zero_data: true random_data: true", "zero_data and random_data"),
    ("plan", 'key: "input"', 'key: "image"', "inputs: no 'input'"),
    ("plan", 'key: "input"', 'key: "image"', "inputs: 'image' is no input"),
    ("plan", "latest {\n    num_versions: 1", "specific {\n    versions: 2", "names version 2"),
    ("plan", "version_policy", "optimization { execution_accelerators {} }\nversion_policy",
     "execution_accelerators of a plan"),
    ("plan", "dynamic_batching {", "sequence_batching {}\ndynamic_batching {",
     "dynamic_batching and sequence_batching"),
    ("graph", "dynamic_batching {", "ensemble_scheduling {}\ndynamic_batching {",
     "dynamic_batching and ensemble_scheduling"),
    ("plan", "microseconds: 500", "microseconds: 18446744073709551616", "18446744073709551616 is "),
    ("graph", "max_batch_size: 16", "max_batch_size: 2147483648", "2147483648 is more than"),
    ("plan", "dims: [3, 16, 16]", "dims: [9223372036854775808, 16, 16]", "9223372036854775808 is"),
    ("plan", "microseconds: 500", "microseconds: 500 priority_levels: 2",
     "default_priority_level 0 is not 1 to 2"),
    ("plan", "microseconds: 500",
     "microseconds: 500 priority_levels: 2 default_priority_level: 3",
     "default_priority_level 3 is not 1 to 2"),
    ("plan", "dims: [10]", "dims: [10] reshape { shape: [3] }", "[10] cannot be reshaped to [3]"),
    ("plan", "dims: [10]", "dims: [5, 2] reshape { shape: [1, 10] }", "has dims [1, 10], but [10]"),
    ("plan", 'platform: "tensorrt_plan"', 'platform: "tensorrt"', "platform: 'tensorrt' is none"),
    ("graph", 'platform: "onnxruntime_onnx"', 'platform: "onnxruntime_onnx" backend: "python"',
     "platform: 'onnxruntime_onnx' is not of backend 'python'"),
    ("plan", 'platform: "tensorrt_plan"', 'platform: "plan" backend: "tensorrt"',
     "platform: 'plan' is not of backend 'tensorrt'"),
    ("graph", "KIND_GPU", "KIND_CPU gpus: [0]", "gpus are named for KIND_CPU"),
    ("graph", "kind: KIND_GPU", 'kind: KIND_GPU profile: "0"', "profile '0'"),
    ("graph", 'value: "INT8"', 'value: "int8"', "precision_mode 'int8'"),
    ("graph", 'value: "INT8"', 'value: "FP16"', "precision_mode FP16 of a graph with Q/DQ"),
    ("graph", "trt_engine_cache_path", "int8_calibration_table_name", "a calibration table"),
    ("graph", 'default_model_filename: "model.onnx"',
     'cc_model_filenames { key: "8.6" value: "model.onnx" }', "an ONNX file is for every GPU"),
    ("graph", '"model.onnx"', '"net.onnx"', "is not there"),
    ("graph", "dims: [3, 16, 16]", "dims: [1, 16, 16]", "has dims [1, 16, 16]"),
]  # fmt: skip


@pytest.mark.parametrize(("model", "old", "new", "said"), TEXTS)
def test_a_wrong_configuration_is_refused(model, old, new, said, models):
    edit(models / model, old, new)
    found = problems(models / model)
    assert any(said in what for _, what in found), found
    done = strata("--check", models)
    assert done.exit_code == 5
    assert "way out: " in done.stdout
    assert "Traceback" not in done.output


def test_free_sizes_are_no_difference(models):
    edit(models / "graph", "dims: [3, 16, 16]", "dims: [3, -1, -1]")
    assert problems(models / "graph") == []


def test_a_reshape_to_what_the_file_takes_is_right(models):
    edit(models / "plan", "dims: [3, 16, 16]", "dims: [768] reshape { shape: [3, 16, 16] }")
    edit(models / "plan", "dims: [3, 16, 16]", "dims: [768]")  # that of the warm-up
    edit(models / "plan", "dims: [3, 16, 16]", "dims: [768]")
    edit(models / "plan", "dims: [10]", "dims: [-1] reshape { shape: [10] }")
    assert problems(models / "plan") == []


def test_a_platform_and_its_backend_go_together(models):
    platform = 'platform: "onnxruntime_onnx"'
    edit(models / "graph", platform, f'{platform} backend: "onnxruntime"')
    assert problems(models / "graph") == []


def test_a_warm_up_needs_a_size(models):
    edit(models / "graph", "dims: [3, 16, 16]", "dims: [3, -1, -1]")
    edit(models / "graph", "dims: [3, 16, 16]", "dims: [3, -1, -1]")  # that of the warm-up
    ((where, what),) = problems(models / "graph")
    assert where == "config.pbtxt"
    assert "warm-up of 'input': dims [3, -1, -1]" in what


def test_a_default_file_is_taken_by_its_usual_name(models):
    edit(models / "graph", 'default_model_filename: "model.onnx"', "")
    assert problems(models / "graph") == []
    edit(models / "graph", 'platform: "onnxruntime_onnx"', 'backend: "onnxruntime"')
    assert problems(models / "graph") == []


def move(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def write(name, data):
    def change(folder):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)

    return change


def rtx(folder):
    (folder / "1" / "model_sm86.plan").write_bytes(b"vtrt" * 40)


def another_version(folder):
    plan = folder / "1" / "model_sm89.plan"
    said = manifest("sm89", plan=plan.read_bytes(), version="10.3.0.30")
    (plan.parent / f"{plan.name}.json").write_text(said.to_text())


def fixed(folder):
    plan = folder / "1" / "model_sm89.plan"
    said = manifest(
        "sm89",
        plan=plan.read_bytes(),
        inputs=(Binding("input", "float32", (16, 3, 16, 16)),),
        outputs=(Binding("logits", "float32", (16, 10)),),
    )
    (plan.parent / f"{plan.name}.json").write_text(said.to_text())


def eight(folder):
    plan = folder / "1" / "model_sm89.plan"
    said = manifest("sm89", plan=plan.read_bytes(), profiles=({"input": shapes(8, 8, 16)},))
    (plan.parent / f"{plan.name}.json").write_text(said.to_text())


def stripped(folder):
    plan = folder / "1" / "model_sm89.plan"
    said = manifest("sm89", plan=plan.read_bytes(), options={"weights": "stripped"})
    (plan.parent / f"{plan.name}.json").write_text(said.to_text())


@pytest.mark.parametrize(
    ("model", "change", "where", "said"),
    [
        ("plan", move("1", "v1"), "v1", "is no version"),
        ("plan", move("1", "01"), "", "holds no version"),
        ("plan", move("1/model_sm89.plan", "1/x"), "1/model_sm89.plan", "is not there"),
        ("plan", write("1/model_sm86.plan", b"ftrt other"), "1/model_sm86.plan", "its bytes are"),
        ("plan", write("1/model_sm86.plan.json", b"{}"), "1/model_sm86.plan", "schema is missing"),
        ("plan", rtx, "1/model_sm86.plan", "Triton has no backend for that"),
        ("plan", stripped, "1/model_sm89.plan", "built without its weights"),
        ("plan", another_version, "", "of TensorRT 10.3.0.30 and 10.9.0.34; a server has one"),
        ("plan", fixed, "config.pbtxt", "but the batch of 1/model_sm89.plan is fixed"),
        ("plan", eight, "config.pbtxt", "1/model_sm89.plan takes 8 images or more"),
        (
            "plan",
            write("labels.txt", b"one\n"),
            "labels.txt",
            "1 labels for 10 classes of 'logits'",
        ),
        ("plan", write("labels.txt", b"one\n\n" * 5), "labels.txt", "holds an empty label"),
        ("plan", move("config.pbtxt", "config.txt"), "config.pbtxt", "cannot be read"),
        ("plan", write("config.pbtxt", b"\xff"), "config.pbtxt", "not UTF-8"),
        ("graph", write("1/model.onnx", b"\x08"), "1/model.onnx", "not an ONNX model"),
        ("graph", write("2/readme", b"x"), "2/model.onnx", "is not there"),
    ],
)
def test_wrong_files_are_refused(model, change, where, said, models):
    change(models / model)
    found = problems(models / model)
    assert any(at == where and said in what for at, what in found), found
    assert strata("--check", models).exit_code == 5


def test_what_cannot_be_checked_is_said(models):
    (models / "plan" / "1" / "model_sm86.plan.json").unlink()
    checked = check_model(models / "plan")
    assert checked.problems == ()
    assert checked.notes == (
        "plan/1/model_sm86.plan: no manifest beside it; what it takes was not checked",
    )
    (models / "other" / "1").mkdir(parents=True)
    (models / "other" / "config.pbtxt").write_text('backend: "python"')
    checked = check_model(models / "other")
    assert checked.problems == ()
    assert "backend python, of which nothing is known here" in checked.notes[0]
    assert strata("--check", models).exit_code == 0


def test_it_is_told_as_json(models):
    edit(models / "plan", "[8, 16]", "[8, 32]")
    done = strata("--check", models, "--json")
    assert done.exit_code == 5
    found = json.loads(done.stdout)
    assert found["schema"] == "strata.triton_check/1"
    graph, plan = found["models"]
    assert graph["problems"] == []
    (problem,) = plan["problems"]
    assert problem["where"] == "config.pbtxt"
    assert problem["way_out"]


def test_a_model_is_no_repository(models):
    empty = models / "empty"
    empty.mkdir()
    refused(lambda: check_repository(empty), "holds no model folder", hint="-o REPOSITORY")
    refused(lambda: check_repository(models / "plan"), "folder of a model", hint="models")
    done = strata("--check", models / "none")
    assert done.exit_code == 2
    assert "cannot be read" in done.stderr
