"""EngineInspector's JSON, written here as TensorRT's documentation shows it, 10.x and 11.x."""

import json
import sys
import types

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from tensorrt_nets import write

from deploy.cli import cli
from deploy.engines.build import build
from deploy.engines.flavour import load_flavour
from deploy.engines.target import BuildTarget
from deploy.inspect import live
from deploy.inspect.inspector import kernels_of_inspector
from deploy.inspect.live import inspector_texts, live_kernels
from deploy.inspect.weighted import weighted_layers
from deploy.machines.host import find_gpus

INT8_OLD = "Thirty-two wide channel vectorized row major Int8 format"
CONV = {
    "Name": "layer1.0.conv3 + layer1.0.add + layer1.0.relu",
    "LayerType": "CaskConvolution",
    "ParameterType": "Convolution",
    "Kernel": [1, 1],
    "Weights": {"Type": "Int8", "Count": 16384},
    "Bias": {"Type": "Float", "Count": 256},
    "HasBias": 1,
    "HasReLU": 1,
    "TacticName": "sm80_xmma_fprop_implicit_gemm_i8i8_i8i32_f32",
    "Metadata": "[ONNX Layer: layer1.0.conv3]\x1e[ONNX Layer: layer1.0.add]"
    "\x1e[ONNX Layer: layer1.0.relu]",
}


def described(name, dims, old=None, new=None):
    value = {"Name": name, "Location": "Device", "Dimensions": dims}
    if old:
        return value | {"Format/Datatype": old}
    return value | {"Format": new[0], "Datatype": new[1]}


TEN = {
    "Layers": [
        {
            "Name": "input.quantize",
            "LayerType": "Reformat",
            "Inputs": [described("input", [8, 3, 56, 56], "Row major linear FP32")],
            "Outputs": [
                described(
                    "codes", [8, 3, 56, 56], "Four wide channel vectorized row major Int8 format"
                )
            ],
            "Metadata": "[ONNX Layer: input.quantize]",
        },
        CONV
        | {
            "Inputs": [
                described("x", [8, 64, 56, 56], INT8_OLD),
                described("shortcut", [8, 256, 56, 56], INT8_OLD),
            ],
            "Outputs": [described("y", [8, 256, 56, 56], INT8_OLD)],
        },
        {"Name": "reshape", "LayerType": "NoOp", "Inputs": [], "Outputs": []},
        {
            "Name": "__myl_Cast",
            "LayerType": "kgen",
            "Inputs": [described("y", [8, 256, 56, 56], "Int8")],
            "Outputs": [described("z", [8, 256, 56, 56], "Half")],
            "Metadata": "",
        },
    ],
    "Bindings": ["input", "z"],
}
ELEVEN = {
    "Layers": [
        CONV
        | {
            "Inputs": [
                described(
                    "x",
                    [8, 64, 56, 56],
                    new=(
                        "Thirty-two wide channel vectorized row major INT8 format (kCHW32)",
                        "INT8",
                    ),
                ),
            ],
            "Outputs": [
                described(
                    "y", [8, 256, 56, 56], new=("Row major linear FP16 format (kLINEAR)", "Half")
                ),
            ],
        },
    ],
    "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Int8"}],
    "Engine Metadata": {},
}


def test_the_schema_of_10():
    graph = kernels_of_inspector(json.dumps(TEN), batch=8)
    reformat, conv, cast = graph.kernels
    assert reformat.kind == "reformat"
    assert conv.layers == ("layer1.0.conv3", "layer1.0.add", "layer1.0.relu")
    assert (conv.kind, conv.fused) == ("convolution", ("bias", "residual", "relu"))
    assert [t.dtype for t in (*conv.inputs, *conv.outputs)] == ["int8"] * 3
    assert sum(conv.constants.values()) == 16384 + 256 * 4
    assert (cast.kind, cast.layers) == ("generated", ("__myl_Cast",))
    pixels = 56 * 56
    by_hand = pixels * (3 * 5 + 64 + 256 * 2 + 256 * 3)
    assert graph.moved_bytes_per_image == by_hand
    (layer,) = weighted_layers(graph, {"Conv": {"int8": ("layer1.0.conv3",)}})
    assert layer.form == "codes"


def test_the_schema_of_11():
    (conv,) = kernels_of_inspector(json.dumps(ELEVEN), batch=8).kernels
    assert [t.dtype for t in (*conv.inputs, *conv.outputs)] == ["int8", "float16"]
    (layer,) = weighted_layers(kernels_of_inspector(json.dumps(ELEVEN)), {})
    assert layer.form == "widening"


