"""`strata triton`: what is written, held against tritonclient's protobuf and against the engine."""

import json
import re
import shutil

import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import text_format
from tiny_nets import SPEC, resnet
from triton_bundles import NAMES, bundle, shapes
from tritonclient.grpc import model_config_pb2
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from calib_data.preprocess import PreprocessSpec
from core.artifacts import sha256_file
from deploy.cli import cli
from deploy.engines.manifest import Binding, read_manifest
from deploy.triton.check import check_repository
from deploy.triton.cluster import Cluster, kserve_text
from exporter.onnx_file import Card


def triton(*arguments):
    return CliRunner().invoke(cli, ["triton", *map(str, arguments)])


def written(path, *arguments, repository=None):
    """Write a bundle into a repository; return its configuration, and its folder."""
    repository = repository or path.parent / "models"
    done = triton(path, "-o", repository, *arguments)
    assert done.exit_code == 0, done.output
    name = re.match(r"(\S+): by", done.stdout)[1].rpartition("/")[2]
    text = (repository / name / "config.pbtxt").read_text()
    return text_format.Parse(text, ModelConfig()), repository / name


def test_a_plan_is_served_as_it_is(tmp_path):
    config, folder = written(bundle(tmp_path / "net.strata.zip"))
    assert config.name == folder.name == "net"
    assert config.platform == "tensorrt_plan"
    assert config.max_batch_size == 16
    manifest = read_manifest(folder / "1" / "model_sm86.plan")
    for said, there in ((config.input, manifest.inputs), (config.output, manifest.outputs)):
        assert [tensor.name for tensor in said] == [tensor.name for tensor in there]
        assert [tuple(tensor.dims) for tensor in said] == [t.shape[1:] for t in there]
        assert {tensor.data_type for tensor in said} == {model_config_pb2.TYPE_FP32}
    assert dict(config.cc_model_filenames) == {"8.6": "model_sm86.plan"}
    assert config.default_model_filename == ""  # no other GPU gets this plan
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 16]
    assert config.dynamic_batching.max_queue_delay_microseconds == 500
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, ModelInstanceGroup.KIND_GPU)
    assert [sample.batch_size for sample in config.model_warmup] == [1, 8]
    assert all(s.inputs["input"].zero_data for s in config.model_warmup)
    assert list(config.model_warmup[0].inputs["input"].dims) == [3, 16, 16]
    assert config.output[0].label_filename == "labels.txt"
    assert (folder / "labels.txt").read_text().splitlines() == list(NAMES)
    assert config.parameters["strata.tensorrt"].string_value == "10.9.0.34"
    spec = config.parameters["strata.preprocess"].string_value
    assert PreprocessSpec.from_json(spec, where="server") == SPEC
    assert sha256_file(folder / "1" / "model_sm86.plan") == manifest.plan_sha256


def test_one_plan_for_each_compute_capability(tmp_path):
    path = bundle(tmp_path / "net.strata.zip", [("sm80", {}), ("sm86", {}), ("sm120", {})])
    config, folder = written(path)
    assert dict(config.cc_model_filenames) == {
        "8.0": "model_sm80.plan",
        "8.6": "model_sm86.plan",
        "12.0": "model_sm120.plan",
    }
    assert sorted(p.name for p in (folder / "1").iterdir()) == sorted(
        f"model_{gpu}.plan{end}" for gpu in ("sm80", "sm86", "sm120") for end in ("", ".json")
    )


def test_the_graph_is_served_by_onnx_runtime(tmp_path):
    path = bundle(tmp_path / "net.strata.zip")
    config, folder = written(path, "--backend", "onnxruntime", "--instances", 2, "--kind", "cpu")
    assert config.platform == "onnxruntime_onnx"
    assert config.max_batch_size == 16  # that of the bundle's plan
    assert config.default_model_filename == "model.onnx"
    assert list(config.input[0].dims) == [3, 16, 16]  # free in the graph, said by its preprocessing
    assert list(config.dynamic_batching.preferred_batch_size) == []
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, ModelInstanceGroup.KIND_CPU)
    assert (folder / "1" / "model.onnx").read_bytes() == path.with_suffix(".onnx").read_bytes()


