"""Options of a build: refused where there are none, else given to TensorRT and written down."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from onnx_text import parse
from tensorrt_nets import net, node, write

from core.artifacts import sha256_bytes
from core.errors import BuildError, InputError, MissingBackendError, OutputError
from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.build_options import BuildOptions, brings_runtime, is_refittable, is_stripped
from deploy.engines.flavour import load_flavour
from deploy.engines.log import TensorrtLog
from deploy.engines.manifest import Binding
from deploy.engines.option_refusals import refuse_int8_refit, refuse_options, refuse_unknown_options
from deploy.engines.parsed_shapes import refuse_other_shapes
from deploy.engines.target import BuildTarget, capability_of
from deploy.engines.timing_cache import TimingCache
from deploy.machines.host import Gpu, Gpus, find_gpus
from deploy.networks.network import read_network
from deploy.onnx_files.reader import TensorType


def gpus(name):
    return Gpus(devices=(Gpu(name, capability_of(name), 1 << 34),))


NONE = Gpus(problem="no NVIDIA driver")
HERE = find_gpus().devices


def options(tmp_path, **given):
    if "timing_cache" in given:
        given["timing_cache"] = tmp_path / given["timing_cache"]
    return BuildOptions(**given)


@pytest.mark.parametrize(
    ("flavour", "given", "machine", "kind", "says", "hint"),
    [
        (
            "rtx",
            {"timing_cache": "t"},
            "L4",
            BuildError,
            "times no kernels",
            "from run to run",
        ),
        ("rtx", {"version_compatible": True}, "L4", BuildError, "no lean runtime", "build again"),
        ("rtx", {"hardware": "ampere_plus"}, "L4", BuildError, "ignores it", "--target sm86,sm89"),
        ("rtx", {"strip_weights": True}, None, MissingBackendError, "no NVIDIA driver", "a GPU"),
        ("rtx", {"refit": True}, None, MissingBackendError, "no NVIDIA driver", "--refit out"),
        ("tensorrt", {"hardware": "ampere_plus"}, "T4", BuildError, "here is sm75", "same_compute"),
        (
            "tensorrt",
            {"hardware": "same_compute_capability"},
            "Orin",
            BuildError,
            "Jetson Orin",
            "",
        ),
    ],
)
def test_what_a_flavour_or_a_gpu_cannot_is_refused(
    tmp_path, flavour, given, machine, kind, says, hint
):
    machine = gpus(machine) if machine else NONE
    with pytest.raises(kind, match=says) as caught:
        refuse_options(flavour, options(tmp_path, **given), machine)
    assert caught.value.problem.startswith("--")
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("flavour", "given", "machine"),
    [
        ("rtx", {"optimization_level": 5, "workspace_bytes": 1 << 30}, None),
        ("rtx", {"strip_weights": True}, "L4"),
        ("rtx", {"refit": True}, "L4"),
        ("tensorrt", {"timing_cache": "t", "version_compatible": True}, "T4"),
        ("tensorrt", {"hardware": "same_compute_capability"}, "T4"),
        ("tensorrt", {"hardware": "ampere_plus"}, "H100"),
        ("tensorrt", {"strip_weights": True, "refit": True}, "Orin"),
    ],
)
def test_what_they_can_is_not(tmp_path, flavour, given, machine):
    machine = gpus(machine) if machine else NONE
    refuse_options(flavour, options(tmp_path, **given), machine)


def test_bindings_without_a_name_for_it_are_told_by_their_version():
    old = SimpleNamespace(
        BuilderFlag=SimpleNamespace(REFIT=1, VERSION_COMPATIBLE=2),
        HardwareCompatibilityLevel=SimpleNamespace(AMPERE_PLUS=1),
    )
    for given in ({"refit": True}, {"version_compatible": True}, {"hardware": "ampere_plus"}):
        refuse_unknown_options(old, "8.6", BuildOptions(**given))
    for given in ({"strip_weights": True}, {"hardware": "same_compute_capability"}):
        with pytest.raises(BuildError, match=r"^--.*: TensorRT 8\.6 does not have it"):
            refuse_unknown_options(old, "8.6", BuildOptions(**given))
    every = BuildOptions(
        version_compatible=True, hardware="ampere_plus", strip_weights=True, refit=True
    )
    refuse_unknown_options(load_flavour("rtx").module, "1.7.1", every)  # it has the names


def test_int8_takes_no_other_weights_but_its_own():
    layers = {"Conv": {"int8": ("a", "b"), "float16": ("c",)}, "Gemm": {"int8": ("fc",)}}
    with pytest.raises(BuildError, match=r"n\.onnx: --refit with INT8 layers \(a, 3 in all\)"):
        refuse_int8_refit(BuildOptions(refit=True), layers, "n.onnx")
    refuse_int8_refit(BuildOptions(strip_weights=True), layers, "n.onnx")
    refuse_int8_refit(BuildOptions(refit=True), {"Conv": {"float16": ("a",)}}, "n.onnx")


@pytest.mark.skipif(bool(HERE), reason="this machine has a GPU")
@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--timing-cache", "t.cache"], 6, "times no kernels"),
        (["--version-compatible"], 6, "no lean runtime"),
        (["--hardware", "ampere_plus"], 6, "ignores it"),
        (["--strip-weights"], 3, "where CUDA works only"),
        (["--refit"], 3, "where CUDA works only"),
    ],
)
def test_the_command_refuses_before_tensorrt_does(tmp_path, words, code, says):
    source = write(tmp_path / "n.onnx", "fp16")
    done = CliRunner().invoke(cli, ["build", str(source), "--flavour", "rtx", *words])
    assert done.exit_code == code
    assert says in done.stderr
    assert "hint:" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["n.onnx"]


def test_the_manifest_says_how_it_was_built(tmp_path):
    source = write(tmp_path / "n.onnx")
    target = BuildTarget(options=BuildOptions(optimization_level=2))
    plain = build(source, target, tmp_path / "n.engine").manifest.options
    assert plain == {
        "strongly_typed": True,
        "tf32": False,
        "profiling_verbosity": "detailed",
        "targets": "default",
        "timing_cache": None,
        "optimization_level": 2,
        "workspace_bytes": None,
        "version_compatible": False,
        "hardware_compatibility": None,
        "weights": "in the plan",
        "refit": False,
        "debug_tensors": False,
    }
    assert not any(tell(plain) for tell in (is_stripped, is_refittable, brings_runtime))
    all_of_them = BuildOptions(version_compatible=True, strip_weights=True, refit=True)
    made = all_of_them.to_manifest()
    assert is_stripped(made)
    assert is_refittable(made)
    assert brings_runtime(made)


# ── the flavour tensorrt, by TensorRT-RTX's bindings ─────────────────────────────────────

STAND_IN = """
import json, sys, types, tensorrt_rtx as real
from pathlib import Path

