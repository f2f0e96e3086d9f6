import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from core.errors import GraphError, InputError, MissingBackendError
from exporter.session import Shared, give_memory_back, open_session

TOY = """<ir_version: 10, opset_import: ["" : 21]>
toy (float[N,4] input) => (float[N,4] y) {
  a = Neg(input)
  b = Relu(a)
  y = Abs(b)
}"""


@pytest.fixture
def model():
    return onnx.parser.parse_model(TOY)


def feed(rows=2):
    return {"input": np.linspace(-1, 1, rows * 4, dtype=np.float32).reshape(rows, 4)}


@pytest.mark.parametrize("optimize", [False, True])
def test_names_and_arrays_in_and_out(model, optimize):
    session = open_session(model, optimize=optimize, threads=1)
    result = session(feed())
    assert list(result) == list(session.outputs) == ["y"]
    np.testing.assert_array_equal(result["y"], np.maximum(-feed()["input"], 0))
    (info,) = session.inputs
    assert (info.name, info.shape, info.dtype) == ("input", ("N", 4), np.float32)


@pytest.mark.parametrize("form", ["model", "bytes", "path"])
def test_inner_tensors_follow_the_models_own_outputs(model, form, tmp_path):
    path = tmp_path / "toy.onnx"
    onnx.save(model, path)
    before = model.SerializeToString()
    source = {"model": model, "bytes": before, "path": path}[form]
    session = open_session(source, optimize=True, outputs=["b", "a", "y", "input"])
    result = session(feed())
    assert session.outputs == ("y", "b", "a", "input")
    np.testing.assert_array_equal(result["a"], -feed()["input"])
    np.testing.assert_array_equal(result["input"], feed()["input"])
    assert model.SerializeToString() == before


def test_external_data_is_found_beside_the_file(tmp_path):
    weight = onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32) * 3, "w")
    model = onnx.parser.parse_model(TOY.replace("Neg(input)", "MatMul(input, w)"))
    model.graph.initializer.append(weight)
    path = tmp_path / "toy.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    for outputs in (None, ["a"]):
        result = open_session(path, outputs=outputs)(feed())
        np.testing.assert_array_equal(result["y"], np.maximum(3 * feed()["input"], 0))


def test_an_unknown_tensor_is_refused(model):
    with pytest.raises(InputError, match="no tensor named 'zz'"):
        open_session(model, outputs=["zz"])


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({}, r"fed \[\], but its inputs are \['input'\]"),
        ({"x": np.ones((1, 4), np.float32)}, "fed"),
        ({"input": np.ones((1, 4))}, "float32 N×4, fed float64 1×4"),
        ({"input": np.ones((1, 5), np.float32)}, "fed float32 1×5"),
        ({"input": np.ones(4, np.float32)}, "fed float32 4"),
    ],
)
def test_wrong_feeds_are_named(model, feeds, words):
    with pytest.raises(InputError, match=words):
        open_session(model)(feeds)


@pytest.mark.parametrize("outputs", [None, ["a"]])
def test_what_is_not_onnx(tmp_path, model, outputs):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(model.SerializeToString()[:40])
    with pytest.raises(InputError, match=r"broken.onnx: not an ONNX model"):
        open_session(broken, outputs=outputs)
    with pytest.raises(InputError, match=r"nowhere.onnx: "):
        open_session(tmp_path / "nowhere.onnx", outputs=outputs)


def test_a_node_that_fails_is_named():
    text = TOY.replace("a = Neg(input)", "[bad] a = Reshape(input, input)")
    with pytest.raises(GraphError, match="node 'bad'"):
        open_session(onnx.parser.parse_model(text))


def test_a_node_that_fails_while_running_is_named():
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        toy (float[N,4] input) => (float[M,3] y) <int64[2] s = {-1, 3}> {
          [cut] y = Reshape(input, s)
        }"""
    )
    session = open_session(model)
    with pytest.raises(GraphError, match="node 'cut'"):
        session(feed(1))


def test_without_onnxruntime(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingBackendError) as err:
        open_session(model)
    assert "pip install" in err.value.hint


def resident() -> int:
    """Return the bytes of memory that this process holds."""
    return 4096 * int(Path("/proc/self/statm").read_text().split()[1])


def test_sessions_with_shared_weights_share_memory_and_give_it_back():
    give_memory_back()
    text = TOY.replace("N,4", "N,M")
    shared = Shared(onnx.parser.parse_model(text).SerializeToString(), {})
    sessions = [open_session(shared, alone=False) for _ in range(4)]
    large = {"input": np.ones((1, 4 << 20), np.float32)}
    start = resident()
    for session in sessions:
        assert session(large)["y"].max() == 0.0
    held = resident() - start
    assert 30e6 < held < 60e6  # two tensors of 17 MB at a time, whichever session runs
    give_memory_back()
    assert resident() - start < 10e6
    assert sessions[0](large)["y"].shape == (1, 4 << 20)  # they go on
