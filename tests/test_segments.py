"""Cuts and pieces: where a graph falls apart, and that the parts are the whole."""

import math
from itertools import pairwise

import numpy as np
import onnx
import pytest
from tiny_nets import resnet, with_qdq

from core.errors import InputError
from deploy.comparison.graphs.graph import Graph, split_weights
from deploy.comparison.graphs.segments import OWN, piece
from deploy.comparison.graphs.tensor_shapes import tensor_shapes, unpacked_bytes
from deploy.comparison.graphs.wiring import common_cuts, merge_cuts, wiring_of
from deploy.comparison.sides.pieces import Pieces
from exporter.session import open_session

IMAGE = np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32)


def parse(body: str, inputs: str = "float[N,4] x") -> onnx.ModelProto:
    head = '<ir_version: 10, opset_import: ["" : 21]>'
    return onnx.parser.parse_model(f"{head} g ({inputs}) => (float[N,4] y) {{ {body} }}")


def graph_of(model: onnx.ModelProto, above: int = 256) -> Graph:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return split_weights(copy, above=above)


def whole(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    names = [name for node in model.graph.node for name in node.output]
    return open_session(model, outputs=names)({"input": IMAGE})


def test_a_residual_network_is_cut_at_its_block_boundaries():
    cuts = wiring_of(resnet()).cuts
    inside = {f"layer1.{b}.{t}" for b in (0, 1) for t in ("conv1", "relu1", "conv2")}
    assert not inside & set(cuts)
    assert cuts == (
        *("conv1", "relu", "layer1.0.add", "layer1.0.relu", "layer1.1.add", "layer1.1.relu"),
        *("avgpool", "flatten"),
    )


@pytest.mark.parametrize(
    ("body", "cuts"),
    [
        ("a = Neg(x) b = Abs(a) y = Relu(b)", ("a", "b")),
        ("a = Neg(x) b = Abs(x) y = Add(a, b)", ()),
        ("a = Neg(x) unread = Abs(a) y = Relu(a)", ("a",)),
        ("a, b = Split<axis = 1, num_outputs = 2>(x) c = Neg(a) y = Concat<axis = 1>(b, c)", ()),
        ("a, b = Split<axis = 1, num_outputs = 2>(x) c = Neg(a) y = Concat<axis = 1>(c, c)",
         ("a", "c")),
        ("a = Neg(x) k = Constant<value_float = 2.0>() b = Mul(a, k) y = Relu(b)", ("a", "b")),
    ],
)  # fmt: skip
def test_cuts_are_the_tensors_that_alone_are_read_later(body, cuts):
    assert wiring_of(parse(body)).cuts == cuts


def test_two_inputs_are_cut_only_where_they_have_met():
    model = parse("a = Neg(x) b = Abs(a) c = Add(b, z) y = Relu(c)", "float[N,4] x, float[N,4] z")
    assert wiring_of(model).cuts == ("c",)


def test_what_a_subgraph_reads_stays_alive():
    body = """
        a = Neg(x)
        b = Abs(a)
        t = Constant<value = bool {1}>()
        c = If (t) <
          then_branch = g1 () => (float[N,4] o) { o = Add(a, b) },
          else_branch = g2 () => (float[N,4] p) { p = Identity(b) }
        >
        y = Relu(c)
    """
    wiring = wiring_of(parse(body))
    assert wiring.cuts == ("a", "c")
    assert "c" in wiring.readers["a"]


def test_a_graph_that_ignores_its_input_is_refused():
    with pytest.raises(InputError, match="nothing from its inputs"):
        wiring_of(parse("y = Constant<value_float = 2.0>()"))


@pytest.mark.parametrize("form", [resnet, lambda: with_qdq(resnet())])
@pytest.mark.parametrize("cuts", [0, 1, 3, None])
def test_the_pieces_make_what_the_whole_makes(form, cuts):
    model = form()
    expected = whole(model)
    wiring = wiring_of(model)
    chosen = wiring.cuts[:cuts]
    pieces = Pieces(graph_of(model), wiring, chosen, wiring.makers, {})
    made, entry = {}, {"input": IMAGE}
    for at in range(pieces.count):
        result, entry = pieces.free(at, entry)
        assert not made.keys() & result.keys()
        made |= result
    assert made.keys() == wiring.makers.keys()
    for name, array in made.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)


def test_fed_with_its_own_tensors_a_network_repeats_itself():
    model = with_qdq(resnet())
    expected = whole(model)
    wiring = wiring_of(model)
    pieces = Pieces(
        graph_of(model), wiring, ["layer1.0.relu"], ["conv1", "relu", "layer1.1.conv1"], {}
    )
    assert pieces.free(0, {"input": IMAGE})[0].keys() == {"conv1", "relu", "layer1.0.relu"}
    given = {name: expected[name] for name in ("conv1", "relu")}
    fed = pieces.fed(0, {"input": IMAGE}, given)
    assert fed.keys() == given.keys()
    for name in given:
        np.testing.assert_array_equal(fed[name], expected[name])


