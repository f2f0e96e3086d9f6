import json
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from onnx import TensorProto
from tensorrt_nets import constants, net, node, nodes, write

from core.artifacts import sha256_file
from core.errors import BuildError, InputError, MissingBackendError, OutputError
from core.int8 import QMAX
from deploy.engines import engine_file
from deploy.engines.build import build
from deploy.engines.build_options import BuildOptions
from deploy.engines.flavour import load_flavour
from deploy.engines.manifest import ShapeRange, manifest_path, read_manifest, verify_plan
from deploy.engines.target import BuildTarget, parse_batch, parse_targets
from deploy.machines import host
from exporter.card import Card
from exporter.onnx_file import set_card

ANY = BuildTarget()
STRATA = [sys.executable, "-c", "from deploy.cli import main; main()", "build"]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def strata(*arguments):
    return subprocess.run([*STRATA, *map(str, arguments)], capture_output=True, text=True)


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """One engine of each kind, and the ONNX file it was built from."""
    folder = tmp_path_factory.mktemp("engines")
    kinds = ("fp32", "fp16", "int8", "int8fp16")
    return {
        kind: build(write(folder / f"{kind}.onnx", kind), ANY, folder / f"{kind}.engine")
        for kind in kinds
    }


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("fp32", "float32"), ("fp16", "float16"), ("int8", "int8"), ("int8fp16", "int8")],
)
def test_each_precision_builds_and_the_manifest_says_what_was_asked(engines, kind, precision):
    artifact = engines[kind]
    manifest = artifact.manifest
    assert manifest.layers == {"Conv": {precision: ("conv1",)}, "Gemm": {precision: ("fc",)}}
    assert manifest.count(precision) == 2
    assert manifest.count(precision, "Conv") == 1
    assert [(b.name, b.dtype, b.shape) for b in manifest.inputs + manifest.outputs] == [
        ("input", "float32", (-1, 3, 8, 8)),
        ("logits", "float32", (-1, 5)),
    ]
    assert manifest.profiles == ({"input": ShapeRange((1, 3, 8, 8), (8, 3, 8, 8), (32, 3, 8, 8))},)
    assert manifest.flavour == "rtx"
    assert not manifest.options["tf32"]
    assert manifest.options["profiling_verbosity"] == "detailed"
    assert 0 < artifact.seconds < 60
    assert 50e6 < artifact.peak_bytes < 4e9
    assert verify_plan(artifact.plan) == manifest == read_manifest(artifact.plan)


def test_warnings_come_once_and_in_our_words(engines):
    assert engines["int8"].warnings == ()
    (warning,) = engines["int8fp16"].warnings
    assert "FP16 scales are widened" in warning


def test_the_card_travels_into_the_manifest(tmp_path):
    model = net("int8")
    card = Card(labels=("a", "b", "[ 1 ]"), weights={"name": "w"}, parents={"model": "0" * 64})
    set_card(model, card)
    path = tmp_path / "int8.onnx"
    path.write_bytes(model.SerializeToString())
    manifest = build(path, ANY, tmp_path / "int8.engine").manifest
    assert manifest.card.labels == card.labels
    assert manifest.card.weights == card.weights
    assert manifest.parents == {"model": "0" * 64, "onnx": sha256_file(path)}
    assert read_manifest(tmp_path / "int8.engine") == manifest


@pytest.mark.parametrize("kind", ["fp32", "int8fp16"])
def test_one_batch_size_gives_the_same_bytes_again(tmp_path, kind):
    source = write(tmp_path / "n.onnx", kind)
    target = BuildTarget(profiles=(parse_batch("8"),))
    one, two = (build(source, target, tmp_path / name / "n.engine").plan for name in "ab")
    assert one.read_bytes() == two.read_bytes()
    assert manifest_path(one).read_bytes() == manifest_path(two).read_bytes()


def test_a_range_of_batch_sizes_gives_the_same_kernels_again(tmp_path, engines):
    again = build(write(tmp_path / "n.onnx", "int8"), ANY, tmp_path / "n.engine")
    one, two = (a.plan.read_bytes() for a in (engines["int8"], again))
    kernels = [sorted(re.findall(rb"fqn=(\S+)", plan)) for plan in (one, two)]
    assert kernels[0] == kernels[1] != []
    assert len(one) == len(two)


