"""Engines, ONNX files and pairs of them, told to people and to machines."""

import json
import struct
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tensorrt_nets import net, write

from calib_data.preprocess import PRESETS
from core.errors import InputError
from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.manifest import Binding, ShapeRange, manifest_path, read_manifest
from deploy.engines.plan_header import PlanHeader
from deploy.engines.target import BuildTarget, parse_targets
from deploy.inspect.blocks import rows_of
from deploy.inspect.columns import columns, fit, plain, size_text
from deploy.inspect.engine_facts import EngineFacts, inspect_engine
from deploy.inspect.engine_text import engine_text
from deploy.inspect.kernels import Kernel, KernelGraph, Tensor
from deploy.inspect.layout import lay_out
from deploy.inspect.meaning import meaning
from deploy.inspect.model_facts import inspect_model
from deploy.inspect.picture import picture
from deploy.inspect.picture_lines import Unit
from deploy.inspect.side_by_side import side_by_side
from deploy.inspect.weighted import weighted_layers
from exporter.card import Card


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    made = {}
    for kind in ("fp16", "int8", "int8fp16"):
        source = write(folder / f"{kind}.onnx", kind)
        made[kind] = build(source, BuildTarget(), folder / f"{kind}.engine").plan
    return made


def strata(*arguments):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


def copied(engine, folder, *, change=lambda data: data, with_manifest=True):
    path = folder / engine.name
    path.write_bytes(change(engine.read_bytes()))
    if with_manifest:
        manifest_path(path).write_bytes(manifest_path(engine).read_bytes())
    return path


def tensor(name, dtype="float16", shape=(1, 8, 4, 4)):
    return Tensor(name, dtype, shape, name)


def conv(name, takes="int8", gives="int8", *, extra=(), reads=None):
    data = tensor(reads or f"{name}.in", takes)
    return Kernel(name, "convolution", (name,), (data, *extra), (tensor(name, gives),), {"w": 64})


def facts_of(*kernels, manifest=None):
    graph = KernelGraph(tuple(kernels), 1)
    header = PlanHeader(flavour="rtx", version="1.7.1.116")
    return EngineFacts("e.engine", 10, header, manifest, "", (graph,), "")


def test_an_engine_is_told_in_100_columns(engines):
    done = strata(engines["int8"])
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].endswith("its manifest fits")
    for words in ("TensorRT-RTX 1.7", "sm120", "1 to 32, tuned for 8", "N×3×8×8", "2 of 2 with"):
        assert words in done.output


@pytest.mark.parametrize(
    ("takes", "gives", "form"),
    [
        ("int8", "int8", "codes"),
        ("float8e4m3", "float8e4m3", "codes"),
        ("int8", "float32", "widening"),
        ("int8", "float16", "widening"),
        ("float16", "float16", "float"),
        ("float32", "int8", "float"),
        ("", "int8", "unknown"),
    ],
)
def test_what_a_convolution_makes_of_its_numbers(takes, gives, form):
    graph = KernelGraph((conv("c", takes, gives),), 1)
    (layer,) = weighted_layers(graph, {})
    assert layer.form == form


def test_a_residual_is_not_the_data():
    kernel = conv("c", "float16", extra=(tensor("r", "int8"),))
    assert kernel.data.name == "r"  # codes first: only they can be what INT8 weights meet
    kernel = conv("c", "int8", extra=(tensor("r", "float16"),))
    assert kernel.data.name == "c.in"


def test_layers_are_joined_with_what_was_asked():
    asked = {"Conv": {"int8": ("a", "b"), "float16": ("lost",)}, "Gemm": {"int8": ("fc",)}}
    fused = Kernel("k", "reduction", ("fc", "pool"), (tensor("x"),), (tensor("y"),), {})
    both = replace(conv("a"), layers=("a", "relu", "b"))
    layers = {x.name: x for x in weighted_layers(KernelGraph((both, fused), 1), asked)}
    assert layers["a"].kernel is layers["b"].kernel is both
    assert layers["fc"].kernel is fused
    assert (layers["lost"].kernel, layers["lost"].form) == (None, "unknown")
    said = " ".join(meaning(facts_of(both, fused, manifest=None)))
    assert "requantized" in said


