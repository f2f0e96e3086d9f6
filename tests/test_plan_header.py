import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_nets import write

from core.errors import InputError
from deploy.engines.build import build
from deploy.engines.flavour import load_flavour
from deploy.engines.plan_header import HEADER_BYTES, PlanHeader, parse_header, read_header
from deploy.engines.target import BuildTarget, capability_of, parse_targets


def header(version=(1, 7, 1, 116), mask=0x7E, size=1000, layout=2, magic=b"vtrt"):
    start = struct.pack("<4s4xI4xQ4s4sI", b"vtrt", layout, size, bytes(version), magic, mask)
    return start.ljust(HEADER_BYTES, b"\0")


@pytest.mark.parametrize(
    "targets", ["sm75", "sm80", "sm86", "sm89", "sm120", "sm121", "sm86,sm89", "sm75,sm120"]
)
def test_the_header_of_a_real_plan_says_what_was_asked(tmp_path, targets):
    source = write(tmp_path / "net.onnx", "fp16")
    asked = parse_targets(targets)
    artifact = build(source, BuildTarget(capabilities=asked), tmp_path / "net.engine")
    found = read_header(artifact.plan)
    assert found.flavour == "rtx"
    assert found.version == load_flavour("rtx").version == artifact.manifest.version
    assert found.plan_bytes == artifact.plan.stat().st_size
    assert found.capabilities == asked
    assert found.unnamed_bits == 0
    assert artifact.manifest.targets == tuple(map(str, asked))
    assert artifact.manifest.options["targets"] == "named"


def test_the_default_is_all_targets_but_turing(tmp_path):
    artifact = build(write(tmp_path / "net.onnx"), BuildTarget(), tmp_path / "net.engine")
    flavour = load_flavour("rtx")
    found = read_header(artifact.plan)
    assert found.capabilities == tuple(c for c in flavour.capabilities if c.major > 7)
    assert found.unnamed_bits == 0x40
    assert artifact.manifest.options["targets"] == "default"


def test_a_release_that_was_not_seen_keeps_its_bits_to_itself():
    assert parse_header(header(version=(1, 8, 0, 3), mask=4)) == PlanHeader(
        flavour="rtx", version="1.8.0.3", plan_bytes=1000
    )
    # 1.4 could not name SM 12.1, so its sixth bit is not read as that.
    old = parse_header(header(version=(1, 4, 0, 76), mask=0x3E))
    assert capability_of("sm121") not in (old.capabilities or ())
    assert old.unnamed_bits == 0x20


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", PlanHeader()),
        (b"vtrt", PlanHeader()),
        (b"\x7fELF" + bytes(80), PlanHeader()),
        (b"ftrt" + bytes(80), PlanHeader(flavour="tensorrt")),
        (header(layout=3), PlanHeader(flavour="rtx")),
        (header(magic=b"xxxx"), PlanHeader(flavour="rtx")),
        (header(version=(0, 0, 0, 0)), PlanHeader(flavour="rtx")),
        (header()[:-1], PlanHeader()),
    ],
)
def test_what_contradicts_itself_is_unknown(data, expected):
    assert parse_header(data) == expected


@given(st.binary(max_size=100))
def test_no_bytes_break_it(data):
    parse_header(data)
    parse_header(b"vtrt" + data)


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"none\.engine"):
        read_header(tmp_path / "none.engine")
