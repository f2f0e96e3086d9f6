import os
import subprocess
import sys
import types

import pytest

from core.errors import BuildError, InputError, MissingBackendError
from deploy.engines import flavour, flavour_kinds
from deploy.engines.flavour import load_flavour
from deploy.engines.flavour_kinds import FLAVOURS, installed_flavours
from deploy.engines.log import ParserFault, TensorrtLog, build_failure, clean, parser_failure
from deploy.engines.target import capability_of
from deploy.machines.host import Gpu, Gpus, find_gpus


def python(code):
    # Loading RTX in this process said so to Polygraphy in the environment.
    fresh = {k: v for k, v in os.environ.items() if not k.startswith("POLYGRAPHY")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=fresh
    )
    return done.stdout.strip()


def test_rtx_is_loaded_once_with_its_version_and_targets():
    rtx = load_flavour("rtx")
    assert rtx.name == "rtx"
    assert rtx.version == installed_flavours()["rtx"]
    assert {str(c) for c in rtx.capabilities} >= {"sm75", "sm80", "sm86", "sm89", "sm120"}
    assert load_flavour("rtx") is rtx


def test_a_flavour_that_is_no_flavour_is_refused():
    with pytest.raises(InputError, match="not known") as caught:
        load_flavour("openvino")
    assert "auto, rtx, tensorrt" in caught.value.hint


def pretend(monkeypatch, installed, gpus=()):
    devices = tuple(Gpu(name, capability_of(name), 8 << 30) for name in gpus)
    monkeypatch.setattr(flavour, "installed_flavours", lambda: dict.fromkeys(installed, "1"))
    monkeypatch.setattr(flavour, "find_gpus", lambda: Gpus(devices=devices))
    monkeypatch.setattr(flavour, "_load", lambda name: name)


@pytest.mark.parametrize(
    ("installed", "gpus", "chosen"),
    [
        (["rtx"], [], "rtx"),
        (["tensorrt"], [], "tensorrt"),
        (["rtx", "tensorrt"], [], "rtx"),
        (["rtx", "tensorrt"], ["RTX 4090"], "rtx"),
        (["rtx", "tensorrt"], ["H100"], "tensorrt"),
        (["rtx", "tensorrt"], ["Jetson Orin"], "tensorrt"),
        (["rtx", "tensorrt"], ["H100", "L4"], "rtx"),
        (["rtx"], ["H100"], "rtx"),
    ],
)
def test_auto_takes_what_serves_this_machine(monkeypatch, installed, gpus, chosen):
    pretend(monkeypatch, installed, gpus)
    assert load_flavour() == chosen


def test_no_tensorrt_at_all_says_how_to_get_one(monkeypatch):
    pretend(monkeypatch, [])
    with pytest.raises(MissingBackendError, match="no TensorRT is installed") as caught:
        load_flavour()
    assert "pip install 'strata[rtx]'" in caught.value.hint


@pytest.fixture
def fresh():
    flavour._load.cache_clear()
    yield
    flavour._load.cache_clear()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ModuleNotFoundError("tensorrt"), "not installed"),
        (ImportError("libnvinfer.so.10: cannot open"), "libnvinfer"),
        (OSError("libcudart"), "cannot be imported"),
    ],
)
def test_an_import_that_fails_says_why_and_how_to_get_it(monkeypatch, fresh, error, says):
    def fail(name):
        raise error

    monkeypatch.setattr(flavour, "importlib", types.SimpleNamespace(import_module=fail))
    with pytest.raises(MissingBackendError, match=says) as caught:
        load_flavour("tensorrt")
    assert "strata[tensorrt]" in caught.value.hint


def test_a_flavour_without_metadata_still_counts(monkeypatch):
    """JetPack installs tensorrt by apt, which pip may know nothing of."""
    monkeypatch.setattr(
        flavour_kinds.importlib.util,
        "find_spec",
        lambda name: object() if name == "tensorrt" else None,
    )
    assert installed_flavours() == {"tensorrt": "unknown"}


def test_polygraphy_is_bound_to_the_flavour_and_its_logger():
    code = (
        "from deploy.engines.flavour import load_flavour; f = load_flavour('rtx')\n"
        "f.polygraphy_error\n"
        "import polygraphy.backend.trt.util as u, polygraphy.config as c\n"
        "print(c.USE_TENSORRT_RTX, u.get_trt_logger() is f.logger)"
    )
    assert python(code) == "True True"


def test_one_process_serves_one_flavour():
    code = (
        "import polygraphy.config\nfrom deploy.engines.flavour import load_flavour\n"
        "try: load_flavour('rtx').polygraphy_error\nexcept Exception as e: print(e)"
    )
    assert "start another one" in python(code)


def test_importing_the_seam_imports_neither_flavour():
    code = (
        "import sys, deploy.engines.flavour, deploy.engines.build\n"
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'polygraphy', 'onnx')"
        " if m in sys.modules])"
    )
    assert python(code) == "[]"