def test_what_was_asked_in_int8_and_runs_in_float_is_told(engines):
    facts = inspect_engine(engines["int8"])
    swapped = [
        replace(k, inputs=tuple(replace(t, dtype="float32") for t in k.inputs))
        for k in facts.graphs[0].kernels
    ]
    graph = replace(facts.graphs[0], kernels=tuple(swapped))
    said = " ".join(meaning(replace(facts, graphs=(graph,))))
    assert "Asked for in INT8, but computed in float: conv1, fc." in said
    assert "Asked for" not in " ".join(meaning(facts))


def test_on_turing_int8_computes_in_float_and_is_told_so(tmp_path):
    source = write(tmp_path / "n.onnx", "int8fp16")
    target = BuildTarget(capabilities=parse_targets("sm75"))
    plan = build(source, target, tmp_path / "n.engine").plan
    said = " ".join(meaning(inspect_engine(plan)))
    assert "Asked for in INT8, but computed in float: conv1" in said


def test_an_engine_without_manifest(engines, tmp_path):
    path = copied(engines["int8"], tmp_path, with_manifest=False)
    done = strata(path)
    assert done.exit_code == 0
    assert "its manifest int8.engine.json is missing" in " ".join(done.output.split())
    assert "2 with weights found by name" in done.output
    assert inspect_engine(path, batch=3).graphs[0].batch == 3


def test_another_release_is_unknown_and_ends_well(engines, tmp_path):
    def newer(data):
        return data[:24] + bytes((1, 9, 0, 7)) + data[28:]

    path = copied(engines["int8"], tmp_path, change=newer)
    done = strata(path)
    assert done.exit_code == 0
    assert "unknown: the plans of TensorRT-RTX 1.9.0.7 were not studied" in done.output
    assert "belongs to another plan" in done.output
    pair = strata(path, engines["int8"])
    assert pair.exit_code == 0
    assert "Which moves more is unknown" in pair.output
    assert strata(path, "--svg", tmp_path / "n.svg").exit_code == 2
    value = json.loads(strata(path, "--json").output)
    assert value["files"][0]["profiles"] == []


def test_a_tensorrt_plan_without_gpu(engines, tmp_path):
    path = tmp_path / "t.engine"
    path.write_bytes(b"ftrt" + bytes(100))
    done = strata(path)
    assert done.exit_code == 0
    assert "of the flavour tensorrt" in done.output


@pytest.mark.parametrize("keep", [3, 63, 64, 1000, 3000, 20_000])
def test_a_truncated_plan_is_told_as_such(engines, tmp_path, keep):
    path = copied(engines["int8"], tmp_path, change=lambda data: data[:keep])
    done = strata(path)
    assert done.exit_code == 0, done.output
    assert "kernels  unknown" in done.output or "truncated" in done.output


@pytest.mark.parametrize(
    ("data", "says"), [(b"", "an empty file"), (b"\x7fELF" + bytes(100), "not a TensorRT plan")]
)
def test_what_is_no_engine_is_refused(data, says, tmp_path):
    path = tmp_path / "e.engine"
    path.write_bytes(data)
    done = strata(path)
    assert (done.exit_code, says in done.output) == (2, True)


def test_an_empty_file_is_no_engine_whatever_its_manifest_says(engines, tmp_path):
    path = copied(engines["int8"], tmp_path, change=lambda data: data[:0])
    assert strata(path).exit_code == 2


def test_layer_information_is_not_read_from_a_device_without_end(tmp_path):
    (tmp_path / "l.json").symlink_to("/dev/zero")
    assert strata(tmp_path / "l.json").exit_code == 2


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_plan_breaks_it(engines, tmp_path, data):
    plan = bytearray(engines["int8"].read_bytes()[:22_000])
    for _ in range(data.draw(st.integers(1, 20))):
        plan[data.draw(st.integers(64, len(plan) - 1))] = data.draw(
            st.sampled_from(b'{}"\\= 9\n\0')
        )
    path = tmp_path / "hostile.engine"
    path.write_bytes(bytes(plan))
    facts = inspect_engine(path)
    text = engine_text(facts)
    assert max(map(len, text.splitlines())) <= 100
    if facts.graphs:
        ET.fromstring(picture(facts))
    side_by_side(facts, facts)


