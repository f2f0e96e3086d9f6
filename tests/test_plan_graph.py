"""The text of compiled graphs: found in a plan, parsed, its free dimensions solved."""

import struct

import numpy as np
import onnx.parser
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from tensorrt_nets import write

from core.errors import InputError
from deploy.engines.build import build
from deploy.engines.plan_header import PlanHeader, read_header
from deploy.engines.target import BuildTarget, parse_batch
from deploy.inspect.plan_graph import parse_graph
from deploy.inspect.plan_kernels import kernels_of_plan
from deploy.inspect.plan_text import compiled_text
from deploy.inspect.shape_program import input_name, solve

TEXT = """header {
  version = 5
  region = { name=devmem_0 size=4096 alignment=128 place=accelerator unified=false }
  region = { name=__mye9-consts size=999 place=accelerator constant=true }
  region = { name=shapes size=77 place=host }
  inputs={ "input.1" "{ForeignNode[a...b]}_shapeInput.1" }
  outputs={ "logits.1" }
}
descriptors {

  tensor={ const_payload_size=36 dims={ 4 3 3 } name="w_const" stride_order={ 0 } type=int8 }
  tensor={ dims={ "n.1" 3 8 8 } mem_prop=0 name="input.1" strides={ "n.1" 64 8 1 } type=float }
  tensor={ dims={ "n.1" 4 "h.1" 8 } name="conv {x.1_7" type=half }
  sub_tensor={ base="conv {x.1_7" dims={ "m.1" 8 } name="view^deref" type=half }
  tensor={ dims={ 1 } name="n.1" type=int64 }
  tensor={ dims={ "n.1" 5 } name="logits.1" type=float }
}
main {
 label bb1:
  shape_call={ name="call" stream=0  layers="" subg_id=0 }
  corrltn={ name="conv_U1" output={"conv {x.1_7" } input={"input.1" "w_const" } relu=true \
bias=true layers="[ONNX Layer: we \\"quote\\" }]\x1f[ONNX Layer: relu]" }
  runtime_fusion={ name=__myl_Fc input_args={ "w_const" "view^deref" "n.1" } \
output_args={ "logits.1" } backbone=gemm layers="[ONNX Layer: fc]__gemm_from_conv1x1" }
}
shape_main {
 label bb2:
  copy={ name="a" output={"n" } input={"root" } speculate={ }}
  memset={ name="b" output={"two" }  src="2i64" stream=0 }
  mul={ name="c" output={"m" } input={"n" "two" } }
  assert={ name=d input={"n" } msg="
Error: in op 'x', got [n=%d, { unbalanced" }
  copy={ name="e" output={"n.1" } input={"n" } }
  copy={ name="f" output={"m.1" } input={"m" } }
  add={ name="g" output={"h.1" } input={"m" "two" } }
}
"""


def plan(*texts, version=(1, 7, 1, 116), myelin=2022049):
    body = b"".join(
        b"NLYM" + struct.pack("<IQ", myelin, len(text.encode())) + text.encode() + b"binary"
        for text in texts
    )
    head = struct.pack("<4s4xI4xQ4s4sI", b"vtrt", 2, 64 + len(body), bytes(version), b"vtrt", 4)
    return head.ljust(64, b"\0") + body


def put(folder, data):
    path = folder / "n.engine"
    path.write_bytes(data)
    return path


def texts_in(folder, data):
    path = put(folder, data)
    return compiled_text(path, read_header(path))


def test_the_parts_of_a_graph():
    graph = parse_graph(TEXT)
    assert graph.inputs == ("input.1", "{ForeignNode[a...b]}_shapeInput.1")
    assert graph.outputs == ("logits.1",)
    assert graph.scratch_bytes == 4096
    assert graph.tensors["w_const"].constant_bytes == 36
    assert graph.tensors["input.1"].dims == ("n.1", 3, 8, 8)
    assert graph.tensors["view^deref"].base == "conv {x.1_7"
    assert [step.op for step in graph.main] == ["shape_call", "corrltn", "runtime_fusion"]
    assert graph.main[1].fields["layers"].startswith('[ONNX Layer: we "quote" }]')
    assert graph.main[1].names("input") == ("input.1", "w_const")
    assert [step.op for step in graph.shape_program][-1] == "add"


