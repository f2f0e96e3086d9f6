"""Each rule of lint: networks that break it, and what TensorRT itself says of them."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from lint_nets import F16, F32, I8, I32, PAD, POOL, U8, codes, net, pair, weight

from core.errors import BuildError
from deploy.engines.builder import parse as parse_by_tensorrt
from deploy.engines.flavour import load_flavour
from deploy.engines.log import TensorrtLog
from exporter.lint import RULES, Severity, lint


def ahead(node, text):
    """Put nodes before another one."""
    return f"{node} =", f"{text} {node} ="


def pair_of_x(scale, zero=0, kind=I8):
    """Give the pair of x a scale and zero point of its own."""
    zeros = np.full(np.shape(scale), zero, kind)
    return {"edits": [(pair("x"), pair("x", "sx", "zx"))], "sx": scale, "zx": zeros}


def bias(kind):
    """Dequantize the bias of c1."""
    layer = f"c1 = Conv{PAD}(xd, w1d, b)"
    dequantize = "bd = DequantizeLinear<axis = 0>(bq, bs, bz)"
    return {
        "edits": [(layer, f"{dequantize} {layer.replace(' b)', ' bd)')}")],
        "bq": np.zeros(4, kind),
        "bs": np.full(4, 0.001, F32),
        "bz": np.zeros(4, kind),
    }


def other_pair(of, scale):
    """Give the shortcut of the first block a pair of its own."""
    quantize = f"tq = QuantizeLinear({of}, {scale}, z) td = DequantizeLinear(tq, {scale}, z)"
    return {"edits": [ahead("a1", quantize), ("Add(c3, p1d)", "Add(c3, td)")]}


def axis_of(name, axis):
    text = f"<axis = {axis}>" if axis is not None else ""
    return {"edits": [(weight(name), weight(name).replace("<axis = 0>", text))]}


FLOAT_W2 = {"w2f": codes(4, 4, 3, 3) * F32(0.01)}
NO_ZERO_POINT = [
    ("QuantizeLinear(x, s, z)", "QuantizeLinear(x, s)"),
    ("DequantizeLinear(xq, s, z)", "DequantizeLinear(xq, s)"),
]
QUANTIZED_W1 = (
    "w1q = QuantizeLinear<axis = 0>(w1f, w1s, w1z) w1d = DequantizeLinear<axis = 0>(w1q, w1s, w1z)"
)
INTEGER_CONV = "k = ConvInteger<pads = [1, 1, 1, 1]>(xq, w1) c1 = Cast<to = 1>(k)"
MEAN_ADDED = f"{pair('g')} h = Add(r6, gd) g2 = GlobalAveragePool(h)"

# rule, node, tensor, words of the problem, the change; `also`: rules that it cannot help breaking.
CASES = [
    ("zero-point", "xq", "x", "zero point 3", pair_of_x(F32(0.1), 3)),
    ("zero-point", "w1d", "w1d", "zero point -5", {"w1z": np.array([0, 0, -5, 0], I8)}),
    ("uint8", "xq", "x", "codes are uint8", pair_of_x(F32(0.1), 0, U8)),
    ("uint8", "xq", "x", "uint8 (no zero point", {"edits": NO_ZERO_POINT}),
    ("uint8", "w1d", "w1d", "uint8", {"w1": codes(4, 4, 3, 3).view(U8), "w1z": np.zeros(4, U8)}),
    ("code-type", "xq", "x", "int16", {**pair_of_x(F32(0.1), 0, np.int16), "opset": 21}),
    ("bias-quantized", "bd", "bd", "int32 bias of Conv c1", bias(I32)),
    ("bias-quantized", "bd", "bd", "int8 bias of Conv c1", bias(I8)),
    (
        *("scale-constant", "xq", "sx", "scale of x is not constant"),
        {
            "edits": [*pair_of_x(0)["edits"], ("{", "{ sx = ReduceMax<keepdims = 0>(x)")],
            "zx": I8(0),
        },
    ),
    (
        *("scale-constant", "xq", "zx", "zero point of x is not constant"),
        {"edits": [*pair_of_x(0)["edits"], ("good (", "good (int8 zx, ")], "sx": F32(0.1)},
    ),
    ("scale-positive", "xq", "x", "scale 0", pair_of_x(F32(0))),
    ("scale-positive", "xq", "x", "scale -0.1", pair_of_x(F32(-0.1))),
    ("scale-positive", "xq", "x", "scale nan", pair_of_x(F32(np.nan))),
    ("scale-positive", "xq", "x", "scale inf", pair_of_x(F32(np.inf))),
    ("scale-positive", "w1d", "w1d", "scale 0 (2 of 4)", {"w1s": np.array([0, 1, 0, 1], F32)}),
    ("scale-range", "xq", "x", "subnormal", pair_of_x(F32(1e-42))),
    ("scale-range", "xq", "x", "128 times", pair_of_x(F32(3e36))),
    (
        *("scale-type", "xq", "x", "data is float32, its scale float16"),
        {**pair_of_x(F16(0.1)), "also": {"mixed-types"}},
    ),
    (
        *("pair-mismatch", "xd", "x", "Q has scale 0.1, DQ scale 0.2"),
        {"edits": [("DequantizeLinear(xq, s,", "DequantizeLinear(xq, s5,")]},
    ),
    ("weight-axis", "w1d", "w1", "axis 1; output channels lie on axis 0", axis_of("w1", 1)),
    ("weight-axis", "wfd", "wf", "axis 1; output channels lie on axis 0", axis_of("wf", None)),
    ("weight-axis", "wfd", "wf", "axis 7 of a rank-2 weight", axis_of("wf", 7)),
    (
        *("scale-count", "w1d", "w1", "3 scales for 4 channels"),
        {"w1s": np.ones(3, F32), "w1z": np.zeros(3, I8)},
    ),
    (
        *("weight-per-tensor", "w1d", "w1", "1 scale for 4 output channels"),
        {"w1s": F32(0.01), "w1z": I8(0)},
    ),
    ("weight-range", "w1d", "w1", "is 31 of 127 in 4 of 4", {"w1": codes(4, 4, 3, 3) // 4}),
    (
        *("weight-range", "w1d", "w1f", "up to 400 steps are clipped"),
        {"edits": [(weight("w1"), QUANTIZED_W1)], "w1f": np.full((4, 4, 3, 3), 4, F32)},
    ),
    (
        *("integer-operator", "k", "k", "ConvInteger"),
        {"edits": [(f"c1 = Conv{PAD}(xd, w1d, b)", INTEGER_CONV)], "also": {"lone-quantize"}},
    ),
    ("foreign-operator", "r1", "r1", "not an operator", {"edits": [("Relu(c1)", "Frob(c1)")]}),
    (
        *("float64", "k", "k", "float64"),
        {"edits": [("r1 = Relu(c1)", "k = Cast<to = 11>(c1) m = Relu(k) r1 = Cast<to = 1>(m)")]},
    ),
    (
        *("mixed-types", "c1", "bh", "xd float32, w1d float32, bh float16"),
        {"edits": [("(xd, w1d, b)", "(xd, w1d, bh)"), ahead("c1", "bh = Cast<to = 10>(b)")]},
    ),
    (
        *("unsaid-part", "k", "k", "upper in ONNX, lower in TensorRT"),
        {"edits": [("r1 = Relu(c1)", "k = Trilu(c1) r1 = Relu(k)")]},
    ),
    ("opset", "w1d", "w1d", "a scale for each channel needs 13", {"opset": 12}),
    ("opset", "w1d", "w1d", "TensorRT's parser knows 9 to 25", {"opset": 8}),
    (
        *("opset", "xq", "x", "output_dtype needs 21"),
        {"edits": [("xq = QuantizeLinear(", "xq = QuantizeLinear<output_dtype = 3>(")]},
    ),
    ("activation-per-channel", "xq", "x", "4 scales", pair_of_x(np.full(4, 0.1, F32))),
    ("scale-shape", "xq", "x", "shape [1]", pair_of_x(np.full(1, 0.1, F32))),
    (
        *("input-float", "c1", "x", "reads the image 'x' in float"),
        {"edits": [(f"Conv{PAD}(xd, w1d", f"Conv{PAD}(x, w1d"), (pair("x"), "")]},
    ),
    (
        *("float-layer", "c2", "p1", "Conv in float between INT8 layers"),
        {"edits": [("(p1d, w2d", "(p1, w2f"), (weight("w2"), "")], **FLOAT_W2},
    ),
    (
        *("half-quantized", "c2", "p1", "its weight is quantized, its input is not"),
        {"edits": [("(p1d, w2d", "(p1, w2d")]},
    ),
    (
        *("half-quantized", "c2", "w2f", "its input is quantized, its weight is not"),
        {"edits": [("(p1d, w2d", "(p1d, w2f"), (weight("w2"), "")], **FLOAT_W2},
    ),
    (
        *("output-quantized", "yd", "yd", "the output 'yd'"),
        {"edits": [("(float[1,4] y)", "(float[1,4] yd)"), ("b)\n}", f"b) {pair('y')} }}")]},
    ),
    (
        *("lone-quantize", "xq", "x", "Cast n reads its codes"),
        {"edits": [ahead("c1", "n = Cast<to = 1>(xq)")]},
    ),
    (
        *("lone-quantize", "uq", "c1", "nothing reads its codes"),
        {"edits": [ahead("r1", "uq = QuantizeLinear(c1, s, z)")]},
    ),
    (
        *("main-branch", "c3q", "c3", "quantized before Add a1"),
        {"edits": [("Add(c3, p1d)", "Add(c3d, p1d)"), ahead("a1", pair("c3"))]},
    ),
    (
        *("main-branch", "c4q", "c4", "quantized before Add a2"),
        {"edits": [("Add(c4, c5d)", "Add(c4d, c5d)"), ahead("a2", pair("c4"))]},
    ),
    ("shortcut", "a1", "p1", "not quantized", {"edits": [("Add(c3, p1d)", "Add(p1, c3)")]}),
    (
        *("shortcut", "a2", "c5", "not quantized"),
        {"edits": [("Add(c4, c5d)", "Add(c4, c5)"), (pair("c5", "s5"), "")]},
    ),
    ("two-scales", "tq", "p1", "scale 0.2 here, scale 0.1 elsewhere", other_pair("p1", "s5")),
    ("two-scales", "tq", "p1d", "scale 0.2 right behind scale 0.1", other_pair("p1d", "s5")),
    ("duplicate-pair", "tq", "p1", "quantized as p1q does", other_pair("p1", "s")),
    ("duplicate-pair", "tq", "p1d", "right behind", other_pair("p1d", "s")),
    (
        *("conv-relu", "c2q", "c2", "between Conv c2 and Relu r2"),
        {"edits": [("r2 = Relu(c2)", f"{pair('c2')} r2 = Relu(c2d)")]},
    ),
    (
        *("conv-relu", "a1q", "a1", "between Add a1 and Clip r3"),
        {"edits": [("r3 = Relu(a1)", f"{pair('a1')} r3 = Clip(a1d)")]},
    ),
    (
        *("between-dq-and-layer", "c2", "t", "Transpose t"),
        {"edits": [("(p1d, w2d", "(t, w2d"), ahead("c2", "t = Transpose<perm = [0,1,3,2]>(p1d)")]},
    ),
    (
        *("between-dq-and-layer", "c2", "t", "Cast t"),
        {"edits": [("(p1d, w2d", "(p1d, t"), ahead("c2", "t = Cast<to = 1>(w2d)")]},
    ),
    (
        *("unfolded", "n", "c2", "BatchNormalization behind Conv c2"),
        {
            "edits": [ahead("r2", "n = BatchNormalization(c2, v, v, v, v)"), ("Relu(c2", "Relu(n")],
            "v": np.ones(4, F32),
        },
    ),
    (
        *("unfolded", "n", "c2", "Mul behind Conv c2"),
        {
            "edits": [ahead("r2", "n = Mul(c2, k)"), ("Relu(c2", "Relu(n")],
            "k": np.ones((4, 1, 1), F32),
        },
    ),
    (
        *("inner-output", "c2", "c2", "read by Relu r2"),
        {"edits": [("(float[1,4] y)", "(float[1,4] y, float[1,4,4,4] c2)")]},
    ),
    (
        *("broadcast-add", "gq", "g", "Add h, which broadcasts"),
        {
            "edits": [ahead("f", MEAN_ADDED), ("Flatten(g)", "Flatten(g2)")],
            "also": {"average-pool"},
        },
    ),
    (
        *("concat-scales", "j", "r4d", "scale 0.2; the others have scale 0.1"),
        {"edits": [(pair("r4"), pair("r4", "s5"))]},
    ),
    ("concat-scales", "j", "r4", "joined in float", {"edits": [("(r4d, r3d)", "(r4, r3d)")]}),
    (
        *("moved-scales", "p1q", "p1", "scale 0.2 behind MaxPool p1, scale 0.1 before"),
        {
            "edits": [
                (pair("p1"), pair("p1", "s5")),
                (f"MaxPool{POOL}(r1)", f"MaxPool{POOL}(r1d)"),
                ahead("p1", pair("r1")),
            ]
        },
    ),
    (
        *("average-pool", "g", "r6", "the result is quantized, the input is not"),
        {"edits": [("GlobalAveragePool(r6d)", "GlobalAveragePool(r6)")]},
    ),
    (
        *("average-pool", "a", "a", "the input is quantized, the result is not"),
        {
            "edits": [("Conv(jd,", "Conv(a,"), ahead("c6", f"a = AveragePool{POOL}(jd)")],
            "also": {"half-quantized"},
        },
    ),
]


def broken(change):
    given = {key: value for key, value in change.items() if key not in ("edits", "also")}
    return net(*change.get("edits", ()), **given)


def moved(name):
    """Return the good network with a tensor renamed as full-range INT8 does."""
    model = net()
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [f"{name}.shifted" if old == name else old for old in names]
    return model


def test_a_border_of_zeros_around_what_was_moved():
    (finding,) = lint(moved("r2")).findings
    assert (finding.rule, finding.node, finding.tensor) == ("shifted-border", "c3", "r2.shifted")
    assert "Conv c3 pads it with zeros" in finding.problem
    assert lint(moved("r6")).findings == ()
    padded = moved("r2")
    term = onnx.numpy_helper.from_array(np.zeros((1, 4, 4, 4), F32), "map")
    padded.graph.initializer.append(term)
    nodes = list(padded.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.output[0] == "a1")
    nodes[at].input[0] = "c3m"
    nodes.insert(at, onnx.helper.make_node("Add", ["c3", "map"], ["c3m"]))
    del padded.graph.node[:]
    padded.graph.node.extend(nodes)
    assert lint(padded).findings == ()


def found(model, **options):
    return {(f.rule, f.node, f.tensor): f for f in lint(model, **options).findings}


def test_the_good_network_keeps_every_rule():
    report = lint(net())
    assert report.findings == ()
    assert (report.layers, report.int8, report.pairs) == (7, 7, 9)
    assert report.quantized


@pytest.mark.parametrize(("rule", "node", "tensor", "words", "change"), CASES)
def test_a_broken_network_is_found(rule, node, tensor, words, change):
    findings = found(broken(change))
    assert {name for name, _, _ in findings} <= {rule} | change.get("also", set())
    finding = findings[rule, node, tensor]
    assert words in finding.problem
    assert finding.severity is next(r.severity for r in RULES if r.id == rule)
    assert (rule, node, tensor) not in found(broken(change), ignore=[rule])


def test_every_rule_is_broken_by_a_test():
    tried = {rule for rule, *_ in CASES} | {"shifted-border"}
    assert tried == {rule.id for rule in RULES}


def test_every_rule_says_what_why_and_the_way_out():
    assert len({rule.id for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.what.endswith(".")
        assert "Source: " in rule.why
        assert rule.way_out


# What TensorRT itself says

# Errors that TensorRT-RTX 1.7.1 takes silently, and then computes otherwise; and one on which
# it ends the process.
NOT_REFUSED = {
    *("activation-per-channel", "scale-shape", "weight-axis", "scale-range", "pair-mismatch"),
    *("float64", "opset", "scale-constant", "shifted-border"),
}


def refusal(model):
    flavour = load_flavour("rtx")
    try:
        parse_by_tensorrt(flavour, model.SerializeToString(), Path("n.onnx"), TensorrtLog())
    except BuildError as err:
        return err.problem
    return None


ERRORS = {rule.id for rule in RULES if rule.severity is Severity.ERROR}


@pytest.mark.parametrize(
    ("words", "change"),
    [(words, change) for rule, _, _, words, change in CASES if rule in ERRORS - NOT_REFUSED],
)
def test_tensorrt_refuses_what_lint_calls_an_error(words, change):
    silent = ("codes are uint8", "uint8 (no zero", "scale inf", "int8 bias", "upper in")
    assert (refusal(broken(change)) is None) == words.startswith(silent)


def test_tensorrt_takes_the_good_network():
    assert refusal(net()) is None
