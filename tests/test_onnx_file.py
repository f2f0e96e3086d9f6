"""ONNX files: read with distrust, written whole, checked, deterministic."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_data.preprocess import PRESETS
from core.errors import GraphError, InputError, OutputError
from exporter.onnx_file import Card, card_of, load, save, set_card

TEXT = """<ir_version: 9, opset_import: ["": 19]>
g (float[N, 3] input) => (float[N, 2] logits)
   <float[3, 2] weight = {1, 2, 3, 4, 5, 6}>
{ [fc] logits = MatMul(input, weight) }"""


@pytest.fixture
def model():
    return onnx.parser.parse_model(TEXT)


def with_external_data(model, folder, location="weights.bin", **facts):
    """Move the weight into a file, and claim it lies at ``location``."""
    weight = model.graph.initializer[0]
    data = onnx.numpy_helper.to_array(weight).tobytes()
    (folder / "weights.bin").write_bytes(data)
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 0, "length": len(data), **facts}.items():
        if value is not None:
            weight.external_data.add(key=key, value=str(value))
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_saved_model_is_the_model(model, tmp_path):
    save(model, tmp_path / "model.onnx")
    assert load(tmp_path / "model.onnx") == model


def test_the_same_model_gives_the_same_bytes(model, tmp_path):
    card = Card(labels=("a", "b"), weights={"z": "1", "a": "2"}, parents={"model": "0" * 64})
    save(model, tmp_path / "one.onnx", card)
    other = replace(card, weights={"a": "2", "z": "1"})
    save(onnx.parser.parse_model(TEXT), tmp_path / "two.onnx", other)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "not an ONNX model"),
        (b"PK\x03\x04 this is a zip", "not an ONNX"),
        (b"\x08\x09", "not an ONNX model"),
        (b"{}", "not an ONNX"),
    ],
)
def test_what_is_no_onnx_is_refused(data, what, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError, match=what):
        load(path)


def test_every_truncation_is_refused(model, tmp_path):
    path = tmp_path / "model.onnx"
    data = model.SerializeToString()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InputError):
            load(path)


@given(st.binary(max_size=200))
def test_no_bytes_lead_to_a_traceback(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InputError):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path / "nothing.onnx")
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


def test_an_empty_graph_is_refused(model, tmp_path):
    del model.graph.node[:]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(InputError, match="no nodes"):
        load(tmp_path / "model.onnx")


def test_a_file_over_2_gib_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "model.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: takes no space
    with pytest.raises(InputError, match="2 GiB") as caught:
        load(path)
    assert "external" in caught.value.hint


def test_external_data_beside_the_model_is_read(model, tmp_path):
    expected = onnx.numpy_helper.to_array(model.graph.initializer[0])
    loaded = load(with_external_data(model, tmp_path))
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(loaded.graph.initializer[0]), expected)
    save(loaded, tmp_path / "whole.onnx")
    (tmp_path / "weights.bin").unlink()
    load(tmp_path / "whole.onnx")


def test_external_data_of_an_attribute_is_read(tmp_path):
    value = onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "value")
    node = onnx.helper.make_node("Constant", [], ["weight"], value=value)
    model = onnx.parser.parse_model(TEXT)
    del model.graph.initializer[:]
    model.graph.node.insert(0, node)
    tensor = model.graph.node[0].attribute[0].t
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "model.onnx")
    assert onnx.numpy_helper.to_array(loaded.graph.node[0].attribute[0].t).sum() == 6


@pytest.mark.parametrize(
    "location",
    [
        "../weights.bin",
        "/etc/passwd",
        "a/../../weights.bin",
        "C:\\weights.bin",
        "..\\w",
        "",
        "a\0b",
    ],
)
def test_external_data_outside_the_folder_is_refused(location, model, tmp_path):
    folder = tmp_path / "inside"
    folder.mkdir()
    path = with_external_data(model, folder, location)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    with pytest.raises(InputError, match="not inside the model's folder") as caught:
        load(path)
    assert "'weight'" in caught.value.problem


@pytest.mark.parametrize("link", ["file", "folder"])
def test_external_data_behind_a_symbolic_link_is_refused(link, model, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    folder.mkdir()
    location = "data/weights.bin" if link == "folder" else "link.bin"
    path = with_external_data(model, folder, location)
    (folder / "weights.bin").rename(outside / "weights.bin")
    if link == "folder":
        (folder / "data").symlink_to(outside)
    else:
        (folder / "link.bin").symlink_to(outside / "weights.bin")
    with pytest.raises(InputError, match="symbolic link"):
        load(path)


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"location": "missing.bin"}, "missing"),
        ({"offset": 8}, "asked of weights.bin"),
        ({"offset": -4}, "asked of weights.bin"),
        ({"length": 20}, "20 bytes for float32"),
        ({"length": "many"}, "no number"),
        ({"offset": 4, "length": None}, "20 bytes for float32"),
    ],
)
def test_external_data_that_does_not_fit_is_refused(facts, what, model, tmp_path):
    with pytest.raises(InputError, match=what):
        load(with_external_data(model, tmp_path, **facts))


def break_operator(model):
    model.graph.node[0].op_type = "MatMull"


def break_shapes(model):
    model.graph.node[0].op_type = "Conv"


def break_order(model):
    model.graph.node[0].input[0] = "nobody"


@pytest.mark.parametrize("fault", [break_operator, break_shapes, break_order])
def test_an_invalid_graph_is_not_written_and_the_node_named(fault, model, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("what was there before")
    fault(model)
    with pytest.raises(GraphError, match="node 'fc'"):
        save(model, path)
    assert path.read_text() == "what was there before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_an_unwritable_place_is_an_output_error(model, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save(model, tmp_path / "file" / "model.onnx")


def test_a_card_travels_with_the_model(model, tmp_path):
    card = Card(
        preprocess=PRESETS["imagenet-v2"],
        labels=("Straßenbahn", 'a "b"'),
        synthetic="random:0",
        caveats=("few, “copies”",),
        weights={"name": "x", "top1": "0.5"},
        parents={"model": "1" * 64},
        stage="optimized",
    )
    save(model, tmp_path / "model.onnx", card)
    assert card_of(load(tmp_path / "model.onnx")) == card
    save(load(tmp_path / "model.onnx"), tmp_path / "again.onnx")
    assert card_of(load(tmp_path / "again.onnx")) == card


def test_a_foreign_model_has_an_empty_card_and_keeps_its_metadata(model):
    model.metadata_props.add(key="author", value="somebody")
    assert card_of(model) == Card()
    set_card(model, Card(stage="model"))
    set_card(model, Card(stage="int8"))
    assert [(p.key, p.value) for p in model.metadata_props] == [
        ("author", "somebody"),
        ("strata.stage", "int8"),
    ]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("labels", "{"),
        ("labels", '{"a": 1}'),
        ("labels", "[1]"),
        ("synthetic", "random:0"),
        ("synthetic", "1"),
        ("caveats", '"few"'),
        ("weights", "[]"),
        ("parents", '{"a": 1}'),
        ("preprocess", "{}"),
        ("parents", "[" * 10000),
    ],
)
def test_a_broken_card_is_an_input_error_that_says_where(key, text, model):
    model.metadata_props.add(key=f"strata.{key}", value=text)
    with pytest.raises(InputError, match=f"photo.onnx.*{key}"):
        card_of(model, where="photo.onnx")