def test_free_dimensions_follow_from_the_inputs():
    values = solve(parse_graph(TEXT), {"input": (3, 3, 8, 8)})
    assert values["n.1"] == values["n"] == values["root"] == 3
    assert values["m.1"] == 6
    assert values["h.1"] == 8
    assert solve(parse_graph(TEXT), {}) == {"two": 2}
    assert solve(parse_graph(TEXT), {"input": (3, 8, 8)}) == {"two": 2}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("input.1", "input"), ("input [profile 1].1", "input"), ("a.1.1", "a.1"), ("x", "x")],
)
def test_the_name_of_an_input(name, expected):
    assert input_name(name) == expected


def test_kernels_of_a_graph():
    graph = kernels_of_plan(parse_graph(TEXT), {"input": (2, 3, 8, 8)})
    conv, fc = graph.kernels
    assert (conv.kind, conv.layers, conv.fused) == (
        "convolution",
        ('we "quote" }', "relu"),
        ("bias", "relu"),
    )
    assert [(t.name, t.dtype, t.shape) for t in conv.inputs] == [("input", "float32", (2, 3, 8, 8))]
    assert conv.outputs[0].shape == (2, 4, 6, 8)
    assert conv.constants == {"w_const": 36}
    assert conv.moved_bytes == 2 * 3 * 64 * 4 + 2 * 4 * 48 * 2
    assert (fc.kind, fc.layers, fc.inputs[0].buffer) == ("gemm", ("fc",), "conv {x.1_7")
    assert fc.moved_bytes == 4 * 8 * 2 + 2 * 5 * 4
    assert graph.batch == 2
    assert graph.constant_bytes == 36
    assert graph.count() == {"convolution": 1, "gemm": 1}


def test_what_is_free_and_not_given_has_no_size():
    graph = kernels_of_plan(parse_graph(TEXT), {})
    assert graph.kernels[0].inputs[0].shape == (None, 3, 8, 8)
    assert graph.moved_bytes is graph.moved_bytes_per_image is None
    assert graph.constant_bytes == 36


@pytest.mark.parametrize(
    "text",
    [
        "",
        "header { version = 5 }",
        TEXT[:-3],
        TEXT.replace('name="input.1"', 'name="input.1', 1),
        TEXT.replace("main {", "mains {", 1),
        TEXT + "more",
        TEXT.replace("relu=true", "relu= {", 1),
        TEXT.replace("dims={ 4 3 3 }", "dims=", 1),
    ],
)
def test_another_text_is_refused(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_graph(text)


@given(st.data())
def test_no_text_breaks_the_parser(data):
    start = data.draw(st.integers(0, len(TEXT)))
    end = data.draw(st.integers(start, min(len(TEXT), start + 30)))
    noise = data.draw(st.text(alphabet='{}"\\= \nab1.\x1f', max_size=12))
    try:
        graph = parse_graph(TEXT[:start] + noise + TEXT[end:])
    except ValueError:
        return
    kernels_of_plan(graph, {"input": (2, 3, 8, 8)})


def test_a_long_hostile_text_ends_soon():
    for text in ('header { version = 5 a="' + '\\"' * 200_000, "header {" + "{" * 400_000):
        with pytest.raises(ValueError, match="does not end"):
            parse_graph(text)


def test_texts_are_found_by_profile(tmp_path):
    inner = TEXT.replace("version = 5", "version = 4")  # of a fusion: not a graph of the plan
    found = texts_in(tmp_path, plan(TEXT, inner, TEXT + " "))
    assert found.graphs == (TEXT, TEXT + " ")
    assert found.unknown == ""


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (plan(TEXT, version=(1, 8, 0, 3)), "1.8.0.3 were not studied"),
        (plan(TEXT, version=(2, 0, 0, 1)), "2.0.0.1 were not studied"),
        (plan(TEXT, myelin=3000000), "no compiled graph was found"),
        (plan(TEXT)[:-20], "truncated"),
        (plan(TEXT)[:68], "no compiled graph was found"),
        (plan(), "no compiled graph was found"),
        (plan("header { version = 6 }"), "no compiled graph was found"),
        (b"vtrt" + bytes(80), "a layout that was not seen"),
        (b"ftrt" + bytes(80), "of the flavour tensorrt"),
        (b"\x7fELF" + bytes(80), "not a TensorRT plan"),
        (b"", "not a TensorRT plan"),
    ],
)
def test_what_was_not_studied_is_unknown(tmp_path, data, says):
    found = texts_in(tmp_path, data)
    assert found.graphs == ()
    assert says in found.unknown


