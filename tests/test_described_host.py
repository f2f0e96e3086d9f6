import contextlib
import io
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from refusal import refused

from core.errors import InputError
from deploy.engines.target import capability_of
from deploy.engines.versions import loads, numbers
from deploy.machines.host import find_gpus
from deploy.preflights.described_host import DescribedHost, HostGpu, described_host, this_host


def test_this_machine():
    host = this_host()
    assert host.here
    assert (host.system, host.architecture) == ("linux", "x86_64")
    assert len(host.gpus) == len(find_gpus().devices)
    assert bool(host.gpus) != bool(host.no_gpu)
    assert "rtx" in host.flavours


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sm86", {"gpus": (HostGpu("sm86", capability_of("8.6")),)}),
        ("8.9", {"gpus": (HostGpu("8.9", capability_of("8.9")),)}),
        ("linux", {"system": "linux"}),
        ("Windows, AMD64", {"system": "windows", "architecture": "x86_64"}),
        ("driver 580.65.06", {"driver": "580.65.06"}),
        ("driver r580, CUDA 13.0", {"driver": "580", "cuda": "13.0"}),
        ("tensorrt-rtx 1.7.1", {"flavours": {"rtx": "1.7.1"}}),
        ("TensorRT_RTX 1.7", {"flavours": {"rtx": "1.7"}}),
        (
            "tensorrt 10.9.0.34, TensorRT for RTX 1.6.1",
            {"flavours": {"tensorrt": "10.9.0.34", "rtx": "1.6.1"}},
        ),
        ("no gpu, linux", {"gpus": (), "no_gpu": "it has no GPU", "system": "linux"}),
        (
            "RTX 3090, L4",
            {
                "gpus": (
                    HostGpu("RTX 3090", capability_of("8.6")),
                    HostGpu("L4", capability_of("8.9")),
                )
            },
        ),
        (
            "Jetson AGX Orin",
            {
                "gpus": (HostGpu("Jetson AGX Orin", capability_of("8.7")),),
                "system": "linux",
                "architecture": "aarch64",
                "jetson": True,
            },
        ),
    ],
)
def test_facts_in_words(text, expected):
    assert described_host(text) == DescribedHost(name=text, **expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "says nothing"),
        (" , ", "says nothing"),
        ("sm86, banana", "'banana' is no fact"),
        ("driver new", "'driver new' is no fact"),
        ("tensorrt", "'tensorrt' is no fact"),
        ("RTX 6000", "more than one GPU"),
        ("none.json", "cannot be read"),
    ],
)
def test_what_is_no_description(text, says):
    refused(lambda: described_host(text), says)


@given(st.text(max_size=30))
def test_any_words_are_read_or_refused(text):
    with contextlib.suppress(InputError):
        described_host(text)


def doctor():
    code = "from deploy.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_what_doctor_wrote_is_read_back(tmp_path, monkeypatch):
    text = doctor()
    path = tmp_path / "host.json"
    path.write_text(text)
    here, told = this_host(), described_host(str(path))
    assert told.name == "host.json"
    assert not told.here
    for field in ("gpus", "no_gpu", "system", "architecture", "driver", "cuda", "flavours"):
        assert getattr(told, field) == getattr(here, field), field
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert described_host("-").flavours == told.flavours


def test_a_gpu_in_doctors_json(tmp_path):
    value = json.loads(doctor())
    device = {"name": "NVIDIA L4", "capability": {"major": 8, "minor": 9}, "memory_bytes": 1 << 34}
    value["machine"]["gpus"] = {"devices": [device], "driver": "580", "cuda": "13.0", "problem": ""}
    path = tmp_path / "host.json"
    path.write_text(json.dumps(value))
    assert described_host(str(path)).gpus == (HostGpu("NVIDIA L4", capability_of("L4"), 1 << 34),)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"machine": 3}', '{"machine": {}}', '{"machine": {"gpus": []}}']
)
def test_other_json_is_refused(tmp_path, text):
    path = tmp_path / "host.json"
    path.write_text(text)
    refused(lambda: described_host(str(path)), "host.json")


@pytest.mark.parametrize(
    ("flavour", "plan", "runtime", "compatible", "expected"),
    [
        ("rtx", "1.7.1.116", "1.7.1.116", False, "yes"),
        ("rtx", "1.7.1.116", "1.7.1", False, "yes"),
        ("rtx", "1.7.1.116", "1.7.1.117", False, "unknown"),
        ("rtx", "1.7.1.116", "1.7", False, "unknown"),
        ("rtx", "1.7.1.116", "1.7.2", False, "no"),
        ("rtx", "1.6.1.120", "1.7.1.116", False, "no"),
        ("rtx", "1.7.1.116", "1.6.1.120", False, "no"),
        ("rtx", "1.7.1.116", "1.6.1", True, "no"),
        ("rtx", "1.7.1.116", "1.9.0", False, "unknown"),  # came after this Strata
        ("rtx", "1.9.0.1", "1.7.1.116", False, "no"),  # an older one cannot know it
        ("rtx", "1.9.0.1", "1.9.0.1", False, "yes"),
        ("rtx", "", "1.7.1", False, "unknown"),
        ("rtx", "1.7.1", "unknown", False, "unknown"),
        ("tensorrt", "10.9.0.34", "10.9.0.34", False, "yes"),
        ("tensorrt", "10.9.0.34", "10.10.0.31", False, "no"),
        ("tensorrt", "10.9.0.34", "10.10.0.31", True, "yes"),
        ("tensorrt", "10.9.0.34", "10.8.0", True, "no"),
        ("tensorrt", "10.9.0.34", "11.4.0", True, "yes"),
        ("tensorrt", "8.6.1", "10.9.0", True, "yes"),
        ("tensorrt", "8.6.1", "11.0.0", True, "no"),
        ("tensorrt", "11.4.0", "12.0.0", True, "unknown"),
    ],
)
def test_which_version_loads_which(flavour, plan, runtime, compatible, expected):
    assert loads(flavour, plan, runtime, compatible=compatible) == expected


@given(st.lists(st.integers(0, 99), min_size=3, max_size=4).map(lambda v: ".".join(map(str, v))))
def test_a_version_loads_itself(version):
    assert loads("rtx", version, version) == "yes"
    assert len(numbers(version)) == version.count(".") + 1


def test_a_description_is_not_read_without_end(tmp_path, monkeypatch):
    (tmp_path / "host.json").symlink_to("/dev/zero")
    with pytest.raises(InputError, match="a pipe, a device or a socket"):
        described_host(str(tmp_path / "host.json"))
    with open("/dev/zero", encoding="utf-8") as endless:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", endless)
        with pytest.raises(InputError, match="more than 1048576 characters"):
            described_host("-")


def test_a_description_that_is_no_text_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), "utf-8"))
    with pytest.raises(InputError, match="no text"):
        described_host("-")