def test_profiles_are_those_that_were_asked_for(tmp_path):
    target = BuildTarget(profiles=(parse_batch("1"), parse_batch("2,4,8")))
    manifest = build(write(tmp_path / "n.onnx"), target, tmp_path / "n.engine").manifest
    batches = [
        tuple(s[0] for s in (p["input"].min, p["input"].opt, p["input"].max))
        for p in manifest.profiles
    ]
    assert batches == [(1, 1, 1), (2, 4, 8)]


def test_options_reach_tensorrt_and_the_manifest(tmp_path):
    lines = []
    target = BuildTarget(options=BuildOptions(optimization_level=1, workspace_bytes=64 << 20))
    manifest = build(
        write(tmp_path / "n.onnx"), target, tmp_path / "n.engine", listen=lambda *x: lines.append(x)
    ).manifest
    assert manifest.options["optimization_level"] == 1
    assert manifest.options["workspace_bytes"] == 64 << 20
    assert {severity for severity, _ in lines} >= {"info", "verbose"}
    assert any("[ONNX Layer: conv1]" in text for _, text in lines)


@pytest.mark.parametrize(("shape", "batch"), [((4, 3, 8, 8), "4"), ((4, 3, 8, 8), None)])
def test_a_fixed_batch_is_its_own_profile(tmp_path, shape, batch):
    target = BuildTarget(profiles=(parse_batch(batch),) if batch else ())
    source = write(tmp_path / "n.onnx", shape=shape)
    manifest = build(source, target, tmp_path / "n.engine").manifest
    assert manifest.profiles == ({"input": ShapeRange(shape, shape, shape)},)
    assert manifest.inputs[0].shape == shape


@pytest.mark.parametrize(
    ("shape", "batch", "says"),
    [
        ((4, 3, 8, 8), "1,8,32", "fixed at 4"),
        ((4, 3, 8, 8), "1,4,4", "fixed at 4"),
        (("N", 3, "H", "W"), "1,8,32", "only its batch may be free"),
        (("N", "C", 8, 8), None, "only its batch may be free"),
    ],
)
def test_an_input_that_cannot_take_the_batch_is_named(tmp_path, shape, batch, says):
    target = BuildTarget(profiles=(parse_batch(batch),) if batch else ())
    with pytest.raises(InputError, match=says) as caught:
        build(write(tmp_path / "n.onnx", shape=shape), target, tmp_path / "n.engine")
    assert "n.onnx" in caught.value.problem
    assert names(tmp_path) == ["n.onnx"]


def test_free_images_take_a_size(tmp_path):
    source = write(tmp_path / "n.onnx", shape=("N", 3, "H", "W"))
    manifest = build(source, BuildTarget(size=(16, 24)), tmp_path / "n.engine").manifest
    assert manifest.profiles[0]["input"].max == (32, 3, 16, 24)
    assert manifest.inputs[0].shape == (-1, 3, -1, -1)
    fixed = write(tmp_path / "n.onnx")
    assert build(fixed, BuildTarget(size=(8, 8)), tmp_path / "n.engine").plan.exists()
    with pytest.raises(InputError, match="images are 8x8, --size asks for 8x9"):
        build(fixed, BuildTarget(size=(8, 9)), tmp_path / "n.engine")


# ── refusals ─────────────────────────────────────────────────────────────────────────────

U8, I32, F32 = np.uint8, np.int32, np.float32
BIAS = [
    node("DequantizeLinear", "bias.codes bias.scale bias.zero", "conv1.bias.real", axis=0),
    *[
        n
        if n.name != "conv1"
        else node(
            "Conv",
            " ".join([*n.input[:2], "conv1.bias.real"]),
            "conv1",
            kernel_shape=[3, 3],
            pads=[1] * 4,
        )
        for n in nodes("int8")
    ],
]
INT32_BIAS = {
    "bias.codes": np.zeros(4, I32),
    "bias.scale": np.ones(4, F32),
    "bias.zero": np.zeros(4, I32),
}
NO_ZERO = [
    n if n.name != "conv1.in.quantized" else node("QuantizeLinear", "input conv1.in.scale", n.name)
    for n in nodes("int8")
]
INTEGER = [node("QLinearMatMul", "input a b input a b a b", "y"), node("Flatten", "y", "logits")]
FOREIGN = [node("Swish", "input", "act", domain="com.acme"), node("Flatten", "act", "logits")]
NAMELESS = [node("Blur", "input", "act"), node("Flatten", "act", "logits")]
NAMELESS[0].name = ""