def test_numbers_that_no_machine_has(tmp_path):
    text = (
        'header { version = 5 inputs={ "i.1" } outputs={ } }\ndescriptors {\n'
        + ' tensor={ dims={ "n" 99999999999999 99999999999999 } name="i.1" type=half }\n'
        + ' tensor={ dims={ 0 } name="o" type=half }\n}\n'
        + 'main { mul={ output={"o" } input={"i.1" } } }\n'
        + 'shape_main { mul={ output={"n" } input={"n" "n" } } }\n'
    )
    body = b"NLYM" + struct.pack("<IQ", 2022049, len(text)) + text.encode()
    head = struct.pack(
        "<4s4xI4xQ4s4sI", b"vtrt", 2, 64 + len(body), bytes((1, 7, 1, 1)), b"vtrt", 4
    )
    path = tmp_path / "n.engine"
    path.write_bytes(head.ljust(64, b"\0") + body)
    assert strata(path).exit_code == 0
    assert strata(path, "--json").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--batch", "33"], "takes 1 to 32 images"),
        (["--svg", "/proc/none/e.svg"], "cannot be written"),
    ],
)
def test_what_cannot_be_done_is_refused(engines, arguments, says):
    done = strata(engines["int8"], *arguments)
    assert done.exit_code in {2, 8}
    assert says in done.output


def test_pairs_that_do_not_pair(engines, tmp_path):
    source = write(tmp_path / "n.onnx")
    assert strata(source, engines["int8"]).exit_code == 2
    assert strata(source, source, source).exit_code == 2
    assert strata(source, "--svg", tmp_path / "n.svg").exit_code == 2
    assert strata(tmp_path / "none.onnx").exit_code == 2


@pytest.mark.parametrize(
    ("a", "b", "more"),
    [
        (("float16", "float16"), ("int8", "float32"), True),
        (("int8", "float32"), ("float16", "float16"), True),
        (("float16", "float16"), ("int8", "int8"), False),
        (("float16", "float16"), ("float32", "float32"), None),
        (("int8", "int8"), ("int8", "float32"), None),
    ],
)
def test_whether_int8_moves_more(a, b, more):
    one, other = (facts_of(conv("c", *kind)) for kind in (a, b))
    assert side_by_side(one, other).int8_moves_more is more


def test_sizes_that_are_not_known_are_not_compared():
    free = Kernel("c", "convolution", ("c",), (tensor("x", "int8", (1, None)),), (tensor("y"),), {})
    pair = side_by_side(facts_of(free), facts_of(conv("c")))
    assert pair.ratio is pair.int8_moves_more is None
    assert "? MB" in engine_text(facts_of(free))


def test_a_pair_in_json(engines):
    value = json.loads(strata(engines["fp16"], engines["int8"], "--json").output)
    assert value["schema"] == "strata.inspect/1"
    assert len(value["files"]) == 2
    assert value["side_by_side"]["int8_moves_more"] is True
    assert value["side_by_side"]["layers"][0]["name"] is None
    assert "INT8 moves more bytes" in " ".join(value["side_by_side"]["verdict"])


def test_the_picture_is_whole_and_needs_nothing_else(engines, tmp_path):
    done = strata(engines["int8"], "--svg", tmp_path / "e.svg")
    assert done.exit_code == 0
    text = (tmp_path / "e.svg").read_text()
    root = ET.fromstring(text)
    assert root.attrib["role"] == "img"
    kinds = [child.tag.rpartition("}")[2] for child in root]
    assert kinds[:2] == ["title", "desc"]
    assert "5 kernels" in root[1].text
    for foreign in ("http://", "https://", "<script", "@import", "url(http"):
        assert foreign not in text.replace('xmlns="http://www.w3.org/2000/svg"', "")


