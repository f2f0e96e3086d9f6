"""Lint over whole files: ONNX Runtime's, our own, odd ones; and the command line."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lint_nets import GOOD, net
from onnx_text import parse
from resnet_graph import resnet

from deploy.cli import cli
from exporter.lint import RULES, lint
from exporter.precision import to_float16
from exporter.quantization.placement import plan_quantization
from exporter.quantization.qdq import insert_qdq


def rules(model):
    return set(lint(model).by_rule())


# ONNX Runtime's own quantizer


def quantized_by_onnxruntime(folder, **options):
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self):
            rng = np.random.default_rng(0)
            shape = (2, 3, 32, 32)
            self.left = [{"input": rng.normal(size=shape).astype(np.float32)} for _ in range(2)]

        def get_next(self):
            return self.left.pop() if self.left else None

    source, target = folder / "float.onnx", folder / "int8.onnx"
    onnx.save(resnet((1, 1, 1, 1)), source)
    quantize_static(source, target, Images(), **options)
    return onnx.load(target)


def test_what_is_wrong_in_onnxruntimes_default_output(tmp_path):
    report = lint(quantized_by_onnxruntime(tmp_path))
    counts = {rule: len(found) for rule, found in report.by_rule().items()}
    # Image, pool, two in each of four blocks, block results, projections, mean, FC: all but
    # those around zero by chance; every bias; every weight; the main branches; the logits.
    assert counts.pop("zero-point") > 15
    assert counts == {
        "bias-quantized": 18,
        "weight-per-tensor": 18,
        "main-branch": 4,
        "output-quantized": 1,
    }
    assert {f.tensor for f in report.by_rule()["output-quantized"]} == {"logits"}
    assert ("layer1.0.bn3", "quantized before Add layer1.0.add") in {
        (f.tensor, f.problem) for f in report.by_rule()["main-branch"]
    }


def test_onnxruntime_at_its_best_for_tensorrt(tmp_path):
    from onnxruntime.quantization import QuantType

    options = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
    model = quantized_by_onnxruntime(
        tmp_path, per_channel=True, activation_type=QuantType.QInt8, extra_options=options
    )
    assert rules(model) == {"main-branch", "output-quantized", "conv-relu"}


def test_onnxruntimes_unsigned_and_operator_formats(tmp_path):
    from onnxruntime.quantization import QuantFormat, QuantType

    model = quantized_by_onnxruntime(tmp_path, activation_type=QuantType.QUInt8)
    assert "uint8" in rules(model)
    model = quantized_by_onnxruntime(tmp_path, quant_format=QuantFormat.QOperator)
    assert rules(model) >= {"integer-operator", "foreign-operator", "zero-point"}


# Strata's own output


@pytest.mark.parametrize("opset", [13, 19, 23])
@pytest.mark.parametrize("half", [False, True])
def test_nothing_is_wrong_in_our_own_output(opset, half):
    model = resnet((1, 2, 1, 1), opset=opset)
    plan = plan_quantization(model)
    int8 = insert_qdq(model, plan, {a.tensor: 6.0 for a in plan.activations}, half=half)
    report = lint(to_float16(int8) if half else int8)
    assert report.findings == ()
    assert report.int8 == report.layers == 1 + 3 * 5 + 4 + 1


@pytest.mark.parametrize("half", [False, True])
def test_a_network_in_float_is_no_fault(half):
    model = resnet((1, 1, 1, 1))
    report = lint(to_float16(model) if half else model)
    assert report.findings == ()
    assert not report.quantized


# Odd files


def odd_pieces():
    """Graphs that are valid ONNX and unlike a network of images."""
    yield (
        "loop",
        parse(
            """g (float[2] x, int64 n) => (float[2] y) {
          t = Constant<value_ints = [1]>() c = Cast<to = 9>(t)
          y = Loop(n, c, x) <body = b (int64 i, bool k, float[2] v) => (bool ko, float[2] vo) {
            ko = Identity(k) q = QuantizeLinear(v, s, z) d = DequantizeLinear(q, s, z)
            vo = Add(d, x)
          }>
        }""",
            s=np.float32(0.5),
            z=np.int8(3),
        ),
    )
    yield (
        "if",
        parse(
            """g (float[2] x, bool c) => (float[2] y) {
          y = If(c) <then_branch = t () => (float[2] a) { a = Relu(x) },
                     else_branch = e () => (float[2] b) { b = Frobnicate(x) }>
        }"""
        ),
    )
    yield (
        "sequence",
        parse(
            """g (seq(float[2]) x) => (float[2] y) {
              i = Constant<value_int = 0>() y = SequenceAt(x, i) }"""
        ),
    )
    yield "text", parse("""g (string[2] x) => (string[2] y) { y = Identity(x) }""")


@pytest.mark.parametrize(("name", "model"), tuple(odd_pieces()), ids=lambda value: str(value)[:8])
def test_odd_graphs_are_read(name, model):
    inside = {"loop": {"zero-point"}, "if": {"foreign-operator"}}
    assert rules(model) == inside.get(name, set())


def test_a_function_of_the_file_is_looked_into():
    text = GOOD.replace("r1 = Relu(c1)", "r1 = own.Act(c1)")
    header = '<ir_version: 9, opset_import: ["" : 19, "own" : 1]>\n'
    function = """<opset_import: ["" : 19], domain: "own">
    Act (v) => (w) { u = Relu(v) w = QLinearConv(u, u, u, u, u, u, u, u) }"""
    model = onnx.parser.parse_model(header + text + function)
    model.graph.initializer.extend(net().graph.initializer)
    assert rules(model) == {"integer-operator"}


def test_weights_that_are_nodes_and_shared_by_an_identity():
    edit = ("c2 = Conv", "wi = Identity(w2d) c2 = Conv"), ("(p1d, w2d, b)", "(p1d, wi, b)")
    assert lint(net(*edit)).findings == ()
    scale = ("{", "{ s0 = Constant<value_float = 0.1>() s = Identity(s0)")
    assert lint(net(scale, s=None)).findings == ()


def test_nothing_at_all():
    assert lint(onnx.ModelProto()).findings == ()


NAMES = ["", "x", "s", "z", "w1", "w1d", "c1", "r4d", "y", "nobody"]
OPERATORS = ["QuantizeLinear", "DequantizeLinear", "Identity", "Cast", "Add", "Concat", "Conv"]
TYPES = [0, 1, 2, 3, 6, 7, 8, 10, 11, 14, 16, 17, 22, 99]


def damage(model, kind, where, which):
    """Damage one thing in a model; all of it can stand in a file."""
    graph = model.graph
    node = graph.node[where % len(graph.node)]
    constant = graph.initializer[where % len(graph.initializer)] if graph.initializer else None
    if kind == "cut":
        graph.node.remove(node)
    elif kind == "twice":
        graph.node.append(node)
    elif kind == "input" and node.input:
        node.input[which % len(node.input)] = NAMES[where % len(NAMES)]
    elif kind == "inputs":
        del node.input[which % 3 :]
    elif kind == "outputs":
        del node.output[:]
    elif kind == "output" and node.output:
        node.output[0] = NAMES[which % len(NAMES)]
    elif kind == "operator":
        node.op_type = OPERATORS[which % len(OPERATORS)]
    elif kind == "domain":
        node.domain = ["com.microsoft", "trt", "ai.onnx"][which % 3]
    elif kind == "attributes":
        del node.attribute[:]
    elif kind == "axis":
        node.attribute.append(onnx.helper.make_attribute("axis", which - 5))
    elif kind == "type" and constant is not None:
        constant.data_type = TYPES[which % len(TYPES)]
    elif kind == "shape" and constant is not None:
        constant.dims[:] = [[], [0], [1], [4, 1], [-1], [1 << 40]][which % 6]
    elif kind == "data" and constant is not None:
        constant.raw_data = constant.raw_data[: which % 7]
    elif kind == "constant" and constant is not None:
        graph.initializer.remove(constant)
    elif kind == "opset":
        del model.opset_import[:]
    elif kind == "reversed":
        nodes = list(graph.node)[::-1]
        del graph.node[:]
        graph.node.extend(nodes)


KINDS = [
    *("cut", "twice", "input", "inputs", "outputs", "output", "operator", "domain", "attributes"),
    *("axis", "type", "shape", "data", "constant", "opset", "reversed"),
]
HARM = st.tuples(st.sampled_from(KINDS), st.integers(0, 60), st.integers(0, 20))


@settings(deadline=None, max_examples=60)
@given(harm=st.lists(HARM, min_size=1, max_size=6))
@example(harm=[("inputs", 16, 6)])
@example(harm=[("operator", 4, 3), ("inputs", 55, 12)])
@example(harm=[("outputs", 25, 9), ("input", 1, 9)])
@example(harm=[("type", number, 6) for number in range(12)])
def test_no_damage_stops_it(harm):
    model = net()
    for kind, where, which in harm:
        if model.graph.node:
            damage(model, kind, where, which)
    report = lint(model)
    assert all(finding.node and finding.problem for finding in report.findings)


# The command line


def strata(*arguments):
    return CliRunner().invoke(cli, ["lint", *map(str, arguments)])


@pytest.fixture
def files(tmp_path):
    """A good file, one with warnings, one with errors, one in float."""
    relu = ("r2 = Relu(c2)", "n2 = Mul(c2, k) r2 = Relu(n2)"), {"k": np.float32(2)}
    models = {
        "good": net(),
        "warned": net(relu[0], **relu[1]),
        "broken": net(z=np.int8(1)),
        "float": resnet((1, 1, 1, 1)),
    }
    for name, model in models.items():
        onnx.save(model, tmp_path / f"{name}.onnx")
    return tmp_path


def test_the_command(files):
    good = strata(files / "good.onnx", "--strict")
    assert good.exit_code == 0
    assert good.stdout.splitlines() == [
        "good.onnx  opset 19, 7 of 7 layers in INT8, 9 activations quantized",
        "no errors, no warnings",
    ]
    warned = strata(files / "warned.onnx")
    assert (warned.exit_code, warned.stderr) == (0, "")
    assert "warning unfolded: No BatchNormalization or constant factor" in warned.stdout
    assert "  n2 (Mul), tensor c2: Mul behind Conv c2" in warned.stdout
    assert strata(files / "warned.onnx", "--strict").exit_code == 5
    assert strata(files / "warned.onnx", "--strict", "--ignore", "unfolded").exit_code == 0
    plain = strata(files / "float.onnx", "--strict")
    assert plain.exit_code == 0
    assert "nothing is quantized" in plain.stdout


def test_errors_fail_and_many_are_summed_up(files):
    broken = strata(files / "broken.onnx")
    assert broken.exit_code == 5
    assert "broken.onnx: 9 errors; the first: zero-point at xq" in broken.stderr
    assert "hint: quantize" in broken.stderr
    assert "error zero-point ×9: Every zero point is 0." in broken.stdout
    assert "… and 5 more (--all)" in broken.stdout
    every = strata(files / "broken.onnx", "--all").stdout
    assert every.count("zero point 1") == 9
    assert "more" not in every


def test_json_has_every_finding(files):
    done = strata(files / "broken.onnx", "--json")
    assert done.exit_code == 5
    facts = json.loads(done.stdout)
    assert (facts["errors"], facts["warnings"], facts["layers"], facts["int8_layers"]) == (
        9,
        0,
        7,
        7,
    )
    assert len(facts["findings"]) == 9
    assert facts["findings"][0] == {
        "rule": "zero-point",
        "severity": "error",
        "node": "xq",
        "op": "QuantizeLinear",
        "tensor": "x",
        "problem": "zero point 1",
        "way_out": "quantize the float network symmetrically to int8, as strata quantize does",
    }


def test_a_wrong_rule_and_a_wrong_file(files):
    wrong = strata(files / "good.onnx", "--ignore", "zero-pint")
    assert wrong.exit_code == 2
    assert "no such rule" in wrong.stderr
    assert "zero-point" in wrong.stderr
    assert strata(files / "nowhere.onnx").exit_code == 2


def test_the_documentation_lists_the_rules():
    text = (Path(__file__).parents[1] / "docs" / "lint.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{rule.id}` | {rule.severity} | {rule.what} | {rule.why} | {rule.way_out} |"
        for rule in RULES
    ]
