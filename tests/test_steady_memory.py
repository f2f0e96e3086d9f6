"""Two builds of one file are one file, whatever is around them; and what starts anew, and when."""

import os
import subprocess
import sys

import onnx
import pytest
from tensorrt_resnet import resnet50

from core.artifacts import sha256_file
from deploy.cli import steady_memory as steady

STRATA = [sys.executable, "-c", "from deploy.cli import main; main()", "build"]
LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc and Linux alone")


@LINUX
def test_two_builds_are_equal_elsewhere_in_another_environment_and_however_they_are_watched(
    tmp_path,
):
    digests = set()
    for folder, watch, around in (
        ("a", (), {}),
        ("a-folder/whose-path-is-longer", ("-vv",), {f"MORE_{i}": "x" * i for i in range(90)}),
        ("c", ("--json",), {"OMP_NUM_THREADS": "2", "PYTHONHASHSEED": "8"}),
    ):
        source, plan = tmp_path / folder / "net.onnx", tmp_path / folder / "net.engine"
        source.parent.mkdir(parents=True)
        onnx.save(resnet50(quantized=True), source)
        told = [*STRATA, str(source), "-o", str(plan), *watch]
        subprocess.run(told, check=True, capture_output=True, env=os.environ | around)
        digests.add(sha256_file(plan))
    assert len(digests) == 1


@pytest.fixture
def started(monkeypatch):
    """What would be started anew by ``strata build net.onnx``, which is all this process is."""
    calls = []
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(sys, "argv", ["strata", "build", "net.onnx"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", "strata", "build", "net.onnx"])
    monkeypatch.setattr(steady, "_unshuffle", lambda: calls.append("unshuffled"))
    monkeypatch.setattr(os, "execve", lambda *call: calls.append(call))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.delenv("STRATA_SETTLED", raising=False)
    return calls


def test_the_same_words_are_started_with_glibc_told(started):
    steady.settle_memory()
    first, (program, words, environment) = started
    assert first == "unshuffled"
    assert program == sys.executable
    assert words == [sys.executable, "-X", "dev", "strata", "build", "net.onnx"]
    changed = {
        "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0",
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "STRATA_SETTLED": str(os.getpid()),
    }
    assert environment == dict(os.environ) | changed


def test_what_glibc_was_told_stays(started, monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.check=3")
    steady.settle_memory()
    told = started[1][2]["GLIBC_TUNABLES"]
    assert told == "glibc.malloc.check=3:glibc.malloc.tcache_count=0"


def test_it_is_started_once_even_where_glibc_is_kept_from_hearing_it(started, monkeypatch):
    monkeypatch.setenv("STRATA_SETTLED", str(os.getpid()))
    steady.settle_memory()
    assert started == []


def test_a_command_that_a_settled_one_starts_is_settled_too(started, monkeypatch):
    monkeypatch.setenv("STRATA_SETTLED", str(os.getppid()))
    steady.settle_memory()
    assert len(started) == 2


@LINUX
def test_the_process_that_is_started_is_not_shuffled_where_that_is_allowed():
    code = (
        "import ctypes, os\n"
        "from deploy.cli.steady_memory import settle_memory\n"
        "settle_memory()\n"
        "print(os.environ['STRATA_SETTLED'] == str(os.getpid()))\n"
        "print(hex(ctypes.CDLL(None).personality(0xFFFFFFFF)))\n"
        "print(ctypes.CDLL(None).personality(0x0040000) >= 0)"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, "build"], check=True, capture_output=True, text=True
    )
    settled, kind, allowed = said.stdout.split()
    assert settled == "True"
    assert bool(int(kind, 16) & 0x0040000) == (allowed == "True")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("platform", "darwin"),
        ("executable", ""),
        ("orig_argv", ["python", "-m", "pytest", "tests"]),  # a program that calls main()
    ],
)
def test_nothing_is_started_where_it_would_not_help_or_lose_something(
    started, monkeypatch, name, value
):
    monkeypatch.setattr(sys, name, value)
    steady.settle_memory()
    assert started == []


def test_without_an_interpreter_to_start_this_one_goes_on(started, monkeypatch):
    def gone(*call):
        raise FileNotFoundError(call[0])

    monkeypatch.setattr(os, "execve", gone)
    steady.settle_memory()
    assert started == ["unshuffled"]