@pytest.mark.parametrize(
    ("count", "megabytes", "kilobytes"),
    [
        (None, "?", "?"),
        (1_234_567, "1.23", "1234.6"),
        (5_000, "0.01", "5.0"),
        (4_999, "<0.01", "5.0"),
        (49, "<0.01", "<0.1"),
        (0, "<0.01", "<0.1"),
    ],
)
def test_sizes_are_written_in_a_unit_that_shows_them(count, megabytes, kilobytes):
    assert Unit("MB", 1e6, 2).text(count) == megabytes
    assert Unit("kB", 1e3, 1).text(count) == kilobytes


def test_no_line_of_the_picture_crosses_a_size(engines, tmp_path):
    strata(engines["int8"], "--svg", tmp_path / "e.svg")
    text = (tmp_path / "e.svg").read_text()
    assert "On the lines: kB of activations" in text  # images of 8×8
    assert text.rindex('class="line"') < text.index('class="size ink"')


def test_hostile_names_are_escaped_in_the_picture():
    evil = '</title><script>alert("x")</script>\x00\x1b[31m\n&'
    text = picture(facts_of(conv(evil, "int8", "float32")))
    root = ET.fromstring(text)
    assert "<script" not in text
    assert not root.findall(".//{http://www.w3.org/2000/svg}script")
    said = engine_text(facts_of(conv(evil)))
    assert "\x1b" not in said
    assert "\x00" not in said


def test_a_hostile_manifest_writes_nothing_but_text(engines, tmp_path):
    path = copied(engines["int8"], tmp_path)
    manifest = read_manifest(path)
    evil = "\x1b[31m"
    hostile = replace(
        manifest,
        parents={"onnx": "ab" * 32, evil: "cd" * 32},
        inputs=(Binding(evil, evil, (-1, 3, 8, 8)),),
        accuracy={evil: 1.0},
        profiles=({"input": ShapeRange((), (), ()), evil: ShapeRange((1,), (2, 3), (4,))},),
    )
    manifest_path(path).write_text(json.dumps(hostile.to_json()))
    assert inspect_engine(path).trouble == ""
    done = strata(path)
    assert done.exit_code == 0
    assert "\x1b" not in done.output
    assert strata(path, "--json").exit_code == 0
    written = manifest_path(path).read_text()
    manifest_path(path).write_text(written.replace("\\u001b[31m", "\\ud800", 1))  # half a character
    assert "not JSON" in inspect_engine(path).trouble


def test_blocks_become_rows():
    names = ["conv1", "layer1.0.conv1", "layer1.0.downsample.0", "layer1.0.conv3", "layer1.1.conv1"]
    torch_names = ["/conv1/Conv", "/layer1/layer1.0/conv1/Conv", "/layer1/layer1.1/conv1/Conv"]
    for given_names, labels in (
        ([*names, "fc"], ["", "layer1.0", "layer1.1", ""]),
        (torch_names, ["", "/layer1/layer1.0", "/layer1/layer1.1"]),
        ([f"b.c{n}" for n in range(10)], ["b", "b"]),
    ):
        graph = KernelGraph(tuple(conv(name) for name in given_names), 1)
        rows = rows_of(graph)
        assert [row.label for row in rows] == labels
        assert [place for row in rows for place in row.kernels] == list(range(len(given_names)))


def test_lines_lead_from_who_writes_to_who_reads():
    kernels = (
        conv("a"),
        conv("b.c1", reads="a"),
        conv("b.c2", reads="b.c1", extra=(tensor("a", "int8"),)),
        conv("d.c1", reads="b.c2"),
        conv("e.c1", reads="a"),
    )
    layout = lay_out(KernelGraph(kernels, 1))
    ends = [(edge.source, edge.target, edge.tensor.name) for edge in layout.edges]
    assert sorted(ends, key=str) == sorted(
        [
            (None, 0, "a.in"),
            (0, 1, "a"),
            (1, 2, "b.c1"),
            (0, 2, "a"),
            (2, 3, "b.c2"),
            (0, 4, "a"),
            (3, None, "d.c1"),
            (4, None, "e.c1"),
        ],
        key=str,
    )
    boxes = {box.kernel: box for box in layout.boxes}
    assert len({(box.x, box.y) for box in layout.boxes}) == 5
    assert boxes[1].y == boxes[2].y < boxes[3].y < boxes[4].y < layout.height