def test_onnx_runtime_builds_its_own_plan_on_the_server(tmp_path):
    path = bundle(tmp_path / "net.strata.zip")
    config, _ = written(path, "--backend", "onnxruntime", "--accelerate")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.name == "tensorrt"
    assert accelerator.parameters["precision_mode"] == "INT8"  # the graph has Q/DQ
    shapes = [accelerator.parameters[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")]
    assert shapes == ["input:1x3x16x16", "input:8x3x16x16", "input:16x3x16x16"]
    plain = bundle(tmp_path / "fp32.strata.zip", [], model=resnet(), card=Card(SPEC, NAMES))
    config, _ = written(plain, "--accelerate")
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["precision_mode"] == "FP32"


def test_a_bundle_without_a_plan_is_served_by_onnx_runtime(tmp_path):
    done = triton(bundle(tmp_path / "net.strata.zip", []), "-o", tmp_path / "models")
    assert done.exit_code == 0, done.output
    assert "by ONNX Runtime, batches of up to 32" in done.stdout
    assert "holds no plan" in done.stderr


def test_the_users_wishes(tmp_path):
    path = bundle(tmp_path / "net.strata.zip")
    config, folder = written(path, "--name", "r18.v2", "--max-batch", 8, "--delay-us", 0)
    assert config.name == folder.name == "r18.v2"
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [8]
    config, _ = written(path, "--name", "single", "--max-batch", 1)
    assert not config.HasField("dynamic_batching")
    assert [sample.batch_size for sample in config.model_warmup] == [1]


def test_every_profile_of_a_plan_is_served(tmp_path):
    two = ({"input": shapes(1, 1, 1)}, {"input": shapes(2, 8, 32)})
    config, _ = written(bundle(tmp_path / "net.strata.zip", [("sm86", {"profiles": two})]))
    assert config.max_batch_size == 32
    assert list(config.instance_group[0].profile) == ["0", "1"]
    assert list(config.dynamic_batching.preferred_batch_size) == [8, 32]


def test_a_plan_for_other_gpus_too_is_the_default(tmp_path):
    wide = {"options": {"hardware_compatibility": "ampere_plus"}}
    path = bundle(tmp_path / "net.strata.zip", [("sm80", wide), ("sm89", {})])
    config, _ = written(path)
    assert config.default_model_filename == "model_sm80.plan"
    assert dict(config.cc_model_filenames) == {"8.0": "model_sm80.plan", "8.9": "model_sm89.plan"}


def test_a_plan_with_its_own_runtime_must_be_allowed(tmp_path):
    path = bundle(
        tmp_path / "net.strata.zip", [("sm86", {"options": {"version_compatible": True}})]
    )
    done = triton(path, "-o", tmp_path / "models")
    assert "bring a runtime of their own" in done.stderr
    flag = "--backend-config=tensorrt,version-compatible=true"
    kserve = yaml.safe_load((tmp_path / "net.kserve.yaml").read_text())
    assert kserve["spec"]["predictor"]["model"]["args"] == [flag]
    deployment, *_ = yaml.safe_load_all((tmp_path / "net.kubernetes.yaml").read_text())
    assert flag in deployment["spec"]["template"]["spec"]["containers"][0]["args"]


def test_a_fixed_batch_is_served_without_batching(tmp_path):
    fixed = {
        "inputs": (Binding("input", "float16", (4, 3, 16, 16)),),
        "outputs": (Binding("logits", "float16", (4, 10)),),
        "profiles": ({"input": shapes(4, 4, 4)},),
    }
    config, folder = written(bundle(tmp_path / "net.strata.zip", [("sm86", fixed)]))
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [4, 3, 16, 16]
    assert config.input[0].data_type == model_config_pb2.TYPE_FP16
    assert list(config.output[0].dims) == [4, 10]
    assert not config.HasField("dynamic_batching")
    assert check_repository(folder.parent)[0].problems == ()


def test_labels_only_where_they_are_those_of_the_classes(tmp_path):
    config, folder = written(bundle(tmp_path / "net.strata.zip", labels=("a", "b")))
    assert config.output[0].label_filename == ""
    assert not (folder / "labels.txt").exists()
    config, folder = written(bundle(tmp_path / "odd.strata.zip", labels=(*NAMES[:9], "a\\nb c")))
    assert (folder / "labels.txt").read_text().splitlines()[-1] == "a b c"


RTX = {"flavour": "rtx", "version": "1.7.1.116"}
OLD = {"version": "10.3.0.30"}
ARM = {"platform": "linux-aarch64"}
WIDE = {"profiles": ({"input": shapes(1, 8, 32)},)}
LARGE = {"inputs": (Binding("input", "float32", (-1, 3, 32, 32)),)}
STRIPPED = {"options": {"weights": "stripped"}}
EIGHT = {"profiles": ({"input": shapes(8, 8, 16)},)}


@pytest.mark.parametrize(
    ("plans", "options", "code", "said", "hint"),
    [
        ([("sm86", RTX)], [], 6, "no backend for TensorRT-RTX", "--backend onnxruntime"),
        ([("sm86", RTX)], ["--backend", "tensorrt"], 6, "no backend for", "--flavour tensorrt"),
        ([], ["--backend", "tensorrt"], 2, "holds no plan", "--backend onnxruntime"),
        ([("sm86", {}), ("sm89", OLD)], [], 2, "10.3.0.30, 10.9.0.34", "bundle the plans of one"),
        ([("sm86", {}), ("sm86", {})], [], 2, "are both for sm86", "one plan for each GPU"),
        ([("sm86", {}), ("sm89", WIDE)], [], 2, "other batch sizes", "same --batch"),
        ([("sm86", {}), ("sm89", LARGE)], [], 2, "other tensors", "one ONNX file"),
        ([("sm86", EIGHT)], [], 2, "takes 8 images or more", "--batch 1,8,32"),
        ([("sm86", STRIPPED)], [], 2, "built without its weights", "without --strip-weights"),
        ([("sm86", {"targets": ()})], [], 2, "do not say for which GPUs", "build them again"),
        ([("sm86", {})], ["--max-batch", 17], 2, "takes 16 images at most", "16 or fewer"),
        ([("sm86", {})], ["--kind", "cpu"], 2, "TensorRT needs a GPU", "onnxruntime"),
        ([("sm86", {})], ["--accelerate"], 2, "a plan is TensorRT already", "leave it out"),
        ([("sm86", {})], ["--name", "../net"], 2, "no name for a model", "letters"),
        ([("sm86", {})], ["--server", "a b"], 2, "no tag of an image", "26.07-py3"),
        ([("sm86", {})], ["--storage", "/models"], 2, "no place that Triton reads", "pvc://"),
    ],
)
def test_what_cannot_be_served_is_refused(plans, options, code, said, hint, tmp_path):
    done = triton(bundle(tmp_path / "net.strata.zip", plans), "-o", tmp_path / "models", *options)
    assert done.exit_code == code
    problem, _, way_out = done.stderr.partition("hint: ")
    assert said in problem
    assert hint in way_out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["net.strata.onnx", "net.strata.zip"]


def test_plans_for_other_machines_are_left_out(tmp_path):
    path = bundle(tmp_path / "net.strata.zip", [("sm86", {}), ("sm87", ARM), ("sm89", RTX)])
    done = triton(path, "-o", tmp_path / "models")
    assert done.exit_code == 0, done.output
    assert "tensorrt-1-sm87.engine is left out: it is for linux-aarch64" in done.stderr
    assert "rtx-2-sm89.engine is left out: Triton runs no RTX plans" in done.stderr
    assert "the server needs TensorRT 10.9.0.34" in done.stderr


def test_plans_for_jetson_alone_are_served_there(tmp_path):
    config, _ = written(bundle(tmp_path / "net.strata.zip", [("sm87", ARM)]))
    assert dict(config.cc_model_filenames) == {"8.7": "model_sm87.plan"}


def test_a_network_of_any_size_needs_to_be_told_which(tmp_path):
    path = bundle(tmp_path / "net.strata.zip", [])
    from deploy.bundle.contents import MODEL
    from deploy.bundle.writer import write_bundle

    write_bundle(path, {MODEL: path.with_suffix(".onnx").read_bytes()})
    done = triton(path, "-o", tmp_path / "models")
    assert done.exit_code == 2
    assert "takes images of any size" in done.stderr


def test_a_repository_holds_many_models_and_nothing_is_written_over(tmp_path):
    path, repository = bundle(tmp_path / "net.strata.zip"), tmp_path / "models"
    written(path)
    written(path, "--name", "second")
    before = {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()}
    done = triton(path, "-o", repository)
    assert done.exit_code == 8
    assert "net: is there already" in done.stderr
    assert {p: p.read_bytes() for p in repository.rglob("*") if p.is_file()} == before
    assert sorted(p.name for p in repository.iterdir()) == ["net", "second"]


def test_the_same_bundle_gives_the_same_repository(tmp_path):
    path = bundle(tmp_path / "net.strata.zip")
    written(path, repository=tmp_path / "a" / "models")
    written(path, repository=tmp_path / "b" / "models")
    one, other = (
        {str(p.relative_to(tmp_path / top)): p.read_bytes() for p in (tmp_path / top).rglob("*.*")}
        for top in ("a", "b")
    )
    assert one == other


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = triton(bundle(tmp_path / "net.strata.zip"), "-o", tmp_path / "file")
    assert done.exit_code == 8
    assert "cannot be written" in done.stderr


def test_it_says_what_it_wrote(tmp_path):
    path = bundle(tmp_path / "net.strata.zip")
    done = triton(path, "-o", tmp_path / "models", "--json")
    found = json.loads(done.stdout)
    assert found["capabilities"] == ["8.6"]
    assert found["files"] == [
        "1/model_sm86.plan",
        "1/model_sm86.plan.json",
        "config.pbtxt",
        "labels.txt",
    ]
    shutil.rmtree(tmp_path / "models")
    text = triton(path, "-o", tmp_path / "models").stdout
    assert "by TensorRT 10.9.0.34 for 8.6, batches of up to 16" in text
    assert "net.kserve.yaml, beside it" in text


@pytest.mark.parametrize(
    "arguments",
    [[], ["a.strata.zip"], ["a.strata.zip", "--check", "models"], ["--check", "m", "-o", "n"]],
)
def test_one_thing_at_a_time(arguments):
    done = triton(*arguments)
    assert done.exit_code == 2
    assert "Traceback" not in done.output


def test_kserve_is_told(tmp_path):
    written(bundle(tmp_path / "Net_18.strata.zip"), "--instances", 2)
    text = (tmp_path / "Net_18.kserve.yaml").read_text()
    assert text.startswith("# The server's TensorRT must be 10.9.0.34")
    found = yaml.safe_load(text)
    assert found["metadata"]["name"] == "net-18"
    predictor = found["spec"]["predictor"]
    assert predictor["scaleTarget"] == 32  # a batch for each instance
    assert predictor["model"]["storageUri"] == "pvc://models/models"
    assert predictor["model"]["runtimeVersion"] == "26.07-py3"
    assert predictor["model"]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_kubernetes_is_told(tmp_path):
    written(bundle(tmp_path / "net.strata.zip"), "--storage", "pvc://disk/a/b", "--delay-us", 1000)
    parts = list(yaml.safe_load_all((tmp_path / "net.kubernetes.yaml").read_text()))
    deployment, service, scaler = parts
    assert [part["kind"] for part in parts] == ["Deployment", "Service", "HorizontalPodAutoscaler"]
    pod = deployment["spec"]["template"]
    assert pod["metadata"]["labels"] == deployment["spec"]["selector"]["matchLabels"]
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    (container,) = pod["spec"]["containers"]
    named = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == named
    assert container["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}
    assert "--model-repository=/models" in container["args"]
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["models"]["subPath"] == "a/b"
    volumes = {volume["name"] for volume in pod["spec"]["volumes"]}
    assert volumes == set(mounts)
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (metric,) = scaler["spec"]["metrics"]
    assert metric["pods"]["target"]["averageValue"] == "4000"


def test_a_cpu_server_scales_by_its_cpu_and_asks_for_no_gpu(tmp_path):
    written(bundle(tmp_path / "net.strata.zip", []), "--kind", "cpu", "--storage", "s3://b/models")
    text = (tmp_path / "net.kubernetes.yaml").read_text()
    assert "nvidia.com/gpu" not in text
    deployment, _, scaler = yaml.safe_load_all(text)
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert "--model-repository=s3://b/models" in container["args"]
    assert scaler["spec"]["metrics"][0]["resource"]["name"] == "cpu"


@pytest.mark.parametrize(
    ("model", "label"), [("R50_v1.5", "r50-v1-5"), ("_", "m"), ("50", "m-50"), ("a" * 80, "a" * 50)]
)
def test_names_are_such_as_kubernetes_takes(model, label):
    cluster = Cluster(model, "26.07-py3", "pvc://models", "gpu")
    assert yaml.safe_load(kserve_text(cluster))["metadata"]["name"] == label


def test_a_type_that_triton_has_not_is_refused(tmp_path):
    odd = {"inputs": (Binding("input", "float8e4m3", (-1, 3, 16, 16)),)}
    path = bundle(tmp_path / "net.strata.zip", [("sm86", odd)])
    done = triton(path, "-o", tmp_path / "models")
    assert done.exit_code == 2
    assert "float8e4m3, which Triton has not" in done.stderr