@pytest.mark.parametrize(
    ("options", "says", "hint"),
    [
        (
            {"kind": "int8", "changes": {"fc.in.zero_point": U8(0)}},
            r"fc\.in\.quantized.*uint8",
            "symm",
        ),
        ({"kind": "int8", "changes": {"fc.in.zero_point": U8(128)}}, "uint8", "symmetric"),
        ({"kind": "int8", "body": NO_ZERO}, r"conv1\.in\.quantized.*uint8", "symmetric"),
        (
            {"kind": "int8", "changes": {"fc.in.zero_point": np.int8(3)}},
            "zero point 3",
            "symmetric",
        ),
        ({"kind": "int8", "changes": {"fc.in.scale": F32(0)}}, r"scale 0\.0", "safe scale"),
        ({"kind": "int8", "changes": {"fc.in.scale": F32(-1)}}, r"scale -1\.0", "safe scale"),
        ({"kind": "int8", "changes": {"fc.in.scale": F32("nan")}}, "scale nan", "safe scale"),
        (
            {"kind": "int8", "changes": {"fc.weight.scale": F32([1, 0, 1, 1, 1])}},
            r"fc\.weight\.dequantized.*scale 0\.0",
            "safe scale",
        ),
        ({"kind": "int8", "body": BIAS, "changes": INT32_BIAS}, "codes are int32", "plain float"),
        ({"body": INTEGER}, "QLinearMatMul.*integer operators", "QDQ format"),
        (
            {"body": FOREIGN},
            r"'act' \(Swish\): an operator of com\.acme",
            "standard ONNX operators",
        ),
        ({"body": NAMELESS}, "type Blur.*not supported", "standard ONNX operators"),
        ({"opset": 8}, "opset 8; TensorRT's parser knows 9 to 25", "--opset"),
        ({"opset": 26}, "opset 26", "--opset"),
        (
            {"changes": {"conv1.bias": np.zeros(4, np.float16)}},
            r"'conv1' \(Conv\): mixes float types \(.*conv1.bias float16",
            "strata quantize",
        ),
        (
            {"kind": "int8", "changes": {"fc.in.scale": np.float16(1)}},
            "'fc'.*mixes float",
            "quantize",
        ),
    ],
)
def test_what_tensorrt_cannot_build_is_refused_by_name(tmp_path, options, says, hint):
    source = write(tmp_path / "bad.onnx", **options)
    with pytest.raises(BuildError, match=says) as caught:
        build(source, ANY, tmp_path / "bad.engine")
    assert hint in caught.value.hint
    assert "bad.onnx" in caught.value.problem
    assert "Assertion" not in caught.value.problem
    assert names(tmp_path) == ["bad.onnx"]


def rescaled(path, *makers):
    """Write the INT8 network with the scale of conv1's input made by nodes."""
    body = [n for n in nodes("int8") if "conv1.in" not in n.output[0]]
    pair = [n for n in nodes("int8") if "conv1.in" in n.output[0]]
    for quantizer in pair:
        quantizer.input[1] = "scale"
    return write(path, "int8", body=[*makers, *pair, *body])


def test_a_scale_that_is_computed_is_refused_before_tensorrt_ends_the_process(tmp_path):
    source = rescaled(tmp_path / "n.onnx", node("ReduceMax", "input", "scale", keepdims=0))
    with pytest.raises(BuildError, match=r"conv1\.in\.quantized.*its scale scale is not constant"):
        build(source, ANY, tmp_path / "n.engine")


@pytest.mark.parametrize(
    "makers",
    [
        [node("Constant", "", "scale", value_float=0.05)],
        [node("Identity", "conv1.in.scale", "copy"), node("Identity", "copy", "scale")],
    ],
)
def test_a_scale_that_is_a_copy_or_a_constant_node_is_built(tmp_path, makers):
    source = rescaled(tmp_path / "n.onnx", *makers)
    assert build(source, ANY, tmp_path / "n.engine").manifest.count("int8", "Conv") == 1


