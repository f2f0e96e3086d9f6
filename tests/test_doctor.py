import json
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from deploy.doctor import diagnose, trains_in_bfloat16
from deploy.engines.target import capability_of
from deploy.machines.host import Gpu, Gpus
from deploy.machines.machine import LIBRARIES, Cpu, Machine, examine

STRATA = [sys.executable, "-c", "from deploy.cli import main; main()", "doctor"]
NO_GPU = Gpus(problem="no NVIDIA driver")
BASE = Machine(
    python="3.11.9",
    system="Linux 6.1",
    architecture="x86_64",
    cpu=Cpu("CPU", 2, ("AVX2",)),
    memory_bytes=(1 << 33, 1 << 34),
    disk_bytes=(1 << 36, 1 << 38),
    libraries=dict.fromkeys(LIBRARIES, "1.0"),
    flavours={"rtx": "1.7.1.116"},
    gpus=NO_GPU,
    jetson="",
)
EDGE = {name: "1.0" if name in {"numpy", "pillow", "polygraphy"} else None for name in LIBRARIES}
JETSON = {"architecture": "aarch64", "jetson": "R36.4.3", "libraries": EDGE}


def gpu(*names):
    devices = tuple(Gpu(name, capability_of(name), 8 << 30) for name in names)
    return Gpus(devices=devices, driver="580.1", cuda="13.0")


def states(**changes):
    return {v.stage: (v.state, v.note) for v in diagnose(replace(BASE, **changes))}


@pytest.mark.parametrize(
    ("changes", "stage", "state", "note"),
    [
        ({}, "train", "yes", "float32"),
        ({"cpu": Cpu("x", 8, ("AVX-512", "BF16"))}, "train", "yes", "bfloat16"),
        ({}, "compare, evaluate", "yes", "no VNNI"),
        ({"cpu": Cpu("x", 8, ("VNNI",))}, "compare, evaluate", "yes", ""),
        ({}, "build --flavour rtx", "yes", "1.7.1.116"),
        ({}, "build --flavour tensorrt", "no", "no NVIDIA driver"),
        ({}, "run an engine", "no", "needs an NVIDIA GPU"),
        ({}, "run a bundle", "yes", "on the CPU, by ONNX Runtime"),
        ({"gpus": gpu("L4")}, "run a bundle", "yes", "on L4"),
        ({"gpus": gpu("H100")}, "run a bundle", "yes", "ONNX Runtime (--on cpu)"),
        ({"libraries": EDGE}, "run a bundle", "needs", "pip install onnxruntime"),
        ({"libraries": EDGE}, "train", "needs", "torch, safetensors: pip install 'strata[export]'"),
        ({"libraries": EDGE}, "calibrate", "needs", "onnxruntime"),
        ({"libraries": EDGE}, "build --flavour rtx", "yes", "any RTX GPU"),
        ({"flavours": {}}, "build --flavour rtx", "needs", "pip install 'strata[rtx]'"),
        ({"gpus": gpu("L4")}, "run an engine", "yes", "rtx plans, on L4"),
        ({"gpus": gpu("L4")}, "build --flavour tensorrt", "needs", "strata[tensorrt]"),
        ({"gpus": gpu("H100")}, "run an engine", "needs", "strata[tensorrt]"),
        ({"gpus": gpu("L4"), "flavours": {}}, "run an engine", "needs", "strata[rtx]"),
        (
            {"gpus": gpu("L4"), "flavours": {"rtx": "1", "tensorrt": "11.4"}},
            "run an engine",
            "yes",
            "rtx and tensorrt plans",
        ),
        (JETSON | {"gpus": gpu("Orin")}, "build --flavour rtx", "no", "not for Jetson"),
        (
            JETSON | {"gpus": gpu("Orin"), "flavours": {}},
            "build --flavour tensorrt",
            "needs",
            "JetPack",
        ),
        (
            JETSON | {"gpus": gpu("Orin"), "flavours": {"tensorrt": "10.3.0"}},
            "build --flavour tensorrt",
            "yes",
            "TensorRT 10.3.0, for Orin",
        ),
        ({"architecture": "arm64"}, "build --flavour rtx", "no", "arm64"),
    ],
)
def test_each_machine_gets_its_verdict_and_way_out(changes, stage, state, note):
    found = states(**changes)[stage]
    assert found[0] == state
    assert note in found[1]


def test_bfloat16_follows_the_processor():
    assert not trains_in_bfloat16(BASE)
    assert trains_in_bfloat16(replace(BASE, cpu=Cpu("x", 1, ("BF16",))))


def test_this_machine_is_described(tmp_path):
    machine = examine(tmp_path / "not" / "there" / "yet")
    assert machine.python == ".".join(map(str, sys.version_info[:3]))
    assert machine.cpu.cores >= 1
    assert 0 < machine.memory_bytes[0] <= machine.memory_bytes[1]
    assert 0 < machine.disk_bytes[0] <= machine.disk_bytes[1]
    assert machine.libraries["numpy"]
    assert machine.flavours.keys() >= {"rtx"}


def test_the_command_prints_the_table_and_ends_well():
    done = subprocess.run(STRATA, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ("This machine", "CPU", "GPU", "What works here", "build --flavour rtx"):
        assert words in done.stdout
    assert not [line for line in done.stdout.splitlines() if line != line.rstrip()]


def test_json_holds_the_same():
    done = subprocess.run([*STRATA, "--json"], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert {"python", "cpu", "gpus", "libraries", "flavours"} <= set(facts["machine"])
    assert [s["stage"] for s in facts["stages"]] == [v.stage for v in diagnose(BASE)]


@pytest.mark.parametrize("argument", ["doctor", "--help"])
def test_it_answers_at_once_and_imports_nothing_heavy(argument):
    heavy = ["torch", "onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "numpy", "rich", "PIL"]
    code = (
        f"import sys; sys.argv = ['strata', {argument!r}]\nfrom deploy.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([m for m in {heavy!r} if m in sys.modules])"
    )
    times = []
    for _ in range(3):  # the machine may be busy: the fastest of three is the command's own
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        times.append(time.perf_counter() - start)
    assert done.stdout.splitlines()[-1] == "[]"
    assert min(times) < 0.5, times