CARD = Card(
    preprocess=PRESETS["imagenet-v2"],
    labels=("cat", "dog", "cow", "bee", "owl", "elk"),
    weights={"name": "w", "top1": "0.9"},
    parents={"model": "ab" * 32},
    stage="int8",
)


def model_file(folder, kind="int8", card=CARD):
    model = net(kind)
    for key, text in (card.to_metadata() if card else {}).items():
        model.metadata_props.add(key=key, value=text)
    path = folder / f"{kind}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_an_onnx_file_is_told(tmp_path):
    done = strata(model_file(tmp_path))
    assert done.exit_code == 0
    assert max(map(len, done.output.splitlines())) <= 100
    for words in (
        "opset 20, stage int8",
        "input float32 N×3×8×8",
        "logits float32 N×5",
        "1 Conv and 1 Gemm in INT8",
        "4×3×3×3",
        "top1 0.9",
        "6: cat, dog, cow, bee, owl, …",
        "ab" * 32,
        '"resize":232',
    ):
        assert words in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("fp32", "float32"), ("fp16", "float16"), ("int8", "int8"), ("int8fp16", "int8")],
)
def test_precision_of_an_onnx_file_by_layer(tmp_path, kind, precision):
    facts = inspect_model(model_file(tmp_path, kind, card=None))
    assert [(x.name, x.op, x.precision) for x in facts.layers] == [
        ("conv1", "Conv", precision),
        ("fc", "Gemm", precision),
    ]
    assert facts.layers[0].shape == (4, 3, 3, 3)
    assert facts.card == Card()


def test_two_onnx_files_and_where_they_differ(tmp_path):
    done = strata(model_file(tmp_path, "fp16", None), model_file(tmp_path, "int8"))
    assert done.exit_code == 0
    assert "QuantizeLinear" in done.output
    rows = [line.split() for line in done.output.splitlines()]
    assert ["conv1", "FP16", "INT8"] in rows
    same = strata(model_file(tmp_path, "int8"), model_file(tmp_path, "int8"))
    assert "the same precision in both" in same.output


def test_an_onnx_file_in_json(tmp_path):
    (facts,) = json.loads(strata(model_file(tmp_path), "--json").output)["files"]
    assert facts["kind"] == "onnx"
    assert facts["card"]["stage"] == "int8"
    assert facts["card"]["preprocess"]["crop"] == [224, 224]
    assert facts["layers"][0]["precision"] == "int8"
    assert facts["inputs"] == [{"name": "input", "dtype": "float32", "shape": ["N", 3, 8, 8]}]


@pytest.mark.parametrize("data", [b"", b"not onnx", b"\x08\x0a" * 50])
def test_what_is_no_model_is_refused(tmp_path, data):
    path = tmp_path / "n.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError):
        inspect_model(path)
    assert strata(path).exit_code == 2


def test_cells_and_sizes():
    assert columns(("a", "1"), (5, 4), 1) == "a         1"
    assert fit("abcdefghij", 5) == "ab…ij"
    assert plain("a\nb\x1b[1m") == "a�b�[1m"
    assert [size_text(n) for n in (None, 12, 1200, 2.5e5, 3.2e7)] == [
        "? MB",
        "12 B",
        "1.2 kB",
        "0.25 MB",
        "32.0 MB",
    ]


def test_a_fact_of_any_length_does_not_fill_the_terminal(tmp_path):
    long = "a" * 5_000_000
    card = Card(stage=long, parents={long: long}, weights={long: long}, labels=(long,) * 9)
    done = strata(model_file(tmp_path, card=card))
    assert (done.exit_code, len(done.output) < 6000) == (0, True)
