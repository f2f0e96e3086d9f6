"""Machines × plans: each gets its verdict, each reason its way out."""

import hashlib
import json
import subprocess
import sys
import types
from dataclasses import replace

import pytest
from click.testing import CliRunner
from tensorrt_nets import write

from core.errors import BuildError, InputError, MissingBackendError
from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.flavour import load_flavour
from deploy.engines.manifest import manifest_path, read_manifest
from deploy.engines.plan_header import PlanHeader
from deploy.engines.target import BuildTarget, capability_of, parse_targets
from deploy.machines.host import find_gpus
from deploy.preflights.described_host import HostGpu, described_host
from deploy.preflights.facts import PlanFacts
from deploy.preflights.preflight import preflight
from deploy.preflights.validity import validity

VERSION = "tensorrt-rtx 1.7.1"


def described(engine, **changes):
    """Rewrite the manifest beside an engine, sealed; the plan may have changed, too."""
    manifest = read_manifest(manifest_path(engine))
    manifest_path(engine).write_text(replace(manifest, **changes).to_text())
    return engine


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plans")
    made = {}
    for name, kind, targets in (
        ("int8", "int8", ""),
        ("fp16", "fp16", ""),
        ("turing", "fp16", "sm75"),
        ("ada", "fp16", "sm89"),
    ):
        source = write(folder / f"{name}.onnx", kind)
        target = BuildTarget(capabilities=parse_targets(targets) if targets else ())
        made[name] = build(source, target, folder / f"{name}.engine").plan
    for name, version, options in (
        ("trt", "10.9.0.34", {}),
        ("compatible", "10.9.0.34", {"version_compatible": True}),
        ("ampere", "11.4.0.106", {"hardware_compatibility": "ampere_plus"}),
        ("alike", "11.4.0.106", {"hardware_compatibility": "same_compute_capability"}),
    ):
        made[name] = foreign(made["int8"], folder / f"{name}.engine", version, options)
    return made


def foreign(engine, path, version, options):
    """A plan of the flavour tensorrt, as far as header and manifest tell."""
    data = b"ftrt" + bytes(200)
    path.write_bytes(data)
    manifest_path(path).write_bytes(manifest_path(engine).read_bytes())
    return described(
        path,
        plan=path.name,
        plan_bytes=len(data),
        plan_sha256=hashlib.sha256(data).hexdigest(),
        flavour="tensorrt",
        version=version,
        targets=("sm86",),
        options=options,
    )


def copied(engine, folder, change=lambda data: data):
    path = folder / engine.name
    path.write_bytes(change(engine.read_bytes()))
    manifest_path(path).write_bytes(manifest_path(engine).read_bytes())
    return path


