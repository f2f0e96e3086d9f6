import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from tensorrt_nets import net, node

from core.errors import InputError
from deploy.onnx_files.graph_types import tensor_types
from deploy.onnx_files.protobuf_wire import signed, varints
from deploy.onnx_files.reader import read_graph
from deploy.onnx_files.weight_files import weight_files

KINDS = ["fp32", "fp16", "int8", "int8fp16"]


def read(model):
    return read_graph(model.SerializeToString(), where="net.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_it_reads_what_onnx_reads(kind):
    model = net(kind)
    model.metadata_props.add(key="strata.stage", value="größe")
    graph = read(model)
    assert graph.opset == 20
    assert graph.metadata == {"strata.stage": "größe"}
    assert [t.name for t in graph.inputs] == ["input"]
    assert graph.inputs[0].shape == ("N", 3, 8, 8)
    assert graph.inputs[0].dtype == "float32"
    assert graph.outputs[0].shape == ("N", 5)
    for ours, theirs in zip(graph.nodes, model.graph.node, strict=True):
        assert (ours.name, ours.op, ours.domain) == (theirs.name, theirs.op_type, theirs.domain)
        assert (ours.inputs, ours.outputs) == (tuple(theirs.input), tuple(theirs.output))
    for theirs in model.graph.initializer:
        array = numpy_helper.to_array(theirs)
        ours = graph.constants[theirs.name]
        assert (ours.dtype, ours.shape) == (array.dtype.name, array.shape)
        np.testing.assert_array_equal(np.array(ours.values, array.dtype), array.ravel())


@pytest.mark.parametrize("kind", KINDS)
def test_types_are_those_that_onnx_infers(kind):
    model = net(kind)
    types = tensor_types(read(model))
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    for info in inferred.graph.value_info:
        expected = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type).name
        assert types[info.name] == expected, info.name


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (TensorProto.FLOAT, [0.5, -2.0]),
        (TensorProto.INT8, [-128, 127]),
        (TensorProto.UINT8, [0, 255]),
        (TensorProto.INT32, [-(2**31), 5]),
        (TensorProto.FLOAT16, [0.5, -2.0]),
        (TensorProto.BOOL, [0, 1]),
    ],
)
@pytest.mark.parametrize("raw", [False, True])
def test_constants_are_read_from_either_field(kind, values, raw):
    model = net()
    if raw:
        array = np.array(values, helper.tensor_dtype_to_np_dtype(kind))
        model.graph.initializer.append(numpy_helper.from_array(array, "c"))
    else:
        model.graph.initializer.append(helper.make_tensor("c", kind, [2], values))
    assert read(model).constants["c"].values == tuple(values)


def test_constant_nodes_and_large_weights():
    value = helper.make_tensor("v", TensorProto.FLOAT, [1], [3.0])
    body = [node("Constant", "", "c", value=value), node("Relu", "input", "logits")]
    graph = read(net(body=body, changes={"big": np.zeros(100_000, np.float32)}))
    assert graph.constants["c"].values == (3.0,)
    assert graph.constants["big"].values is None
    assert graph.constants["big"].shape == (100_000,)


def test_functions_of_the_file_are_known():
    model = net()
    function = helper.make_function(
        "com.acme", "Twice", ["x"], ["y"], [node("Add", "x x", "y")], [helper.make_opsetid("", 20)]
    )
    model.functions.append(function)
    assert read(model).functions == {("com.acme", "Twice")}


def test_every_truncation_is_an_input_error_or_a_smaller_graph():
    data = net("int8").SerializeToString()
    whole = read_graph(data, where="x")
    for size in range(0, len(data), 3):
        with pytest.raises(InputError, match="not an ONNX model"):
            read_graph(data[:size], where="x")
    assert len(whole.nodes) == len(net("int8").graph.node)


@given(st.data())
def test_no_flipped_byte_breaks_it(data):
    raw = bytearray(net("int8").SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = read_graph(bytes(raw), where="x")
        for constant in graph.constants.values():
            _ = constant.values
        tensor_types(graph)
    except InputError:
        pass


@given(st.binary(max_size=200))
def test_no_bytes_break_it(data):
    with pytest.raises(InputError):
        read_graph(data, where="x")


@given(st.integers(-(2**63), 2**63 - 1))
def test_numbers_read_back(number):
    value = number % (1 << 64)
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    assert signed(varints(memoryview(bytes(encoded)))[0]) == number


def test_external_weights_are_found_anywhere(tmp_path):
    """In a subgraph, in an attribute, in a function: TensorRT would read them all."""

    def outside(name):
        tensor = helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0])
        tensor.ClearField("float_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=f"{name}.bin")
        (tmp_path / f"{name}.bin").write_bytes(bytes(4))
        return tensor

    branch = helper.make_graph([node("Relu", "a", "b")], "g", [], [], [outside("branch")])
    model = net(
        body=[
            node("If", "input", "c", then_branch=branch, else_branch=branch),
            node("Constant", "", "d", value=outside("attribute")),
            node("Relu", "input", "logits"),
        ]
    )
    model.graph.initializer.append(outside("initializer"))
    inner = [node("Constant", "", "y", value=outside("function"))]
    model.functions.append(
        helper.make_function("f", "F", [], ["y"], inner, [helper.make_opsetid("", 20)])
    )
    found = weight_files(model.SerializeToString(), tmp_path / "net.onnx")
    assert [p.stem for p in found] == ["attribute", "branch", "function", "initializer"]