@pytest.mark.parametrize(
    ("targets", "says", "hint"),
    [
        ("orin", "Jetson Orin", "on the Jetson itself"),
        ("Thor", "Jetson Thor", "on the Jetson itself"),
        ("H100", "Hopper", "--flavour tensorrt"),
        ("B200", "data-centre Blackwell", "--flavour tensorrt"),
        ("sm60", "does not serve", "it builds for sm75, sm80"),
        ("sm86,sm130", "sm130", "it builds for"),
    ],
)
def test_gpus_out_of_reach_are_refused_before_the_build(tmp_path, targets, says, hint):
    source = write(tmp_path / "net.onnx")
    with pytest.raises(BuildError, match=says) as caught:
        build(source, BuildTarget(capabilities=parse_targets(targets)), tmp_path / "net.engine")
    assert hint in caught.value.hint


def test_turing_takes_fp16_and_refuses_fp32(tmp_path):
    turing = BuildTarget(capabilities=parse_targets("T4"))
    for kind in ("fp32", "int8"):
        with pytest.raises(BuildError, match=r"\(Gemm\): computes in FP32") as caught:
            build(write(tmp_path / "n.onnx", kind), turing, tmp_path / "n.engine")
        assert "--precision fp16" in caught.value.hint
    for kind in ("fp16", "int8fp16"):
        artifact = build(write(tmp_path / "n.onnx", kind), turing, tmp_path / "n.engine")
        assert artifact.manifest.targets == ("sm75",)


@pytest.mark.parametrize("keep", [0, 1, 10, 100, 500, -1])
def test_a_truncated_onnx_file_is_an_input_error(tmp_path, keep):
    path = write(tmp_path / "cut.onnx", "int8")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"cut\.onnx: not an ONNX model"):
        build(path, ANY, tmp_path / "cut.engine")


def test_a_missing_file_and_a_folder_are_input_errors(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            build(path, ANY, tmp_path / "x.engine")


def test_the_onnx_file_is_never_overwritten(tmp_path):
    path = write(tmp_path / "net.onnx")
    with pytest.raises(InputError, match="overwrite"):
        build(path, ANY, tmp_path / "." / "net.onnx")


# ── external weights ─────────────────────────────────────────────────────────────────────


def external(folder, location):
    model = net()
    for tensor in model.graph.initializer:
        if tensor.name == "conv1.weight":
            (folder / "w.bin").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=location)
    path = folder / "net.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_weights_beside_the_model_are_built_in_and_bound(tmp_path):
    whole = build(write(tmp_path / "whole.onnx"), ANY, tmp_path / "whole.engine")
    artifact = build(external(tmp_path, "w.bin"), ANY, tmp_path / "net.engine")
    assert artifact.manifest.plan_bytes == whole.manifest.plan_bytes
    weight = constants()["conv1.weight"].tobytes()
    assert (
        weight in artifact.plan.read_bytes()
        or (  # TensorRT may reorder them
            artifact.plan.read_bytes().count(weight[:4])
            == whole.plan.read_bytes().count(weight[:4])
        )
    )
    assert artifact.manifest.parents["weights/w.bin"] == sha256_file(tmp_path / "w.bin")


