from collections import Counter

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import numpy_helper
from onnx_text import bytes_of, parse, results
from resnet_graph import resnet

from core.errors import CalibrationError, GraphError
from core.int8 import fake_quant, quantize, scale_of
from core.metrics import sqnr_db
from exporter.onnx_file import check
from exporter.precision import to_float16
from exporter.quantization.placement import plan_quantization
from exporter.quantization.plan import Activation, QuantizationPlan, Selection, Weight
from exporter.quantization.qdq import insert_qdq
from exporter.session import open_session

BLOCK = """block (float[N,4,8,8] x) => (float[N,6] y) {
  [conv1] a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
  [relu1] b = Relu(a)
  [conv2] c = Conv<pads = [1, 1, 1, 1]>(b, w2, b1)
  [add] d = Add(c, x)
  [relu2] e = Relu(d)
  [pool] p = GlobalAveragePool(e)
  [flat] f = Flatten(p)
  [fc] y = Gemm<transB = 1>(f, t, b2)
}"""
SHAPES = {"w1": (4, 4, 3, 3), "w2": (4, 4, 3, 3), "t": (6, 4), "b1": (4,), "b2": (6,)}
AMAX = {"x": 4.0, "b": 18.0, "e": 54.0, "f": 5.0}


def block(opset=19, **changes):
    return onnx.shape_inference.infer_shapes(parse(BLOCK, opset=opset, **(SHAPES | changes)))


def quantized(model, amax=AMAX, **options):
    result = insert_qdq(model, plan_quantization(model), amax, **options)
    check(result)
    return result


def constants(model):
    return {weight.name: numpy_helper.to_array(weight) for weight in model.graph.initializer}


def test_names_values_and_order():
    model = block()
    weights, graph = constants(model), quantized(model).graph
    found = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    assert {name for name in found if name.startswith("w1")} == {
        "w1.quantized", "w1.scale", "w1.zero_point",
    }  # fmt: skip
    scale = np.abs(weights["w1"]).reshape(4, -1).max(axis=1) / np.float32(127)
    np.testing.assert_array_equal(found["w1.scale"], scale)
    np.testing.assert_array_equal(found["w1.quantized"], quantize(weights["w1"], scale, 0))
    assert found["x.scale"] == np.float32(4.0) / np.float32(127)
    assert found["x.scale"].shape == found["x.zero_point"].shape == ()
    np.testing.assert_array_equal(found["b1"], weights["b1"])
    for name, array in found.items():
        if name.endswith(("quantized", "zero_point")):
            assert array.dtype == np.int8
        if name.endswith("zero_point"):
            assert not array.any()
    nodes = {node.name: node for node in graph.node}
    assert list(nodes["x.quantize"].output) == ["x.quantized"]
    assert list(nodes["x.dequantize"].output) == ["x.dequantized"]
    assert list(nodes["conv1"].input) == ["x.dequantized", "w1.dequantized", "b1"]
    assert list(nodes["add"].input) == ["c", "x.dequantized"]
    assert list(nodes["pool"].input) == ["e.dequantized"]
    assert list(nodes["fc"].input) == ["f.dequantized", "t.dequantized", "b2"]
    assert [output.name for output in graph.output] == ["y"]
    types = {info.name: info.type.tensor_type.elem_type for info in graph.value_info}
    assert types["x.quantized"] == onnx.TensorProto.INT8