@pytest.mark.parametrize(
    ("plan", "host", "verdict", "check", "way_out"),
    [
        ("int8", f"RTX 3090, driver 580.65, linux, x86_64, {VERSION}", "fits", None, ""),
        ("int8", f"RTX 5090, driver 590, windows, {VERSION}.116", "fits", None, ""),
        ("int8", "sm86", "fits", None, ""),
        ("int8", "A100", "fits", None, ""),
        ("int8", f"GB10, {VERSION}", "fits", None, ""),
        ("int8", f"RTX 2080, {VERSION}", "does not fit", "gpu", "FP16 only"),
        ("fp16", "RTX 2080", "does not fit", "gpu", "--target sm75"),
        ("turing", f"T4, driver 580, {VERSION}", "fits", None, ""),
        ("turing", "RTX 3090", "does not fit", "gpu", "--target sm86"),
        ("ada", "L4", "fits", None, ""),
        ("ada", "RTX 3090", "does not fit", "gpu", "--target sm86"),
        ("ada", "RTX 3090, L4", "fits", None, ""),
        ("ada", "sm130", "does not fit", "gpu", "--target sm130"),
        ("int8", "sm130", "unknown", "gpu", "--target sm130"),
        ("int8", "H100", "does not fit", "gpu", "--flavour tensorrt"),
        ("int8", "Jetson AGX Orin, tensorrt 10.3.0", "does not fit", "gpu", "JetPack"),
        ("int8", "B200", "does not fit", "gpu", "--flavour tensorrt"),
        ("int8", "no gpu, linux", "not run", "gpu", "--host"),
        ("int8", "RTX 3090, tensorrt 10.9.0", "does not fit", "flavour", "strata[rtx]"),
        ("int8", "RTX 3090, tensorrt-rtx 1.6.1.120", "does not fit", "version", "build it again"),
        ("int8", "RTX 3090, tensorrt-rtx 1.9.0", "unknown", "version", "try it there"),
        ("int8", "RTX 3090, tensorrt-rtx 1.7", "unknown", "version", "try it there"),
        ("int8", f"RTX 3090, driver 470.82, {VERSION}", "does not fit", "driver", "driver 580"),
        ("int8", f"RTX 3090, driver 570, {VERSION}", "unknown", "driver", "driver 580"),
        ("int8", "RTX 3090, aarch64", "does not fit", "system", "--flavour tensorrt"),
        ("int8", "GB10, aarch64", "unknown", "system", "try it there"),
        ("trt", "RTX 3090, driver 550, linux, x86_64, tensorrt 10.9.0.34", "fits", None, ""),
        ("trt", "L4", "does not fit", "gpu", "on a machine with that GPU"),
        ("trt", "RTX 3090, tensorrt 10.10.0", "does not fit", "version", "build it again"),
        ("compatible", "RTX 3090, tensorrt 10.10.0", "fits", None, ""),
        ("compatible", "RTX 3090, tensorrt 11.4.0", "fits", None, ""),
        ("compatible", "RTX 3090, tensorrt 10.8.0", "does not fit", "version", "build it again"),
        ("compatible", "RTX 3090, tensorrt 12.0.0", "unknown", "version", "try it there"),
        ("trt", f"RTX 3090, {VERSION}", "does not fit", "flavour", "strata[tensorrt]"),
        ("trt", "RTX 3090, windows", "does not fit", "system", "build it on that machine"),
        ("trt", "RTX 3090, driver 510", "does not fit", "driver", "install driver"),
        ("trt", "Jetson AGX Orin, tensorrt 10.9.0.34", "does not fit", "gpu", "with that GPU"),
        ("ampere", "H100, tensorrt 11.4.0, driver 580", "fits", None, ""),
        ("alike", "A40, tensorrt 11.4.0, driver 580", "fits", None, ""),
        ("alike", "L4, tensorrt 11.4.0", "does not fit", "gpu", "with that GPU"),
        ("ampere", "RTX 2080", "does not fit", "gpu", "with that GPU"),
        ("ampere", "Jetson AGX Orin", "does not fit", "gpu", "on the Jetson itself"),
    ],
)
def test_machines_and_plans(plans, plan, host, verdict, check, way_out):
    found = preflight(plans[plan], described_host(host))
    assert found.verdict == verdict, found
    error = found.error()
    if check is None:
        assert error is None
        return
    findings = {finding.check: finding for finding in found.findings}
    assert findings[check].state in {"no", "unknown", "not run"}
    assert way_out in findings[check].hint
    for finding in found.findings:
        assert finding.note
        assert finding.hint or finding.state in {"yes", "not said"}, finding
    expected = {"fits": type(None), "does not fit": BuildError}.get(verdict, MissingBackendError)
    assert isinstance(error, MissingBackendError if check == "flavour" else expected)