@pytest.mark.parametrize("location", ["/etc/hostname", "../w.bin", "", "link.bin", "a/../../w.bin"])
def test_weights_outside_the_folder_are_refused(tmp_path, location):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(bytes(1000))
    (folder / "link.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(InputError, match="not in the model's folder"):
        build(external(folder, location), ANY, tmp_path / "net.engine")


def test_missing_weights_are_named(tmp_path):
    with pytest.raises(InputError, match=r"'gone\.bin' is missing"):
        build(external(tmp_path, "gone.bin"), ANY, tmp_path / "net.engine")


# ── progress, cancelling, writing ────────────────────────────────────────────────────────


def test_progress_rises_to_the_end_and_names_the_phase(tmp_path):
    seen = []
    build(
        write(tmp_path / "n.onnx"), ANY, tmp_path / "n.engine", progress=lambda *x: seen.append(x)
    )
    done = [d for d, _, _ in seen]
    assert done == sorted(done)
    assert done[0] == 0
    assert {t for _, t, _ in seen} == {100}
    assert done[-1] == 100
    assert {"Building engine", "Optimizing graph"} <= {note for _, _, note in seen}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_build_stops_it_and_leaves_nothing(tmp_path, number):
    source = write(tmp_path / "n.onnx")
    before = signal.getsignal(number)

    def interrupt(done, total, note):
        if note == "Optimizing graph":
            signal.raise_signal(number) if not seen else None
            seen.append(done)

    seen = []
    with pytest.raises(KeyboardInterrupt):
        build(source, ANY, tmp_path / "n.engine", progress=interrupt)
    assert max(seen) < 100
    assert len(seen) < 10  # it stopped at the next step, not at the end
    assert names(tmp_path) == ["n.onnx"]
    assert signal.getsignal(number) is before
    assert build(source, ANY, tmp_path / "n.engine").plan.exists()  # and the next run carries on


def test_an_error_of_the_listener_to_progress_comes_out_whole(tmp_path):
    def broken(done, total, note):
        raise ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal"):
        build(write(tmp_path / "n.onnx"), ANY, tmp_path / "n.engine", progress=broken)


def test_it_builds_outside_the_main_thread_too(tmp_path):
    results = []

    def work():
        results.append(build(write(tmp_path / "n.onnx"), ANY, tmp_path / "n.engine"))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results[0].plan.exists()


def test_an_unwritable_output_leaves_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    source = write(tmp_path / "n.onnx")
    with pytest.raises(OutputError, match="cannot be written"):
        build(source, ANY, tmp_path / "file" / "n.engine")
    assert names(tmp_path) == ["file", "n.onnx"]


def test_a_failed_plan_keeps_the_old_pair(tmp_path, monkeypatch):
    source = write(tmp_path / "n.onnx")
    old = build(source, ANY, tmp_path / "n.engine")
    real = engine_file.write_whole

    def full(path):
        if path.suffix == ".engine":
            raise OutputError("no space", hint="free some")
        return real(path)

    monkeypatch.setattr(engine_file, "write_whole", full)
    with pytest.raises(OutputError):
        build(write(tmp_path / "n.onnx", "fp16"), ANY, tmp_path / "n.engine")
    assert verify_plan(old.plan) == old.manifest
    assert names(tmp_path) == ["n.engine", "n.engine.json", "n.onnx"]


# ── machines ─────────────────────────────────────────────────────────────────────────────


class _NoGpu:
    """The flavour tensorrt, as far as a machine without a GPU gets."""

    name = "tensorrt"
    capabilities = ()

    class kind:  # noqa: N801
        builds_without_gpu = False


def test_the_flavour_tensorrt_needs_a_gpu(tmp_path):
    if host.find_gpus().devices:
        pytest.skip("this machine has a GPU")
    with pytest.raises(MissingBackendError, match="machine with a GPU") as caught:
        build(write(tmp_path / "n.onnx"), ANY, tmp_path / "n.engine", flavour=_NoGpu)
    assert "--flavour rtx" in caught.value.hint


STAND_IN = """
import sys, types, tensorrt_rtx
from pathlib import Path
fake = types.ModuleType("tensorrt")
fake.__dict__.update({k: v for k, v in vars(tensorrt_rtx).items() if k != "ComputeCapability"})
fake.__version__ = sys.argv[1]
sys.modules["tensorrt"] = fake
from deploy.engines import build as engine
from deploy.engines.build_options import BuildOptions
from deploy.engines.flavour import load_flavour
from deploy.machines.host import Gpu, Gpus
from deploy.engines.target import BuildTarget, capability_of
engine.find_gpus = lambda: Gpus(devices=(Gpu("L4", capability_of("L4"), 1 << 34),))
target = BuildTarget(options=BuildOptions(optimization_level=2, workspace_bytes=1 << 26))
source, output = map(Path, sys.argv[2:])
made = engine.build(source, target, output, flavour=load_flavour("tensorrt")).manifest
print(made.flavour, made.version, made.targets, made.count("int8"))
try:
    wrong = BuildTarget(capabilities=(capability_of("A10"),))
    engine.build(source, wrong, output, flavour=load_flavour("tensorrt"))
except Exception as error:
    print(type(error).__name__, error.problem)
"""


@pytest.mark.parametrize("version", ["10.3.0", "11.4.0.106"])
def test_the_other_flavour_goes_the_same_way(tmp_path, version):
    """TensorRT-RTX's bindings stand in for tensorrt's: the calls are the same."""
    source = write(tmp_path / "n.onnx", "int8fp16")
    command = [sys.executable, "-W", "error", "-c", STAND_IN, version]
    done = subprocess.run(
        [*command, str(source), str(tmp_path / "n.engine")],
        capture_output=True,
        text=True,
        check=True,
    )
    built, refused = done.stdout.splitlines()
    assert built == f"tensorrt {version} ('sm89',) 2"
    assert refused.startswith("BuildError --target sm86: the flavour tensorrt builds for the GPU")


def test_building_needs_no_onnx_package(tmp_path):
    source = write(tmp_path / "n.onnx", "int8")
    code = (
        "import sys; sys.modules.update(onnx=None, torch=None, onnxruntime=None)\n"
        "from pathlib import Path; from deploy.engines.build import build\n"
        "from deploy.engines.target import BuildTarget\n"
        f"print(build(Path({str(source)!r}), BuildTarget(), Path({str(tmp_path / 'n.engine')!r}))"
        ".manifest.count('int8'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "2"


def test_int8_weights_reach_the_plan_as_codes(engines):
    codes = constants("int8")["fc.weight.quantized"]
    assert np.abs(codes.astype(int)).max() == QMAX
    assert engines["int8"].manifest.count("int8") == 2
    assert engines["fp32"].manifest.count("int8") == 0


def test_the_command_builds_and_reports(tmp_path):
    source = write(tmp_path / "n.onnx", "int8fp16")
    done = strata(source, "--batch", "1,2,4", "--target", "RTX 3090")
    assert done.returncode == 0
    for words in ("1 Conv and 1 Gemm in INT8", "1 to 4, tuned for 2", "sm86", "n.engine"):
        assert words in done.stdout
    assert done.stderr.count("widened") == 1
    done = strata(source, "--json", "-o", tmp_path / "o.engine")
    facts = json.loads(done.stdout)
    assert facts["manifest"] == json.loads((tmp_path / "o.engine.json").read_text())


def test_verbose_shows_tensorrts_log(tmp_path):
    source = write(tmp_path / "n.onnx")
    some, everything = strata(source, "-v").stderr, strata(source, "-vv").stderr
    assert "tensorrt info:" in some
    assert "tensorrt verbose:" not in some
    assert "tensorrt verbose:" in everything


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--batch", "8,1,32"], 2, "min > opt"),
        (["--target", "RTX 6000"], 2, "more than one GPU"),
        (["--target", "orin"], 6, "Jetson Orin"),
        (["--level", "9"], 2, "not 0 to 5"),
        (["--size", "8by8"], 2, "not a size"),
        (["-o", "/proc/none/n.engine"], 8, "cannot be written"),
    ],
)
def test_the_command_fails_in_one_line_and_a_hint(tmp_path, arguments, code, says):
    done = strata(write(tmp_path / "n.onnx"), *arguments)
    assert done.returncode == code
    assert says in done.stderr
    assert "hint:" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["fp32", "fp16", "int8", "int8fp16"])
def test_the_driver_loads_what_was_built(engines, kind):
    flavour = load_flavour("rtx")
    trt = flavour.module
    plan = engines[kind].plan.read_bytes()
    runtime = trt.Runtime(flavour.logger)
    assert runtime.get_engine_validity(plan)[0] == trt.EngineValidity.VALID
    loaded = runtime.deserialize_cuda_engine(plan)
    assert loaded.num_io_tensors == 2
    assert tuple(loaded.get_tensor_profile_shape("input", 0)[2]) == (32, 3, 8, 8)


@pytest.mark.gpu
def test_tensorrt_builds_for_the_gpu_at_hand(tmp_path):
    pytest.importorskip("tensorrt")
    flavour = load_flavour("tensorrt")
    source = write(tmp_path / "n.onnx", "int8fp16")
    artifact = build(source, ANY, tmp_path / "n.engine", flavour=flavour)
    gpu = host.find_gpus().devices[0]
    assert artifact.manifest.targets == (str(gpu.capability),)
    assert verify_plan(artifact.plan).flavour == "tensorrt"
    loaded = flavour.module.Runtime(flavour.logger).deserialize_cuda_engine(
        artifact.plan.read_bytes()
    )
    assert loaded.num_io_tensors == 2