def test_this_machine_is_asked_once_and_answers():
    gpus = find_gpus()
    assert bool(gpus.devices) != bool(gpus.problem)
    assert find_gpus() is gpus


# ── the log ──────────────────────────────────────────────────────────────────────────────


def test_warnings_come_once_and_in_our_words():
    log = TensorrtLog()
    for layer in range(50):
        log.add("warning", " (foreignNode) Converting conv activation scales to fp32.")
        log.add("warning", " (foreignNode) Converting conv weight scales to fp32.")
        log.add("info", f"layer {layer}")
    log.add("warning", "Something new In f at /_src/x.cpp:12")
    assert len(log.warnings) == 2
    assert "widened" in log.warnings[0]
    assert log.warnings[1] == "Something new"
    assert log.errors == []


def test_a_listener_hears_every_line():
    heard = []
    log = TensorrtLog(lambda *line: heard.append(line))
    log.add("verbose", "a")
    log.add("error", "b")
    log.add("error", "b")
    assert heard == [("verbose", "a"), ("error", "b"), ("error", "b")]
    assert log.errors == ["b"]


# Lines as tensorrt-rtx 1.7.1 wrote them.
TURING = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Myelin ([pass.cpp:337: "
    "check_turing_op_compatibility] Cannot compile operation 'fc' for Turing (SM75): FP32 GEMM is "
    "not supported. In compileGraph at /_src/optimizer/myelin/codeGenerator.cpp:2012)"
)
NO_DRIVER = (
    "IBuilder::buildSerializedNetwork: Error Code 1: Cuda Runtime (In generateForCurrent at "
    "/_src/runtime/core/cudaDeviceProfile.cpp:221 (cudaError 35: CUDA driver version is "
    "insufficient for CUDA runtime version))"
)
NO_PROFILE = (
    "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (Network has dynamic or shape "
    "inputs, but no optimization profile has been defined. In validate at "
    "/_src/optimizer/api/network.cpp:4023)"
)
AFTERMATH = (
    "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
    "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient "
    "for CUDA runtime version))"
)


@pytest.mark.parametrize(
    ("line", "kind", "says", "hint"),
    [
        (TURING, BuildError, "'fc' for Turing", "--precision fp16"),
        (NO_DRIVER, MissingBackendError, "needs a GPU and its driver", "--flavour rtx"),
        (NO_PROFILE, BuildError, "no optimization profile", "--batch"),
        ("std::bad_alloc", BuildError, "bad_alloc", "free some memory"),
        ("Quantum flux", BuildError, "Quantum flux", "-v"),
    ],
)
def test_a_failed_build_gives_its_cause_and_a_way_out(line, kind, says, hint):
    log = TensorrtLog()
    log.add("error", line)
    log.add("error", AFTERMATH)
    error = build_failure("net.onnx", log)
    assert type(error) is kind
    assert says in error.problem
    assert hint in error.hint
    assert "_src" not in error.problem
    assert ".cpp" not in error.problem


def test_a_failure_without_a_word_still_says_so():
    assert "no reason was given" in build_failure("net.onnx", TensorrtLog()).problem


def test_a_parser_fault_names_the_node_and_the_cause():
    text = (
        "Invalid Node - conv1\nITensor::getDimensions: Error Code 4: API Usage Error (conv1: "
        "IConvolutionLayer `input` and `bias` must be of same type. `input` is of type Float but "
        "`bias` is of type Half. In validateTypes at /_src/x/convolutionNode.cpp:110)\n" + AFTERMATH
    )
    fault = ParserFault("conv1", "Conv", "INVALID_NODE", text)
    error = parser_failure("net.onnx", [fault], TensorrtLog())
    assert error.problem == (
        "net.onnx: TensorRT cannot take node 'conv1' (Conv): conv1: IConvolutionLayer `input` and "
        "`bias` must be of same type. `input` is of type Float but `bias` is of type Half"
    )
    assert "never mixes types" in error.hint


@pytest.mark.parametrize("text", ["", "plain", "(", "Error Code 4: x (", AFTERMATH, "a" * 10_000])
def test_cleaning_takes_any_text(text):
    assert len(clean(text)) <= len(text)


def test_each_flavour_knows_its_extra():
    assert [kind.hint for kind in FLAVOURS.values()] == [
        "pip install 'strata[rtx]'",
        "pip install 'strata[tensorrt]'",
    ]


@pytest.mark.gpu
def test_a_gpu_machine_names_its_gpus():
    gpus = find_gpus()
    assert gpus.devices
    assert gpus.driver
    assert all(gpu.memory_bytes > 1 << 30 for gpu in gpus.devices)
    assert all(capability_of(gpu.name) == gpu.capability for gpu in gpus.devices)