class Cache:
    def __init__(self, data): self.data = data
    def serialize(self): return b"times:" + self.data.removeprefix(b"times:") + b"+"

class Config:
    # What is asked of it is noted; RTX's own makes the plan.
    def __init__(self, own): self.__dict__.update(own=own, flags=[], seen={})
    def __getattr__(self, name): return getattr(self.own, name)
    def __setattr__(self, name, value):
        self.seen[name] = str(getattr(value, "name", value))
        if name != "hardware_compatibility_level": setattr(self.own, name, value)
    def set_flag(self, flag): self.flags.append(flag.name)
    def clear_flag(self, flag): self.flags.append("-" + flag.name); self.own.clear_flag(flag)
    def create_timing_cache(self, data):
        if data and not data.startswith(b"times:"): return self.own.create_timing_cache(data)
        return Cache(bytes(data))
    def set_timing_cache(self, cache, ignore_mismatch):
        return not (ignore_mismatch or getattr(cache, "data", b"").startswith(b"times:other GPU"))

class Builder(real.Builder):
    def __init__(self, logger): real.Builder.__init__(self, logger)
    def create_builder_config(self): return Config(super().create_builder_config())
    def build_serialized_network(self, network, config):
        level = config.seen.get("hardware_compatibility_level")
        print(json.dumps([config.flags, level, str(config.own.profiling_verbosity)]))
        return super().build_serialized_network(network, config.own)