def by_hand(w, x):
    """The block in numpy, fake-quantized where the rules say so."""

    def fq(array, amax):
        return fake_quant(array, scale_of(amax))

    def weight(name):
        array = w[name]
        return fake_quant(array, scale_of(np.abs(array).reshape(len(array), -1).max(axis=1)), 0)

    def conv(array, name):
        padded = np.pad(array, [(0, 0), (0, 0), (1, 1), (1, 1)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
        return np.einsum("nchwij,kcij->nkhw", windows, weight(name)) + w["b1"][:, None, None]

    x = fq(x, AMAX["x"])
    b = np.maximum(conv(x, "w1"), 0)
    e = np.maximum(conv(fq(b, AMAX["b"]), "w2") + x, 0)
    mean = fq(e, AMAX["e"]).mean(axis=(2, 3), dtype=np.float32)
    return fq(mean, AMAX["f"]) @ weight("t").T + w["b2"]


def test_the_numbers_are_those_of_the_rules():
    model = block()
    graph = quantized(model)
    x = np.random.default_rng(5).normal(size=(2, 4, 8, 8)).astype(np.float32)
    expected = by_hand(constants(model), x)
    ours = open_session(graph)({"x": x})["y"]
    reference = onnx.reference.ReferenceEvaluator(graph).run(None, {"x": x})[0]
    # A value on a rounding boundary may fall to either side, so not bit for bit.
    assert sqnr_db(expected, ours) > 60
    assert sqnr_db(reference, ours) > 60
    assert sqnr_db(expected, open_session(model)({"x": x})["y"]) < 50


def test_no_tensor_but_the_quantized_ones_moves():
    model = block()
    wide = dict.fromkeys(AMAX, 1e4)  # so coarse that all codes are 0 or ±1
    before, after = results(model), results(quantized(model, wide))
    assert sqnr_db(before["y"], after["y"]) < 10
    assert set(before) <= set(after)


def test_the_model_is_left_as_it_is_and_the_result_is_the_same_every_time():
    model = block()
    before = bytes_of(model)
    first = bytes_of(quantized(model))
    assert bytes_of(model) == before
    assert bytes_of(quantized(model)) == first


def test_a_channel_of_zeros_gets_a_safe_scale():
    weights = constants(block())["w1"].copy()
    weights[2] = 0
    found = constants(quantized(block(w1=weights)))
    assert found["w1.scale"][2] == 1
    assert (found["w1.scale"] > 0).all()
    assert not found["w1.quantized"][2].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(bad):
    weights = constants(block())["w2"].copy()
    weights[3, 0, 1, 1] = bad
    with pytest.raises(GraphError, match="'w2': channel 3 holds NaN or Inf"):
        quantized(block(w2=weights))


def test_an_amax_that_makes_no_scale():
    with pytest.raises(CalibrationError):
        quantized(block(), AMAX | {"b": np.nan})


def test_one_weight_for_two_layers_and_one_that_is_read_as_float_too():
    text = BLOCK.replace(
        "Conv<pads = [1, 1, 1, 1]>(b, w2, b1)", "Conv<pads = [1, 1, 1, 1]>(b, w1, b1)"
    )
    text = text.replace("[relu2] e = Relu(d)", "[mean] m = ReduceMean(t) [relu2] e = Add(d, m)")
    model = onnx.shape_inference.infer_shapes(
        parse(text, **{name: shape for name, shape in SHAPES.items() if name != "w2"})
    )  # fmt: skip
    graph = quantized(model).graph
    assert Counter(node.op_type for node in graph.node)["DequantizeLinear"] == 4 + 2
    assert "t" in constants(quantized(model))
    assert "w1" not in constants(quantized(model))


def test_a_tensor_that_is_an_output_stays_float():
    model = block()
    model.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, ["N", 4, 8, 8])
    )
    graph = quantized(model)
    x = np.random.default_rng(5).normal(size=(2, 4, 8, 8)).astype(np.float32)
    found = open_session(graph, outputs=["b.dequantized"])({"x": x})
    assert not np.array_equal(found["b"], found["b.dequantized"])


def test_layers_left_out_read_float():
    model = block()
    plan = plan_quantization(model, Selection(exclude=("conv2",)))
    graph = insert_qdq(model, plan, AMAX).graph
    nodes = {node.name: node for node in graph.node}
    assert list(nodes["conv2"].input) == ["b", "w2", "b1"]
    assert "b.quantize" not in nodes


@pytest.mark.parametrize("opset", [13, 16, 21, 23])
def test_opsets(opset):
    model = block(opset=opset)
    graph = quantized(model)
    assert graph.opset_import[0].version == opset
    assert sqnr_db(results(model)["y"], results(graph)["y"]) > 20


def test_an_opset_without_channel_scales():
    model = block(opset=12)
    with pytest.raises(GraphError, match="opset 12"):
        insert_qdq(model, plan_quantization(model), AMAX)


X = Activation("x", "input", ("conv1",), "x")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (((Activation("zz", "", (), "zz"),), ()), "'zz', which the graph does not have"),
        (((Activation("x", "", ("conv2",), "x"),), ()), "node 'conv2' reads 'x'"),
        (((X,), (Weight("zz", 0, ()),)), "weight 'zz', which"),
        (((X,), (Weight("w1", 4, ("conv1",)),)), r"no float32 axis 4"),
        (((X,), (Weight("w1", 0, ("fc",)),)), "node 'fc' reads 'w1'"),
    ],
)
def test_a_plan_that_does_not_fit(plan, words):
    with pytest.raises(GraphError, match=words):
        insert_qdq(block(), QuantizationPlan(*plan, {}), AMAX | {"zz": 1.0})


