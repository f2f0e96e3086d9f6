"""A real ResNet-50, INT8 and FP16: every layer is found, and the totals are those by hand."""

import json
import re

import pytest
from click.testing import CliRunner
from tensorrt_resnet import BLOCKS, names, resnet50

from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.plan_header import read_header
from deploy.engines.target import BuildTarget
from deploy.inspect.engine_facts import inspect_engine
from deploy.inspect.plan_text import compiled_text
from deploy.inspect.side_by_side import side_by_side
from deploy.inspect.weighted import weighted_layers

SIZES = {"half": 2, "float": 4, "int8": 1, "int64": 8, "bool": 1}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet50")
    made = {}
    for kind in ("int8", "fp16"):
        model = resnet50(quantized=kind == "int8")
        (folder / f"{kind}.onnx").write_bytes(model.SerializeToString())
        made[kind] = build(folder / f"{kind}.onnx", BuildTarget(), folder / f"{kind}.engine").plan
    return made


def strata(*arguments):
    return CliRunner().invoke(cli, ["inspect", *map(str, arguments)])


@pytest.mark.parametrize(
    ("kind", "takes", "form"), [("int8", "int8", "widening"), ("fp16", "float16", "float")]
)
def test_every_convolution_and_the_fc_are_found_by_name(engines, kind, takes, form):
    facts = inspect_engine(engines[kind])
    assert facts.trouble == facts.unknown == ""
    layers = weighted_layers(facts.graphs[0], facts.asked)
    assert sorted(layer.name for layer in layers) == sorted(names())
    assert len(layers) == 54
    for layer in layers:
        assert layer.kernel is not None, layer.name
        assert (layer.takes, layer.form) == (takes, form), layer.name
        assert layer.asked == takes
        assert layer.op == ("Gemm" if layer.name == "fc" else "Conv")
    assert {layer.gives for layer in layers if layer.op == "Conv"} == {
        "float32" if kind == "int8" else "float16"
    }


def by_regex(path):
    """Count bytes in the plan's text by other means than the parser's: words of a line."""
    (text,) = compiled_text(path, read_header(path)).graphs
    tensors = {}
    for line in text.splitlines():
        if re.match(r"  (sub_)?tensor=", line):
            dims = re.search(r" dims=\{ (.*?) \}", line)[1].split()
            size = SIZES[re.search(r" type=(\w+)", line)[1]]
            for n in dims[1:]:
                size *= int(n)
            constant = "const_payload_size" in line
            tensors[re.search(r' name="(.*?)"', line)[1]] = (len(dims), size, constant)
    kernels = moved = 0
    for line in text[text.index("\nmain {") : text.index("\nshape_main {")].splitlines():
        if not re.match(r"  (?!shape_call)\w+=", line):
            continue
        kernels += 1
        for block in re.findall(r" (?:input|output)(?:_args)?=\{(.*?)\}", line):
            for name in set(re.findall('"(.*?)"', block)):
                rank, size, constant = tensors[name]
                moved += size if rank > 1 and not constant else 0
    weights = sum(map(int, re.findall(r"const_payload_size=(\d+)", text)))
    return kernels, moved, weights


@pytest.mark.parametrize(("kind", "kernels"), [("int8", 106), ("fp16", 58)])
def test_totals_are_those_counted_in_the_text(engines, kind, kernels):
    graph = inspect_engine(engines[kind]).graphs[0]
    counted, moved, weights = by_regex(engines[kind])
    assert len(graph.kernels) == counted == kernels
    assert graph.moved_bytes_per_image == pytest.approx(moved, rel=0.01)
    assert graph.constant_bytes == pytest.approx(weights, rel=0.01)
    # The twin: without the stem's activations it would not have agreed.
    assert moved - 64 * 112 * 112 * 4 != pytest.approx(moved, rel=0.01)


def int8_by_architecture():
    """Bytes an image: each convolution takes codes, gives floats; a kernel quantizes them."""
    total = 3 * 224**2 * 4 + 4 * 224**2  # the image, padded to 4 channels as codes
    stem = 64 * 112**2
    total += 4 * 224**2 + 4 * stem + 5 * stem + stem + 64 * 56**2  # conv1, relu, pool
    channels, side = 64, 56
    for stage, count in enumerate(BLOCKS):
        for index in range(count):
            middle, out = 64 << stage, 256 << stage
            after = side // 2 if stage and not index else side
            inner, outer = middle * after**2, out * after**2
            total += channels * side**2 + middle * side**2 * 4 + middle * side**2 * 5
            total += middle * side**2 + inner * 4 + inner * 5
            total += inner + outer * 4
            if index == 0:
                total += channels * side**2 + outer * 4 + outer * (4 + 4 + 1)
            else:
                total += outer * (4 + 1 + 1)
            channels, side = out, after
    total += 2048 - 2048 * 49  # the last one averages, too
    return total + 2048 + 1000 * 2 + 1000 * 2 + 1000 * 4


def test_the_int8_total_follows_from_the_architecture(engines):
    graph = inspect_engine(engines["int8"]).graphs[0]
    assert graph.moved_bytes_per_image == pytest.approx(int8_by_architecture(), rel=1e-3)


def test_the_same_bytes_at_every_batch(engines):
    one, eight = (inspect_engine(engines["int8"], batch=n).graphs[0] for n in (1, 8))
    assert one.moved_bytes * 8 == eight.moved_bytes


def test_side_by_side_says_that_int8_moves_more(engines):
    pair = side_by_side(inspect_engine(engines["fp16"]), inspect_engine(engines["int8"]))
    assert pair.int8_moves_more is True
    assert pair.ratio == pytest.approx(114.965 / 58.317, rel=0.01)
    assert [layer.name for layer in pair.layers] == ["", *_in_order(pair)]
    for side in "ab":
        parts = sum(getattr(layer, side).moved_bytes for layer in pair.layers)
        assert parts == pytest.approx(getattr(pair, side).moved)
    done = strata(engines["fp16"], engines["int8"])
    assert done.exit_code == 0
    assert "INT8 moves more bytes than the float engine here" in done.output
    turned = side_by_side(inspect_engine(engines["int8"]), inspect_engine(engines["fp16"]))
    assert turned.int8_moves_more is True


def _in_order(pair):
    layers = weighted_layers(pair.a.graph, pair.a.facts.asked)
    return [layer.name for layer in layers]


def test_the_command_tells_it_within_100_columns(engines):
    for kind in ("int8", "fp16"):
        done = strata(engines[kind])
        assert done.exit_code == 0
        assert max(map(len, done.output.splitlines())) <= 100
        assert "54 of 54 with weights found by name" in done.output
        for name in names():
            assert re.search(rf"^(convolution|gemm) +{re.escape(name)}\b", done.output, re.M), name
    assert "53 Conv and 1 Gemm take INT8 and give floats" in strata(engines["int8"]).output


def test_json_and_picture(engines, tmp_path):
    done = strata(engines["int8"], "--json", "--svg", tmp_path / "e.svg")
    (facts,) = json.loads(done.output)["files"]
    (profile,) = facts["profiles"]
    assert profile["totals"]["kernels"]["convolution"] == 53
    assert sum(layer["form"] == "widening" for layer in profile["layers"]) == 54
    for layer in profile["layers"]:
        assert layer["name"] in profile["kernels"][layer["kernel"]]["layers"]
    drawn = (tmp_path / "e.svg").read_text()
    assert drawn.count("<g><title>") == 106
    assert all(f"{name}" in drawn for name in names())
