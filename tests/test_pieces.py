"""A graph in pieces computes what the whole computes, and holds little of it at once."""

import numpy as np
import onnx
import pytest
from onnx_text import batchnorm, parse, results

from core.errors import AccuracyError
from exporter import tensor_check
from exporter.optimize import check_optimized
from exporter.pieces import Pieces
from exporter.session import open_session
from exporter.tensor_check import CheckOptions, check_tensors, random_feed, tensor_bytes

# A residual block, so that a cut may have to carry two tensors.
TEXT = """g (float[N,4,9,9] x) => (float[N,4,9,9] y, float[N,4,9,9] r1) {
    c1 = Conv<pads=[1,1,1,1]>(x, w)
    b1 = BatchNormalization(c1, gamma, beta, mean, var)
    r1 = Relu(b1)
    c2 = Conv<pads=[1,1,1,1]>(r1, w)
    a = Add(c2, x)
    y = Relu(a)
}"""
NAMES = ["c1", "b1", "r1", "c2", "a", "y"]


def block():
    return onnx.shape_inference.infer_shapes(parse(TEXT, w=(4, 4, 3, 3), **batchnorm(4)))


def feed(model):
    return random_feed(open_session(model).inputs)


@pytest.mark.parametrize(("limit", "pieces"), [(1, 6), (2 * 4 * 324 * 2, 3), (1 << 30, 1)])
def test_the_pieces_make_the_numbers_of_the_whole(limit, pieces):
    model = block()
    sizes = {name: 2 * size for name, size in tensor_bytes(model).items()}
    parts = list(Pieces(model, sizes, limit).run(feed(model)))
    assert len(parts) == pieces
    assert [name for part in parts for name in part] == NAMES
    whole = results(model)
    for part in parts:
        for name, array in part.items():
            np.testing.assert_array_equal(array, whole[name])


def test_pieces_run_again_on_another_batch():
    model = block()
    pieces = Pieces(model, tensor_bytes(model), 1)
    for batch in (1, 3):
        images = random_feed(open_session(model).inputs, batch=batch)
        assert {len(array) for part in pieces.run(images) for array in part.values()} == {batch}


def test_only_what_is_wanted_is_returned():
    model = block()
    parts = list(Pieces(model, {"c2": 1 << 20, "y": 1}, 1 << 10).run(feed(model)))
    assert [name for part in parts for name in part] == ["c2", "y"]


def test_a_subgraph_reads_tensors_of_an_earlier_piece():
    text = """g (bool flag, float[N,3] x) => (float[N,3] y) {
        t = Relu(x)
        u = Sigmoid(x)
        y = If (flag) <
            then_branch = yes () => (float[N,3] a) { a = Sigmoid(t) },
            else_branch = no () => (float[N,3] b) { b = Relu(u) }
        >
    }"""
    model = parse(text)
    parts = Pieces(model, dict.fromkeys(("t", "u", "y"), 8), 1).run(feed(model))
    found = {name: array for part in parts for name, array in part.items()}
    for name, array in results(model).items():
        np.testing.assert_array_equal(found[name], array)


def test_a_check_in_pieces_finds_what_a_check_in_one_finds(monkeypatch):
    model, wrong = block(), block()
    bias = next(weight for weight in wrong.graph.initializer if weight.name == "beta")
    bias.CopyFrom(onnx.numpy_helper.from_array(np.full(4, 0.5, np.float32), "beta"))
    monkeypatch.setattr("exporter.optimize.CHUNK_BYTES", 1)
    monkeypatch.setattr(tensor_check, "CHUNK_BYTES", 1 << 12)
    assert check_optimized(model, model).worst[1] == np.inf
    with pytest.raises(AccuracyError, match="tensor 'b1' has an SQNR of"):
        check_optimized(model, wrong)


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1], ["a", "c1", "y", "r1", "b1", "c2"]])
def test_the_reference_may_come_in_any_order(order, monkeypatch):
    monkeypatch.setattr(tensor_check, "CHUNK_BYTES", 1)
    model = block()
    whole = results(model)

    def drive(images, sink):
        for name in order:
            sink(name, whole[name])

    check = check_tensors(drive, model, [feed(model)], CheckOptions(tensor_bytes(model)))
    assert set(check.sqnr_db.values()) == {np.inf}
    assert list(check.sqnr_db) == NAMES


def test_another_shape_and_another_infinity_do_not_pass():
    model = block()
    whole = results(model)

    def drive(images, sink):
        for name in NAMES:
            array = whole[name].copy()
            if name == "r1":
                array = array[:, :2]
            if name == "a":
                array.flat[0] = np.inf
            sink(name, array)

    options = CheckOptions(tensor_bytes(model), strict=False)
    check = check_tensors(drive, model, [feed(model)], options)
    assert [name for name, db in check.sqnr_db.items() if np.isnan(db)] == ["r1", "a"]