def test_half_scales_are_rounded_before_the_weights_are_quantized():
    model = block()
    weights = constants(model)["w1"]
    found = constants(quantized(model, half=True))
    scale = found["w1.scale"]
    np.testing.assert_array_equal(scale, scale.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(found["w1.quantized"], quantize(weights, scale, 0))
    assert (scale != constants(quantized(model))["w1.scale"]).any()


def test_half_scales_of_tiny_and_huge_values():
    weights = constants(block())["w1"].copy()
    weights[1] *= np.float32(1e-9)
    found = constants(quantized(block(w1=weights), half=True))
    assert found["w1.scale"][1] == np.finfo(np.float16).smallest_subnormal
    with pytest.raises(GraphError, match="'e': amax 1e\\+07 needs a scale beyond"):
        quantized(block(), AMAX | {"e": 1e7}, half=True)


def deep(opset=19):
    model = resnet(opset=opset)
    plan = plan_quantization(model)
    return model, plan, insert_qdq(model, plan, {a.tensor: 6.0 for a in plan.activations})


def test_a_resnet50_by_pattern():
    _, _, graph = deep()
    check(graph)
    producer = {name: node for node in graph.graph.node for name in node.output}
    count = Counter(node.op_type for node in graph.graph.node)
    assert (count["Conv"], count["Gemm"], count["Add"]) == (53, 1, 16)
    # image, 1 pool, 2 in each of 16 blocks, 16 block results, 4 projections, FC
    assert count["QuantizeLinear"] == 1 + 1 + 32 + 16 + 4 + 1
    assert count["DequantizeLinear"] == count["QuantizeLinear"] + 54
    for node in graph.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            x, w = (producer[name] for name in node.input[:2])
            assert x.op_type == w.op_type == "DequantizeLinear"
            assert producer[x.input[0]].op_type == "QuantizeLinear"
            assert w.input[0] not in producer  # an initializer
        elif node.op_type == "Add":
            main, shortcut = (producer[name] for name in node.input)
            assert main.op_type == "Conv"
            assert shortcut.op_type == "DequantizeLinear"
        elif node.op_type == "QuantizeLinear":
            assert producer.get(node.input[0]) is None or producer[node.input[0]].op_type in (
                "Relu", "MaxPool", "Flatten", "Conv",
            )  # fmt: skip
    quantized_tensors = [n.input[0] for n in graph.graph.node if n.op_type == "QuantizeLinear"]
    assert len(set(quantized_tensors)) == len(quantized_tensors)
    assert producer["logits"].op_type == "Gemm"
    sources = {n.input[0] for n in graph.graph.node if n.op_type == "QuantizeLinear"}
    projections = {s for s in sources if s.endswith("downsample.1")}
    assert len(projections) == 4


def rtx(model, path):
    """Build a plan with TensorRT-RTX; no GPU is needed."""
    from deploy.engines.build import build
    from deploy.engines.flavour import load_flavour
    from deploy.engines.target import BuildTarget, parse_batch

    onnx.save(model, path / "net.onnx")
    target = BuildTarget(profiles=(parse_batch("1,2,4"),))
    return build(
        path / "net.onnx", target, path / "net.engine", flavour=load_flavour("rtx")
    ).manifest


def test_tensorrt_builds_a_quantized_resnet50(tmp_path):
    _, _, graph = deep()
    manifest = rtx(graph, tmp_path)
    assert manifest.count("int8") == 54


@pytest.mark.parametrize("opset", [19, 20, 21, 22, 23])
@pytest.mark.parametrize("half", [False, True])
def test_tensorrt_builds_every_opset_and_rest(tmp_path, opset, half):
    model = resnet((2,), opset=opset)
    plan = plan_quantization(model)
    amax = {a.tensor: 6.0 for a in plan.activations}
    graph = insert_qdq(model, plan, amax, half=half)
    graph = to_float16(graph) if half else graph
    assert rtx(graph, tmp_path).count("int8") == 9
