import json
import subprocess
import sys

import pytest
from tensorrt_nets import write

from calib_data.preprocess import PRESETS
from core.errors import InputError
from deploy.engines.build import build
from deploy.engines.manifest import (
    Binding,
    Manifest,
    ShapeRange,
    manifest_path,
    read_manifest,
    verify_plan,
)
from deploy.engines.manifest import _seal as seal
from deploy.engines.target import BuildTarget, parse_batch
from exporter.card import Card

SHA = "0123456789abcdef" * 4
MANIFEST = Manifest(
    plan="int8.engine",
    plan_bytes=100,
    plan_sha256=SHA,
    flavour="rtx",
    version="1.7.1.116",
    platform="linux-x86_64",
    targets=("sm86", "sm89"),
    inputs=(Binding("input", "float32", (-1, 3, 8, 8)),),
    outputs=(Binding("logits", "float32", (-1, 5)),),
    profiles=({"input": ShapeRange((1, 3, 8, 8), (4, 3, 8, 8), (8, 3, 8, 8))},),
    layers={"Conv": {"int8": ("conv1",), "float16": ("conv2",)}, "Gemm": {"int8": ("fc",)}},
    parents={"onnx": SHA, "statistics": SHA},
    options={"tf32": False, "optimization_level": None, "workspace_bytes": 1 << 20},
    card=Card(
        preprocess=PRESETS["imagenet-v2"],
        labels=("cat", "a, b", "ärger", "[ 1,\n 2 ]"),
        synthetic="random:0",
        caveats=("noise",),
        weights={"name": "w", "top1": "0.9"},
        stage="int8",
    ),
    accuracy={"top1": 0.875},
)


def put(folder, value):
    engine = folder / "int8.engine"
    engine.write_bytes(bytes(100))
    manifest_path(engine).write_text(value if isinstance(value, str) else json.dumps(value))
    return engine


def sealed(value):
    value = {k: v for k, v in value.items() if k != "seal"}
    return value | {"seal": seal(value)}


def test_it_reads_back_as_it_was_written(tmp_path):
    assert read_manifest(put(tmp_path, MANIFEST.to_text())) == MANIFEST
    assert read_manifest(tmp_path / "int8.engine.json") == MANIFEST


def test_the_text_is_made_for_reading(tmp_path):
    text = MANIFEST.to_text()
    assert '"shape": [-1, 3, 8, 8]' in text
    assert '"ärger"' in text
    assert json.loads(text) == MANIFEST.to_json()
    assert str(tmp_path) not in text


def test_it_counts_layers_by_precision():
    assert MANIFEST.count("int8") == 2
    assert MANIFEST.count("int8", "Conv") == 1
    assert MANIFEST.count("float16") == 1
    assert MANIFEST.count("float32") == 0


@pytest.mark.parametrize("field", sorted(set(MANIFEST.to_json()) - {"seal"}))
def test_a_missing_field_is_named(tmp_path, field):
    value = MANIFEST.to_json()
    del value[field]
    with pytest.raises(InputError, match=f"{field} is missing"):
        read_manifest(put(tmp_path, sealed(value)))


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("schema", "1"),
        ("schema", True),
        ("plan", 5),
        ("plan_bytes", "100"),
        ("plan_bytes", 100.0),
        ("plan_bytes", True),
        ("plan_sha256", "abc"),
        ("plan_sha256", SHA.upper()),
        ("flavour", "trt"),
        ("version", None),
        ("targets", "sm86"),
        ("targets", [86]),
        ("inputs", {}),
        ("inputs", ["input"]),
        ("inputs", [{"name": "input", "dtype": "float32"}]),
        ("inputs", [{"name": "input", "dtype": "float32", "shape": [1.5]}]),
        ("profiles", [{"input": {"min": [1], "opt": [1]}}]),
        ("profiles", [[]]),
        ("layers", {"Conv": ["conv1"]}),
        ("layers", {"Conv": {"int8": "conv1"}}),
        ("parents", {}),
        ("parents", {"onnx": "short"}),
        ("options", {"tf32": []}),
        ("options", None),
        ("accuracy", {"top1": "high"}),
        ("accuracy", {"top1": True}),
        ("card", []),
        ("card", {"labels": "cat"}),
        ("card", {"preprocess": {"resize": 0}}),
        ("card", {"stage": 3}),
    ],
)
def test_a_field_of_the_wrong_kind_is_named(tmp_path, field, wrong):
    value = sealed(MANIFEST.to_json() | {field: wrong})
    with pytest.raises(InputError, match=r"int8\.engine\.json") as caught:
        read_manifest(put(tmp_path, value))
    assert field.removesuffix("s") in caught.value.problem or field == "card"


