import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper
from onnx_text import bytes_of, parse, results
from resnet_graph import resnet

from core.errors import GraphError
from core.metrics import sqnr_db
from exporter.onnx_file import check
from exporter.precision import require_float16_range, to_float16
from exporter.quantization.placement import plan_quantization
from exporter.quantization.qdq import insert_qdq
from exporter.session import open_session

NET = """net (float[N,3,8,8] x) => (float[N,4] y) {
  [conv] a = Conv<pads = [1, 1, 1, 1]>(x, w, b)
  [relu] r = Relu(a)
  [pool] p = GlobalAveragePool(r)
  [flat] f = Flatten(p)
  [fc] y = Gemm<transB = 1>(f, t)
}"""
SHAPES = {"w": (8, 3, 3, 3), "b": (8,), "t": (4, 8)}


def net(text=NET, opset=19, **changes):
    return onnx.shape_inference.infer_shapes(parse(text, opset=opset, **(SHAPES | changes)))


def half(model):
    result = to_float16(model)
    check(result)
    return result


def types(model):
    return {info.name: info.type.tensor_type.elem_type for info in model.graph.value_info}


def test_everything_inside_is_float16_and_nothing_outside():
    model = net()
    graph = half(model)
    assert {weight.data_type for weight in graph.graph.initializer} == {TensorProto.FLOAT16}
    assert {w.name for w in graph.graph.initializer} == set(SHAPES)
    assert set(types(graph).values()) == {TensorProto.FLOAT16}
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.elem_type == TensorProto.FLOAT
    assert [value.name for value in graph.graph.output] == ["y"]
    before, after = results(model), results(graph)
    assert 50 < sqnr_db(before["y"], after["y"]) < 80
    assert sqnr_db(before["r"], after["r"].astype(np.float32)) > 50


def test_weights_are_rounded_to_the_nearest_even():
    weights = np.float32([1 + 2**-11, 1 + 3 * 2**-11, 2**-25, 6e-8, 65519, -1 / 3, 0, 8])
    found = half(net(b=weights)).graph
    (bias,) = (w for w in found.initializer if w.name == "b")
    expected = [1, 1 + 2**-9, 0, 2**-24, 65504, np.float16(-1 / 3), 0, 8]
    np.testing.assert_array_equal(numpy_helper.to_array(bias), np.float16(expected))


@pytest.mark.parametrize(("bad", "words"), [(7e4, "70000"), (np.nan, "nan"), (-np.inf, "-inf")])
def test_a_weight_that_float16_cannot_hold_is_named(bad, words):
    weights = np.ones(8, np.float32)
    weights[5] = bad
    with pytest.raises(GraphError, match=f"'b' holds {words}, which float16 cannot"):
        to_float16(net(b=weights))


def test_activations_that_float16_cannot_hold_are_named():
    require_float16_range({"a": 65504.0})
    with pytest.raises(GraphError, match="'r' reaches 65505"):
        require_float16_range({"a": 1.0, "r": 65505.0})


def test_the_model_is_left_as_it_is():
    model = net()
    before = bytes_of(model)
    first = bytes_of(half(model))
    assert bytes_of(model) == before
    assert bytes_of(half(model)) == first


@pytest.mark.parametrize("opset", [13, 17, 19, 23])
def test_opsets(opset):
    graph = half(net(opset=opset))
    assert graph.opset_import[0].version == max(opset, 19)


def test_casts_and_constants_that_say_their_type():
    text = NET.replace("[relu] r = Relu(a)", "i = Cast<to = 6>(a) j = Cast<to = 1>(i) r = Relu(j)")
    graph = half(net(text))
    found = {
        node.output[0]: node.attribute[0].i for node in graph.graph.node if node.op_type == "Cast"
    }
    assert found == {
        "x.float16": TensorProto.FLOAT16,
        "i": TensorProto.INT32,
        "j": TensorProto.FLOAT16,
        "y": TensorProto.FLOAT,
    }
    made = NET.replace(
        "[relu] r = Relu(a)", "[made] c = Constant<value_float = 2.0>() r = Mul(a, c)"
    )
    with pytest.raises(GraphError, match=r"'made' .Constant. makes float32"):
        to_float16(net(made))


def test_inputs_that_are_float32_by_definition_stay_so():
    text = NET.replace("[relu] r = Relu(a)", "s = Resize(a, , k) q = Mul(s, k) r = Relu(q)")
    text = text.replace("q = Mul(s, k)", "q = Mul(s, m)")
    model = net(text, k=np.float32([1, 1, 2, 2]), m=np.float32([2]))
    graph = half(model)
    kept = {w.name for w in graph.graph.initializer if w.data_type == TensorProto.FLOAT}
    assert kept == {"k"}
    assert sqnr_db(results(model)["y"], results(graph)["y"]) > 50


def test_outputs_that_are_read_inside_and_an_output_of_two_names():
    model = net()
    model.graph.output.add().CopyFrom(
        onnx.helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 8, 8, 8])
    )
    graph = half(model)
    found = open_session(graph)({"x": np.ones((1, 3, 8, 8), np.float32)})
    assert {name: array.dtype for name, array in found.items()} == {
        "y": np.float32,
        "r": np.float32,
    }
    (pool,) = (node for node in graph.graph.node if node.name == "pool")
    assert list(pool.input) == ["r.float16"]


def test_int8_with_a_float16_rest():
    model = resnet((1, 1), size=32)
    plan = plan_quantization(model)
    found = results(model, outputs=[a.tensor for a in plan.activations])
    amax = {a.tensor: float(np.abs(found[a.tensor]).max()) for a in plan.activations}
    wide = insert_qdq(model, plan, amax)
    graph = half(insert_qdq(model, plan, amax, half=True))
    for node in graph.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (
                next(w for w in graph.graph.initializer if w.name == n) for n in node.input[1:]
            )
            assert (scale.data_type, zero.data_type) == (TensorProto.FLOAT16, TensorProto.INT8)
            values = numpy_helper.to_array(scale)
            assert np.isfinite(values).all()
            assert (values > 0).all()
    assert set(types(graph).values()) == {TensorProto.FLOAT16, TensorProto.INT8}
    reference = results(model, outputs=[])["logits"]
    ours, theirs = (results(g, outputs=[])["logits"] for g in (graph, wide))
    assert sqnr_db(reference, ours) > 20
    assert sqnr_db(reference, ours) > sqnr_db(reference, theirs) - 3