def flipped(data):
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (flipped, "its bytes are not those it was built with"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:64], "truncated"),
        (lambda data: data[:10], "truncated"),
        (lambda data: data + b"x", "belongs to another plan"),
    ],
)
def test_a_changed_plan(plans, tmp_path, change, says):
    path = copied(plans["int8"], tmp_path, change)
    found = preflight(path, described_host("RTX 3090"))
    assert found.verdict == "does not fit"
    assert found.findings[0].state == "no"
    assert says in found.findings[0].note
    assert found.findings[0].hint
    assert isinstance(found.error(), InputError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace('"sm86"', '"sm87"'), "was changed after it was written"),
        (lambda text: text[:-40], "not JSON"),
        (lambda _: "{}", "schema is missing"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "newer than this Strata"),
    ],
)
def test_a_changed_manifest(plans, tmp_path, change, says):
    path = copied(plans["int8"], tmp_path)
    note = manifest_path(path)
    note.write_text(change(note.read_text()))
    found = preflight(path, described_host("RTX 3090"))
    assert says in found.findings[0].note
    assert isinstance(found.error(), InputError)
    # What the header says is still looked at.
    assert {f.check: f.state for f in found.findings}["gpu"] == "yes"


def test_anothers_manifest(plans, tmp_path):
    path = copied(plans["int8"], tmp_path)
    manifest_path(path).write_bytes(manifest_path(plans["fp16"]).read_bytes())
    found = preflight(path, described_host("RTX 3090"))
    assert "belongs to another plan" in found.findings[0].note
    assert isinstance(found.error(), InputError)


def test_no_manifest_and_no_plan(plans, tmp_path):
    path = copied(plans["int8"], tmp_path)
    manifest_path(path).unlink()
    assert "manifest" in preflight(path, described_host("L4")).findings[0].note
    other = tmp_path / "other.engine"
    other.write_bytes(b"\x7fELF" + bytes(200))
    found = preflight(other, described_host("L4"))
    assert "not a TensorRT plan" in found.findings[0].note
    assert len(found.findings) == 1
    with pytest.raises(InputError, match=r"none\.engine"):
        preflight(tmp_path / "none.engine", described_host("L4"))


