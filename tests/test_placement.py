import json

import numpy as np
import onnx
import pytest

from core.errors import GraphError, InputError
from exporter.quantization.placement import plan_quantization
from exporter.quantization.plan import QuantizationPlan, Selection

WEIGHTS = {"w": (8, 8, 3, 3), "v": (8, 8, 1, 1), "u": (8, 16, 1, 1), "m": (8, 4), "t": (4, 8)}
PAD = "<pads = [1, 1, 1, 1]>"


def graph(body, *, result="float[N,8,S,S] y", weights=WEIGHTS):
    """A graph over input x (N, 8, 16, 16); weights w 3×3, v and u 1×1, m (C, K), t (K, C)."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,8,16,16] x) => ({result}) {{ {body} }}"""
    )
    for name, shape in weights.items():
        values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 8], np.int64), "flat"))
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model)


def pairs(model, **selection):
    plan = plan_quantization(model, Selection(**selection))
    return {a.tensor: a.readers for a in plan.activations}


IDENTITY = f"""
    [conv1] a = Conv{PAD}(x, w)
    [relu1] b = Relu(a)
    [conv2] c = Conv{PAD}(b, w)
    [add] d = Add(c, x)
    [relu2] y = Relu(d)
"""


def test_identity_block_shares_the_block_inputs_pair():
    for body in (IDENTITY, IDENTITY.replace("Add(c, x)", "Add(x, c)")):
        assert pairs(graph(body)) == {"x": ("conv1", "add"), "b": ("conv2",)}


def test_projection_block_quantizes_the_projection_not_the_main_branch():
    body = IDENTITY.replace("Add(c, x)", "Add(c, p)").replace(
        "[add]", "[proj] p = Conv(x, v) [add]"
    )
    for block in (body, body.replace("Add(c, p)", "Add(p, c)")):
        plan = plan_quantization(graph(block))
        found = {a.tensor: (a.readers, a.scale) for a in plan.activations}
        assert found == {
            "x": (("conv1", "proj"), "x"),
            "b": (("conv2",), "b"),
            "p": (("add",), "p"),
        }
        assert [(w.tensor, w.axis, w.readers) for w in plan.weights] == [
            ("w", 0, ("conv1", "conv2")),
            ("v", 0, ("proj",)),
        ]


def test_of_two_equal_branches_one_stays_float():
    body = f"[a] a = Conv{PAD}(x, w) [b] b = Conv(x, v) [add] y = Add(a, b)"
    assert pairs(graph(body)) == {"x": ("a", "b"), "b": ("add",)}


@pytest.mark.parametrize(
    "body",
    [
        # the sum cannot be computed in the convolution's kernel: its result has another reader
        f"[a] a = Conv{PAD}(x, w) [r] r = Sigmoid(x) [add] s = Add(a, r) [m] y = Mul(s, a)",
        # no convolution makes either branch
        "[a] a = Conv(x, v) [s] s = Sigmoid(a) [r] r = Tanh(a) [add] y = Add(s, r)",
        # a broadcasting Add fuses with nothing
        """[p] p = GlobalAveragePool(x) [g] g = Conv(p, v) [s] s = Sigmoid(x)
           [add] y = Add(g, s)""",
    ],
)
def test_an_add_that_fuses_with_nothing_asks_for_nothing(body):
    assert "add" not in {reader for readers in pairs(graph(body)).values() for reader in readers}


def test_adding_a_constant_is_no_residual():
    weights = {**WEIGHTS, "k": (8, 1, 1)}
    body = f"[a] a = Conv{PAD}(x, w) [add] y = Add(a, k)"
    assert pairs(graph(body, weights=weights)) == {"x": ("a",)}


def test_pre_activation_quantizes_the_stream_for_the_shortcut():
    weights = {**WEIGHTS, "n": (8, 1, 1)}
    body = f"""
        [norm] n1 = Mul(x, n) [relu] r = Relu(n1)
        [conv1] a = Conv{PAD}(r, w)
        [add] y = Add(a, x)
    """
    assert pairs(graph(body, weights=weights)) == {"x": ("norm", "add"), "r": ("conv1",)}


HEAD = """
    [conv] a = Conv(x, v) [relu] b = Relu(a)
    [pool] p = GlobalAveragePool(b) [flat1] f = Flatten(p)
    [fc] y = Gemm<transB = 1>(f, t)
"""