fake = types.ModuleType("tensorrt")
fake.__dict__.update({k: v for k, v in vars(real).items() if k != "ComputeCapability"})
fake.__version__, fake.Builder = "11.4.0", Builder
sys.modules["tensorrt"] = fake
from deploy.engines import build as engine
from deploy.engines import flavour
from deploy.engines.manifest import Binding
from deploy.networks.network import read_network
from deploy.onnx_files.reader import TensorType
from deploy.engines.parsed_shapes import refuse_other_shapes
from deploy.machines.host import Gpu, Gpus
from deploy.engines.target import capability_of
engine.find_gpus = lambda: Gpus(devices=(Gpu("L4", capability_of("L4"), 1 << 34),))
from deploy.cli import main
main()
"""


def tensorrt(*words):
    command = [sys.executable, "-W", "error", "-c", STAND_IN, "build", "--flavour", "tensorrt"]
    return subprocess.run([*command, *map(str, words)], capture_output=True, text=True)


def test_every_option_reaches_tensorrt_and_the_manifest(tmp_path):
    source = write(tmp_path / "n.onnx", "fp16")
    words = ["--version-compatible", "--strip-weights", "--refit", "--level", "4"]
    done = tensorrt(source, *words, "--hardware", "same_compute_capability")
    assert done.returncode == 0, done.stderr
    flags, level, verbosity = json.loads(done.stdout.splitlines()[0])
    assert sorted(set(flags)) == ["-TF32", "REFIT", "STRIP_PLAN", "VERSION_COMPATIBLE"]
    assert level == "SAME_COMPUTE_CAPABILITY"
    assert "DETAILED" in verbosity
    manifest = json.loads((tmp_path / "n.engine.json").read_text())
    said = manifest["options"]
    assert said["weights"] == "stripped"
    assert said["hardware_compatibility"] == "same_compute_capability"
    assert said["refit"] is said["version_compatible"] is True
    for line in ("without weights", "another training", "newer versions", "GPU of that capability"):
        assert line in done.stdout
    done = tensorrt(source)
    assert json.loads(done.stdout.splitlines()[0])[:2] == [["-TF32", "-TF32"], None]
    assert "also" not in done.stdout


def test_a_timing_cache_is_made_read_and_kept(tmp_path):
    source, cache = write(tmp_path / "n.onnx", "fp16"), tmp_path / "new" / "L4.cache"

    def origin():
        done = tensorrt(source, "--timing-cache", cache)
        assert done.returncode == 0, done.stderr
        return json.loads((tmp_path / "n.engine.json").read_text())["options"]["timing_cache"]

    assert origin() == "new"
    first = cache.read_bytes()
    assert first == b"times:+"
    assert origin() == sha256_bytes(first)
    assert cache.read_bytes() == b"times:++"
    assert [path.name for path in cache.parent.iterdir()] == ["L4.cache"]


@pytest.mark.parametrize("data", [b"garbage", b"times:other GPU"])
def test_a_cache_of_another_gpu_or_none_is_refused_and_kept_as_it_is(tmp_path, data):
    source, cache = write(tmp_path / "n.onnx", "fp16"), tmp_path / "t.cache"
    cache.write_bytes(data)
    done = tensorrt(source, "--timing-cache", cache)
    assert done.returncode == 2
    assert "not a cache for this GPU and this TensorRT" in done.stderr
    assert "Traceback" not in done.stderr
    assert cache.read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir()) == ["n.onnx", "t.cache"]


def test_a_cache_that_could_not_be_kept_is_refused_before_the_build(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be read"):
        TimingCache(tmp_path)
    with pytest.raises((OutputError, InputError), match="cannot be"):
        TimingCache(tmp_path / "file" / "t.cache")
    with pytest.raises(OutputError, match="cannot be written in /proc"):
        TimingCache(tmp_path.__class__("/proc/none/t.cache"))


def test_a_cache_that_tensorrt_gives_no_handle_for_is_refused(tmp_path):
    config = SimpleNamespace(create_timing_cache=lambda _: None)
    with pytest.raises(InputError, match="cannot read it"):
        TimingCache(tmp_path / "t.cache").attach(config, TensorrtLog())


# ── what the parser lacks ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("op", ["Det", "Unique", "StringNormalizer", "Bernoulli"])
def test_an_operator_of_onnx_that_the_parser_lacks_is_named_with_a_way_out(tmp_path, op):
    model = net(body=[node(op, "input", "odd"), node("Flatten", "odd", "logits")])
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BuildError, match=rf"node 'odd' \({op}\)") as caught:
        build(tmp_path / "n.onnx", BuildTarget(), tmp_path / "n.engine")
    assert "rewrite this node" in caught.value.hint


@pytest.mark.parametrize("read", [True, False])
def test_what_the_parser_would_read_otherwise_is_refused(tmp_path, read):
    """Found by ONNX's own tests of nodes: the parser takes both, and computes something else."""

    def made(text):
        (tmp_path / "n.onnx").write_bytes(parse(text).SerializeToString())
        if read:
            return read_network(tmp_path / "n.onnx")
        return build(tmp_path / "n.onnx", BuildTarget(), tmp_path / "n.engine")

    with pytest.raises(BuildError, match=r"\(Trilu\): does not say which part") as caught:
        made("n (float[2,4,4] x) => (float[2,4,4] y) { y = Trilu(x) }")
    assert "upper=1" in caught.value.hint
    made("n (float[2,4,4] x) => (float[2,4,4] y) { y = Trilu<upper=1>(x) }")
    pool = "y = MaxPool<kernel_shape=[1,1], strides=[2,2], ceil_mode=1>(x)"
    with pytest.raises(BuildError, match=r"output 'y' is 1×1×1×1 in the file.* makes it 1×1×2×2"):
        made(f"n (float[1,1,2,2] x) => (float[1,1,1,1] y) {{ {pool} }}")