@pytest.mark.parametrize(("schema", "says"), [(2, "newer"), (0, "older")])
def test_another_schema_is_refused(tmp_path, schema, says):
    with pytest.raises(InputError, match=f"schema {schema}, {says}"):
        read_manifest(put(tmp_path, sealed(MANIFEST.to_json() | {"schema": schema})))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 1}', "\x00\xff"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    with pytest.raises(InputError):
        read_manifest(put(tmp_path, text))


def test_an_edit_by_hand_is_noticed(tmp_path):
    text = MANIFEST.to_text()
    for old, new in [('"sm86"', '"sm80"'), ("[8, 3, 8, 8]", "[9, 3, 8, 8]"), ("0.875", "0.975")]:
        assert old in text
        with pytest.raises(InputError, match="changed after it was written"):
            read_manifest(put(tmp_path, text.replace(old, new)))


def test_every_flipped_byte_is_noticed(tmp_path):
    data = MANIFEST.to_text().encode()
    for at in range(0, len(data), 7):
        changed = bytearray(data)
        changed[at] ^= 0x10
        engine = put(tmp_path, "{}")
        manifest_path(engine).write_bytes(changed)
        try:
            found = read_manifest(engine)
        except InputError:
            continue
        assert found == MANIFEST, f"byte {at}: {data[at - 20 : at + 20]!r}"  # white space only


# ── plan and manifest together ───────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pair")
    source = write(folder / "int8.onnx", "int8")
    engine = build(source, BuildTarget(), folder / "int8.engine").plan
    target = BuildTarget(profiles=(parse_batch("2"),))
    other = build(source, target, folder / "other.engine").plan
    return engine, other


def copy(pair, folder):
    engine = folder / "int8.engine"
    engine.write_bytes(pair[0].read_bytes())
    manifest_path(engine).write_bytes(manifest_path(pair[0]).read_bytes())
    return engine


def test_a_good_pair_verifies_under_another_name_too(pair, tmp_path):
    engine = copy(pair, tmp_path)
    assert verify_plan(engine).plan == "int8.engine"
    moved = tmp_path / "resnet.plan"
    engine.rename(moved)
    manifest_path(engine).rename(manifest_path(moved))
    assert verify_plan(moved).flavour == "rtx"


@pytest.mark.parametrize("at", [100, 5000, -1])
def test_a_flipped_byte_of_the_plan_is_noticed(pair, tmp_path, at):
    engine = copy(pair, tmp_path)
    data = bytearray(engine.read_bytes())
    data[at] ^= 1
    engine.write_bytes(data)
    with pytest.raises(InputError, match="not those it was built with") as caught:
        verify_plan(engine)
    assert "do not load it" in caught.value.hint


@pytest.mark.parametrize("keep", [0, 30, 64, 1000, -1])
def test_a_truncated_plan_is_named(pair, tmp_path, keep):
    engine = copy(pair, tmp_path)
    engine.write_bytes(engine.read_bytes()[:keep])
    with pytest.raises(InputError, match="truncated"):
        verify_plan(engine)


def test_another_plans_manifest_is_named(pair, tmp_path):
    engine = copy(pair, tmp_path)
    manifest_path(engine).write_bytes(manifest_path(pair[1]).read_bytes())
    with pytest.raises(InputError, match=r"belongs to another plan"):
        verify_plan(engine)


def test_a_plan_rebuilt_without_its_manifest_is_never_taken(pair, tmp_path):
    engine = copy(pair, tmp_path)
    engine.write_bytes(pair[1].read_bytes())
    with pytest.raises(InputError, match="belongs to another plan"):
        verify_plan(engine)


def test_a_plan_of_another_version_is_named(pair, tmp_path):
    engine = copy(pair, tmp_path)
    data = bytearray(engine.read_bytes())
    data[24:28] = 1, 9, 0, 1
    engine.write_bytes(data)
    with pytest.raises(InputError, match=r"another plan \(by 1\.9\.0\.1, the manifest's is by "):
        verify_plan(engine)


def test_a_longer_plan_is_refused(pair, tmp_path):
    engine = copy(pair, tmp_path)
    engine.write_bytes(engine.read_bytes() + b"\0")
    with pytest.raises(InputError, match="another plan"):
        verify_plan(engine)


def test_a_missing_half_is_named(pair, tmp_path):
    engine = copy(pair, tmp_path)
    manifest_path(engine).unlink()
    with pytest.raises(InputError, match=r"its manifest int8\.engine\.json is missing"):
        verify_plan(engine)
    engine = copy(pair, tmp_path)
    engine.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        verify_plan(engine)


def test_verifying_imports_no_tensorrt_and_no_onnx(pair):
    code = (
        "import sys; from pathlib import Path; from deploy.engines.manifest import verify_plan\n"
        f"verify_plan(Path({str(pair[0])!r}))\n"
        "print([m for m in ('tensorrt_rtx', 'tensorrt', 'onnx', 'torch', 'polygraphy')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