def test_the_mean_before_the_last_layer():
    model = graph(HEAD, result="float[N,4] y")
    plan = plan_quantization(model)
    assert [a.tensor for a in plan.activations] == ["x", "b", "f"]  # none on y
    assert plan.activations[1].reason == "input of GlobalAveragePool pool"
    assert plan.weights[-1].axis == 0


def test_a_mean_between_two_convolutions():
    body = """
        [conv1] a = Conv(x, v) [relu] b = Relu(a)
        [pool] p = AveragePool<kernel_shape = [2, 2], strides = [2, 2]>(b)
        [conv2] y = Conv(p, v)
    """
    found = pairs(graph(body))
    assert found == {"x": ("conv1",), "b": ("pool",), "p": ("conv2",)}
    assert pairs(graph(body), exclude=("pool",)) == {"x": ("conv1",), "p": ("conv2",)}


def test_a_mean_that_leads_to_float_stays_float():
    model = graph(HEAD, result="float[N,4] y")
    assert pairs(model, exclude=("fc",)) == {"x": ("conv",)}


@pytest.mark.parametrize(
    ("layer", "axis"),
    [
        ("Gemm(f, m)", 1),
        ("Gemm<transB = 1>(f, t)", 0),
        ("MatMul(f, m)", 1),
    ],
)
def test_axis_of_the_output_channels(layer, axis):
    body = HEAD.replace("Gemm<transB = 1>(f, t)", layer)
    plan = plan_quantization(graph(body, result="float[N,4] y"))
    assert plan.weights[-1].axis == axis
    assert plan.activations[-1].readers == ("fc",)


@pytest.mark.parametrize(
    ("layer", "why"),
    [
        ("MatMul(f, z)", "its weight is not constant"),
        ("Gemm<transA = 1>(q, m)", "its input is transposed"),
    ],
)
def test_what_stays_float_says_why(layer, why):
    body = HEAD.replace(
        "[fc] y = Gemm<transB = 1>(f, t)",
        f"z = Identity(m) q = Transpose<perm = [1, 0]>(f) [fc] y = {layer}",
    )
    plan = plan_quantization(graph(body, result="float[N,4] y"))
    assert plan.left == {"fc": why}
    assert "fc" not in {reader for a in plan.activations for reader in a.readers}


def test_a_weight_that_two_layers_read_along_two_axes():
    body = HEAD.replace(
        "[fc] y = Gemm<transB = 1>(f, t)", "[fc] l = Gemm(f, m) [back] y = Gemm<transB = 1>(l, m)"
    )
    plan = plan_quantization(graph(body, result="float[N,8] y"))
    assert [w.readers for w in plan.weights if w.tensor == "m"] == [("fc",)]
    assert "another axis" in plan.left["back"]


def test_concat_has_one_scale_through_and_through():
    body = f"""
        [conv1] a = Conv{PAD}(x, w) [relu1] b = Relu(a)
        [conv2] c = Conv{PAD}(b, w) [relu2] d = Relu(c)
        [cat] e = Concat<axis = 1>(b, d)
        [conv3] y = Conv(e, u)
    """
    plan = plan_quantization(graph(body))
    assert {a.tensor: a.scale for a in plan.activations} == {
        "x": "x",
        "b": "b",
        "d": "b",
        "e": "b",
    }
    assert plan.groups == {"x": ("x",), "b": ("b", "d", "e")}
    assert {a.tensor: a.readers for a in plan.activations} == {
        "x": ("conv1",),
        "b": ("conv2", "cat"),
        "d": ("cat",),
        "e": ("conv3",),
    }


def test_a_concat_of_concats_and_a_pool_between():
    weights = {**WEIGHTS, "u": (8, 24, 1, 1)}
    body = f"""
        [conv1] a = Conv{PAD}(x, w) [relu1] b = Relu(a)
        [cat1] c = Concat<axis = 1>(x, b)
        [cat2] d = Concat<axis = 1>(c, b)
        [pool] e = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(d)
        [conv2] y = Conv(e, u)
    """
    plan = plan_quantization(graph(body, weights=weights))
    assert plan.groups == {"x": ("x", "b", "c", "d", "e")}