@pytest.mark.parametrize(
    ("told", "dtype"),
    [
        ("Row major linear FP32", "float32"),
        ("Row major linear BOOL", "bool"),
        ("Channel major FP16 format where channel % 8 == 0", "float16"),
        ("Row major linear BF16 format (kLINEAR)", "bfloat16"),
        ("Int32", "int32"),
        ("FP8", "float8e4m3"),
        ("N/A due to dynamic shapes", ""),
        (None, ""),
    ],
)
def test_element_types_in_words(told, dtype):
    layer = {
        "Name": "l",
        "LayerType": "PointWiseV2",
        "Inputs": [],
        "Outputs": [{"Name": "y", "Dimensions": [1, 2], "Format/Datatype": told}],
    }
    (kernel,) = kernels_of_inspector(json.dumps({"Layers": [layer]})).kernels
    assert kernel.kind == "pointwise"
    assert kernel.outputs[0].dtype == dtype


def test_free_dimensions_leave_sizes_unknown():
    layer = CONV | {"Inputs": [described("x", [-1, 64, 56, 56], "Int8")], "Outputs": []}
    assert kernels_of_inspector(json.dumps({"Layers": [layer]})).moved_bytes is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[]", "no list of Layers"),
        ('{"Layers": 3}', "no list of Layers"),
        ('{"Layers": ["conv1 + relu"]}', "profiling verbosity"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_such_json(text, says):
    with pytest.raises(ValueError, match=says):
        kernels_of_inspector(text)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Name", "Inputs", "Dimensions", "Weights", "Count", "Type", "LayerType"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(layers=st.lists(JSON, max_size=4))
def test_no_json_breaks_it(layers):
    try:
        graph = kernels_of_inspector(json.dumps({"Layers": layers}))
    except ValueError:
        return
    assert graph.constant_bytes >= 0
    weighted_layers(graph, {})


def test_the_command_reads_what_trtexec_exports(tmp_path):
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(TEN))
    done = CliRunner().invoke(cli, ["inspect", str(path), "--batch", "8"])
    assert done.exit_code == 0
    assert "1 Conv takes and gives INT8" in done.output
    path.write_text("{}")
    assert CliRunner().invoke(cli, ["inspect", str(path)]).exit_code == 2
    assert CliRunner().invoke(cli, ["inspect", str(tmp_path / "none.json")]).exit_code == 2


class Context:
    def __init__(self):
        self.shapes, self.profile = {}, None

    def set_optimization_profile_async(self, index, stream):
        self.profile = index

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape


class Inspector:
    execution_context = None

    def get_engine_information(self, form):
        assert form == "json"
        return json.dumps(TEN | {"shapes": self.execution_context.shapes})


class Engine:
    def create_engine_inspector(self):
        return Inspector()

    def create_execution_context(self):
        return Context()


def stand_in(loaded):
    module = types.SimpleNamespace(
        Runtime=lambda *_: types.SimpleNamespace(deserialize_cuda_engine=lambda *_: loaded),
        LayerInformationFormat=types.SimpleNamespace(JSON="json"),
    )
    real = load_flavour("rtx")
    return types.SimpleNamespace(module=module, version="11.4.0", logger=None, logging=real.logging)


@pytest.fixture
def artifact(tmp_path):
    return build(write(tmp_path / "n.onnx", "int8"), BuildTarget(), tmp_path / "n.engine")


def test_the_inspector_is_asked_with_the_profiles_shapes(artifact):
    (text,) = inspector_texts(stand_in(Engine()), artifact.plan, artifact.manifest, 4)
    assert json.loads(text)["shapes"] == {"input": [4, 3, 8, 8]}


def test_a_plan_is_asked_of_tensorrt_on_a_gpu_only(artifact, monkeypatch):
    if find_gpus().devices:
        pytest.skip("this machine has a GPU")
    graphs, unknown = live_kernels(artifact.plan, artifact.manifest, None)
    assert graphs == ()
    assert "read on a GPU" in unknown
    gpu = types.SimpleNamespace(devices=(1,), problem="")
    monkeypatch.setattr(live, "find_gpus", lambda: gpu)
    monkeypatch.setattr(live, "load_flavour", lambda *_: stand_in(Engine()))
    (graph,), unknown = live_kernels(artifact.plan, artifact.manifest, 8)
    assert (len(graph.kernels), graph.batch, unknown) == (3, 8, "")
    monkeypatch.setattr(live, "load_flavour", lambda *_: stand_in(None))
    graphs, unknown = live_kernels(artifact.plan, artifact.manifest, 8)
    assert (graphs, "does not load" in unknown) == ((), True)


@pytest.mark.gpu
def test_a_real_tensorrt_plan_is_inspected(tmp_path):
    pytest.importorskip("tensorrt")
    flavour = load_flavour("tensorrt")
    source = write(tmp_path / "n.onnx", "int8fp16")
    made = build(source, BuildTarget(), tmp_path / "n.engine", flavour=flavour)
    done = CliRunner().invoke(cli, ["inspect", str(made.plan), "--json"])
    assert done.exit_code == 0
    (facts,) = json.loads(done.output)["files"]
    assert facts["unknown"] is None
    (profile,) = facts["profiles"]
    assert {layer["name"] for layer in profile["layers"] if layer["kernel"] is not None} == {
        "conv1",
        "fc",
    }
    assert profile["totals"]["moved_bytes_per_image"] > 0
    assert "tensorrt" in sys.modules