def test_shapes_are_held_where_both_are_fixed():
    def held(ours, theirs):
        declared = [TensorType("y", "float32", ours)]
        refuse_other_shapes(declared, [Binding("y", "float32", theirs)], "n.onnx")

    held(("N", 10), (-1, 10))
    held((None, None), (4, 10))
    held(None, (4, 10))
    held((4, 10), (-1, 10))
    for ours, theirs in (((4, 10), (4, 11)), ((4,), (4, 1)), (("N", 10), (-1, 9))):
        with pytest.raises(BuildError, match="output 'y'"):
            held(ours, theirs)
    refuse_other_shapes([TensorType("z", "float32", (1,))], [], "n.onnx")


# ── on a GPU ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.gpu
def test_tensorrt_takes_its_own_timing_cache_again(tmp_path):
    pytest.importorskip("tensorrt")
    flavour = load_flavour("tensorrt")
    cache = tmp_path / "t.cache"
    target = BuildTarget(options=BuildOptions(timing_cache=cache))
    source = write(tmp_path / "n.onnx", "int8fp16")
    assert (
        build(source, target, tmp_path / "a.engine", flavour=flavour).manifest.options[
            "timing_cache"
        ]
        == "new"
    )
    digest = sha256_bytes(cache.read_bytes())
    again = build(source, target, tmp_path / "b.engine", flavour=flavour).manifest
    assert again.options["timing_cache"] == digest
    cache.write_bytes(b"garbage" * 30)
    with pytest.raises(InputError, match="not a cache for this GPU"):
        build(source, target, tmp_path / "c.engine", flavour=flavour)


@pytest.mark.gpu
def test_a_version_compatible_plan_loads_with_its_own_runtime(tmp_path):
    pytest.importorskip("tensorrt")
    from deploy.runners.engine import open_engine_file

    target = BuildTarget(options=BuildOptions(version_compatible=True))
    source = write(tmp_path / "n.onnx", "fp16")
    made = build(source, target, tmp_path / "n.engine", flavour=load_flavour("tensorrt"))
    plain = build(source, BuildTarget(), tmp_path / "m.engine", flavour=load_flavour("tensorrt"))
    assert made.manifest.plan_bytes > plain.manifest.plan_bytes  # the runtime is in it
    assert open_engine_file(made.plan).image == "input"