def test_a_fed_layer_sees_what_it_is_fed_and_nothing_else():
    model = resnet()
    pieces = Pieces(graph_of(model), wiring_of(model), [], ["conv1", "relu", "layer1.0.conv1"], {})
    free, _ = pieces.free(0, {"input": IMAGE})
    given = {name: np.zeros_like(array) for name, array in free.items()}
    given["conv1"] = -np.ones_like(free["conv1"])
    fed = pieces.fed(0, {"input": IMAGE}, given)
    np.testing.assert_array_equal(fed["conv1"], free["conv1"])
    assert not fed["relu"].any()
    bias = next(i for i in model.graph.initializer if i.name == "layer1.0.conv1.bias")
    expected = np.broadcast_to(
        onnx.numpy_helper.to_array(bias)[:, None, None], fed["layer1.0.conv1"].shape
    )
    np.testing.assert_array_equal(fed["layer1.0.conv1"], expected)


def test_a_piece_leaves_the_model_alone_and_takes_only_what_it_needs():
    model = resnet()
    before = model.SerializeToString()
    wiring = wiring_of(model)
    feeds = {"relu": np.zeros((1, 8, 16, 16), np.float16), "other": np.zeros(3)}
    ends = ("relu", "layer1.0.relu")
    part = piece(model, wiring, ends, outputs=["layer1.0.relu"], feeds=feeds, given=["relu"])
    assert model.SerializeToString() == before
    assert [i.name for i in part.graph.input] == ["relu"]
    assert part.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    assert [o.name for o in part.graph.output] == ["layer1.0.relu"]
    assert all(i.name.startswith("layer1.0.") for i in part.graph.initializer)
    given = piece(
        model, wiring, ends, outputs=["layer1.0.relu"], feeds=feeds, given=["layer1.0.relu"]
    )
    assert [o.name for o in given.graph.output] == ["layer1.0.relu" + OWN]


def test_weights_lie_beside_the_graph_and_serve_all_pieces():
    model = resnet()
    graph = graph_of(model)
    names = {i.name for i in model.graph.initializer if len(i.raw_data) > 256}
    assert names
    assert graph.weights.keys() == names
    assert graph.model.ByteSize() < model.ByteSize() / 2
    kept = graph_of(model, above=1 << 20)
    assert not kept.weights
    assert kept.model == model


def test_common_cuts_keep_the_order_of_both():
    a = wiring_of(parse("a = Neg(x) b = Abs(a) c = Exp(b) y = Relu(c)"))
    b = wiring_of(parse("b = Neg(x) a = Abs(b) c = Exp(a) y = Relu(c)"))
    assert common_cuts(a.cuts, b.cuts) == ("a", "c")
    assert common_cuts(a.cuts, a.cuts) == ("a", "b", "c")
    assert common_cuts(wiring_of(resnet()).cuts, wiring_of(with_qdq(resnet())).cuts) == (
        wiring_of(resnet()).cuts
    )


def test_shapes_follow_from_the_inputs_shape():
    shapes = tensor_shapes(with_qdq(resnet()), {"input": (2, 3, 16, 16)})
    assert shapes["conv1"] == shapes["relu.quantized"] == (2, 8, 16, 16)
    assert shapes["logits"] == (2, 10)
    assert tensor_shapes(parse("y = Foreign(x)"), {"x": (1, 4)}) == {}


def test_merging_keeps_no_cut_that_saves_nothing():
    wiring = wiring_of(resnet(blocks=6))
    shapes = tensor_shapes(resnet(blocks=6), {"input": (2, 3, 16, 16)})
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    kept = merge_cuts(wiring, wiring.cuts, sizes)
    assert set(kept) < set(wiring.cuts)
    weights = [0]
    for name in wiring.makers:
        weights[-1] += sizes[name]
        if name in kept:
            weights.append(0)
    largest_block = sum(sizes[f"layer1.0.{t}"] for t in ("conv1", "relu1", "conv2", "downsample",
                                                         "add"))  # fmt: skip
    assert max(weights) <= largest_block
    assert all(a + b > largest_block for a, b in pairwise(weights))


def test_a_long_plain_network_falls_into_few_pieces():
    body = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(200))
    model = parse(f"t0 = Neg(x) {body} y = Relu(t200)")
    kept = merge_cuts(wiring_of(model), wiring_of(model).cuts, {})
    assert 10 <= len(kept) <= 32
    assert merge_cuts(wiring_of(model), (), {}) == ()


def test_pieces_hold_few_weights_that_are_unpacked():
    body = " ".join(f"t{i + 1} = Neg(t{i})" for i in range(9))
    wiring = wiring_of(parse(f"t0 = Neg(x) {body} y = Relu(t9)"))
    names = [f"t{i}" for i in range(10)]
    tensors = dict.fromkeys([*names, "y"], 1) | {"t2": 4}
    weights = dict.fromkeys([*names, "y"], 0) | {"t7": 8, "t8": 8, "y": 8}
    kept = merge_cuts(wiring, wiring.cuts, tensors, weights)
    assert kept == ("t1", "t2", "t6", "t7", "t9")
    assert merge_cuts(wiring, wiring.cuts, tensors) == ("t1", "t2", "t6")  # by tensors alone


def test_weights_are_unpacked_by_what_reads_them():
    model = with_qdq(resnet())
    elements = {i.name: math.prod(i.dims) for i in model.graph.initializer}
    codes = [n for n in elements if n.endswith(".weight.quantized")]
    found = unpacked_bytes(model)
    assert unpacked_bytes(resnet()) == {}
    assert sum(found.values()) == 4 * sum(elements[name] for name in codes)