def test_a_future_release_is_unknown_not_wrong(plans, tmp_path):
    """Its header's bits are not read as today's; its own manifest is believed."""

    def future(data):
        return data[:24] + bytes((1, 9, 0, 7)) + data[28:]

    path = copied(plans["int8"], tmp_path, future)
    changes = {"version": "1.9.0.7", "plan_sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    described(path, **changes, targets=())
    found = preflight(path, described_host("RTX 3090, tensorrt-rtx 1.9.0.7"))
    assert found.verdict == "unknown"
    assert {f.check: f.state for f in found.findings}["gpu"] == "unknown"
    described(path, targets=("sm86",))
    assert preflight(path, described_host("RTX 3090, tensorrt-rtx 1.9.0.7")).verdict == "fits"
    assert preflight(path, described_host(f"RTX 3090, {VERSION}")).verdict == "does not fit"


def test_this_machine_says_not_run_without_a_gpu(plans):
    if find_gpus().devices:
        pytest.skip("this machine has a GPU")
    done = CliRunner().invoke(cli, ["preflight", str(plans["int8"])])
    assert done.exit_code == 3
    assert done.stdout.splitlines()[-1] == "not run"


def test_memory_that_is_too_small(plans):
    host = replace(described_host("L4"), gpus=(HostGpu("L4", capability_of("L4"), 1000),))
    found = preflight(plans["int8"], host)
    assert found.findings[-1].check == "memory"
    assert found.verdict == "does not fit"


def test_targets_that_are_no_gpus():
    facts = PlanFacts.of(PlanHeader(flavour="tensorrt"), None, 10)
    assert (facts.capabilities, facts.name) == (None, "TensorRT of an unknown version")


@pytest.mark.parametrize(
    ("plan", "host", "code"),
    [
        ("int8", "RTX 3090", 0),
        ("int8", "RTX 2080", 6),
        ("int8", "RTX 3090, tensorrt 10.9", 3),
        ("int8", "no gpu", 3),
        ("int8", "banana", 2),
    ],
)
def test_the_command_and_its_exit_codes(plans, plan, host, code):
    done = CliRunner().invoke(cli, ["preflight", str(plans[plan]), "--host", host])
    assert done.exit_code == code
    assert max(map(len, done.stdout.splitlines()), default=0) <= 100 + len(str(plans[plan]))
    assert ("hint:" in done.stderr) == bool(code)
    assert "Traceback" not in done.output
    if code != 2:
        done = CliRunner().invoke(cli, ["preflight", str(plans[plan]), "--host", host, "--json"])
        value = json.loads(done.stdout)
        assert value["schema"] == "strata.preflight/1"
        assert (value["verdict"] == "fits") == (code == 0)
        assert done.exit_code == code


def test_a_tampered_plan_ends_with_2(plans, tmp_path):
    path = copied(plans["int8"], tmp_path, flipped)
    done = CliRunner().invoke(cli, ["preflight", str(path), "--host", "RTX 3090"])
    assert done.exit_code == 2
    assert "do not load it" in done.stderr


def test_what_was_not_said_is_told(plans):
    done = CliRunner().invoke(cli, ["preflight", str(plans["int8"]), "--host", "sm86"])
    assert "fits, as far as was said (flavour, version, system, driver: not checked)" in done.stdout


@pytest.mark.parametrize("plan", ["int8", "trt"])
def test_both_flavours_are_described_and_refused_without_either_library(plans, plan):
    code = (
        "import sys\n"
        "for name in ('tensorrt', 'tensorrt_rtx', 'onnx', 'torch', 'onnxruntime'):\n"
        "    sys.modules[name] = None\n"
        "from click.testing import CliRunner; from deploy.cli import cli\n"
        f"run = lambda *a: CliRunner().invoke(cli, [*a, {str(plans[plan])!r}])\n"
        "print(run('inspect').exit_code, run('preflight', '--host', 'RTX 3090').exit_code, "
        "run('preflight', '--host', 'T4').exit_code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "0", "6"]


def runtime(state, bits):
    made = types.SimpleNamespace(
        engine_header_size=64,
        get_engine_validity=lambda head: (
            (types.SimpleNamespace(name=state), bits) if len(head) == 64 else None
        ),
    )
    return types.SimpleNamespace(
        module=types.SimpleNamespace(Runtime=lambda *_: made),
        version="1.7.1.116",
        logger=None,
        logging=load_flavour("rtx").logging,
    )


@pytest.mark.parametrize(
    ("state", "bits", "expected", "says"),
    [
        ("VALID", 0, "yes", "valid"),
        ("SUBOPTIMAL", 0, "yes", "not the best"),
        ("INVALID", 2, "no", "not built for this GPU"),
        (
            "INVALID",
            5,
            "no",
            "another version of TensorRT-RTX built it; the CUDA driver is too old",
        ),
        ("INVALID", 32, "no", "broken"),
        ("INVALID", 0, "no", "says no reason"),
    ],
)
def test_tensorrts_own_word(plans, state, bits, expected, says):
    finding = validity(runtime(state, bits), plans["int8"])
    assert (finding.check, finding.state) == ("tensorrt", expected)
    assert says in finding.note
    assert finding.hint or expected == "yes"


def test_the_real_check_is_heard_and_does_no_harm(plans):
    if find_gpus().devices:
        pytest.skip("this machine has a GPU")
    assert validity(load_flavour("rtx"), plans["int8"]).state == "no"  # no driver, no GPU


@pytest.mark.gpu
def test_it_fits_where_it_was_built_for(tmp_path):
    gpu = find_gpus().devices[0]
    flavour = load_flavour()
    targets = (gpu.capability,) if flavour.name == "rtx" else ()
    kind = "fp16" if gpu.capability.major < 8 else "int8fp16"
    source = write(tmp_path / "n.onnx", kind)
    artifact = build(
        source, BuildTarget(capabilities=targets), tmp_path / "n.engine", flavour=flavour
    )
    done = CliRunner().invoke(cli, ["preflight", str(artifact.plan)])
    assert done.exit_code == 0, done.output
    if flavour.name == "rtx":
        assert "calls it valid" in done.stdout