def test_a_plan_full_of_false_beginnings_ends_soon(tmp_path):
    lie = b"NLYM" + struct.pack("<IQ", 2022049, 1 << 40) + b"header { version = 5 "
    assert texts_in(tmp_path, plan() + lie * 100_000).graphs == ()


def test_a_file_that_vanished_is_an_input_error(tmp_path):
    header = PlanHeader(flavour="rtx", version="1.7.1.116")
    with pytest.raises(InputError, match="cannot be read"):
        compiled_text(tmp_path / "none.engine", header)
    with pytest.raises(InputError, match="cannot be read"):
        compiled_text(put(tmp_path, b""), header)


def graphs_of(path, shapes):
    text = compiled_text(path, read_header(path))
    return [kernels_of_plan(parse_graph(graph), shapes) for graph in text.graphs]


def test_a_real_plan_of_two_profiles(tmp_path):
    source = write(tmp_path / "n.onnx", "int8")
    target = BuildTarget(profiles=(parse_batch("1,2,4"), parse_batch("1,16,32")))
    artifact = build(source, target, tmp_path / "n.engine")
    for graph in graphs_of(artifact.plan, {"input": (16, 3, 8, 8)}):
        assert graph.batch == 16
        # image 3×8×8 → codes 4×8×8 → floats 4×8×8 → codes 4 → 6 floats → 5 floats
        by_hand = (192 * 4 + 256) + (256 + 256 * 4) + (256 * 4 + 4) + (4 + 6 * 4) + (6 * 4 + 5 * 4)
        assert graph.moved_bytes_per_image == by_hand
        assert [k.kind for k in graph.kernels].count("gemm") == 1


def test_a_fixed_batch_needs_no_shapes(tmp_path):
    source = write(tmp_path / "n.onnx", "fp32", shape=(4, 3, 8, 8))
    artifact = build(source, BuildTarget(), tmp_path / "n.engine")
    (graph,) = graphs_of(artifact.plan, {})
    assert graph.batch == 4
    assert graph.moved_bytes is not None


def test_names_that_mean_something_to_the_text(tmp_path):
    body = "[c1] a = Conv<kernel_shape=[1,1]>(input,w) [c2] logits = Conv<kernel_shape=[1,1]>(a,w)"
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 20]>'
        f"net (float[N,16,8,8] input) => (float[N,16,8,8] logits) {{ {body} }}"
    )
    model.graph.initializer.append(
        numpy_helper.from_array(np.ones((16, 16, 1, 1), np.float32), "w")
    )
    names = ['a "quoted" {brace} ]x = y\n', "/layer.0/Conv[3] }"]
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = 't "q" } {'
    (tmp_path / "n.onnx").write_bytes(model.SerializeToString())
    artifact = build(tmp_path / "n.onnx", BuildTarget(), tmp_path / "n.engine")
    (graph,) = graphs_of(artifact.plan, {"input": (1, 16, 8, 8)})
    layers = [kernel.layers[0] for kernel in graph.kernels if kernel.kind == "convolution"]
    assert layers == names
    assert graph.moved_bytes is not None