def test_a_concat_whose_result_stays_float_asks_for_nothing():
    weights = {**WEIGHTS, "n": (16, 1, 1)}
    body = f"""
        [conv1] a = Conv{PAD}(x, w)
        [cat] c = Concat<axis = 1>(x, a)
        [norm] n1 = Mul(c, n) [relu] r = Relu(n1)
        [conv2] y = Conv(r, u)
    """
    assert pairs(graph(body, weights=weights)) == {"x": ("conv1", "cat"), "r": ("conv2",)}


def test_pooled_and_unpooled_share_a_scale():
    body = """
        [conv1] a = Conv(x, v)
        [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(x)
        [conv2] b = Conv(p, v)
        [up] c = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
        [add] y = Add(b, c)
    """
    plan = plan_quantization(graph(body))
    assert plan.groups == {"x": ("x", "p"), "c": ("c",)}


def test_stem_pool_gets_nothing_of_its_own():
    body = """
        [conv1] a = Conv(x, v) [relu1] b = Relu(a)
        [pool] p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(b)
        [conv2] y = Conv(p, v)
    """
    assert pairs(graph(body)) == {"x": ("conv1",), "p": ("conv2",)}


def test_a_tensor_that_is_an_output_too():
    body = "[conv1] a = Conv(x, v) [relu1] b = Relu(a) [conv2] y = Conv(b, v)"
    found = pairs(graph(body, result="float[N,8,S,S] b, float[N,8,S,S] y"))
    assert found == {"x": ("conv1",), "b": ("conv2",)}


def test_excluded_layers_read_float_and_unnamed_nodes_have_names():
    body = f"a = Conv{PAD}(x, w) b = Relu(a) c = Conv{PAD}(b, w) d = Conv(b, v) y = Add(c, d)"
    model = graph(body)
    assert pairs(model) == {"x": ("a",), "b": ("c", "d"), "d": ("y",)}
    assert pairs(model, exclude=("c",)) == {"x": ("a",), "b": ("d",), "c": ("y",)}
    assert pairs(model, exclude=("Add",)) == {"x": ("a",), "b": ("c", "d")}
    assert pairs(model, include=("[cd]",)) == {"b": ("c", "d"), "d": ("y",)}
    assert pairs(model, include=("Conv",), exclude=("a",)) == {"b": ("c", "d"), "d": ("y",)}


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_a_pattern_that_matches_nothing(option):
    with pytest.raises(InputError, match=f"--{option} 'conv3' matches no layer") as err:
        pairs(graph(IDENTITY), **{option: ("conv3",)})
    assert "conv2" in err.value.hint


def test_nothing_to_quantize():
    with pytest.raises(GraphError, match="no Conv"):
        pairs(graph(IDENTITY), exclude=("Conv",))


def test_a_quantized_graph_is_refused():
    weights = {**WEIGHTS, "s": ()}
    body = (
        "[q] q = QuantizeLinear<output_dtype = 3>(x, s) [dq] a = DequantizeLinear(q, s) "
        "[conv1] y = Conv(a, v)"
    )
    with pytest.raises(GraphError, match="'q' is a QuantizeLinear"):
        pairs(graph(body, weights=weights))


def test_a_plan_survives_printing_and_editing(tmp_path):
    plan = plan_quantization(graph(IDENTITY), Selection(exclude=("conv2",)))
    path = tmp_path / "plan.json"
    path.write_text(str(plan))
    assert QuantizationPlan.read(path) == plan


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda v: v.pop("kind"), "not a quantization plan"),
        (lambda v: v["activations"][0].pop("readers"), "KeyError: 'readers'"),
        (lambda v: v["activations"][0].update(readers="conv1"), "not a list of names"),
        (lambda v: v["activations"].append(v["activations"][0]), "'x' is there twice"),
        (lambda v: v["activations"][0].update(scale="zz"), "takes the scale of 'zz'"),
        (lambda v: v["weights"][0].update(axis="zero"), "ValueError"),
    ],
)
def test_a_plan_that_was_edited_badly(tmp_path, edit, words):
    value = plan_quantization(graph(IDENTITY)).to_json()
    value = json.loads(json.dumps(value))
    edit(value)
    path = tmp_path / "plan.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=words):
        QuantizationPlan.read(path)


def test_planning_leaves_the_model_as_it_is():
    model = graph(IDENTITY)
    before = model.SerializeToString()
    plan_quantization(model)
    assert model.SerializeToString() == before
