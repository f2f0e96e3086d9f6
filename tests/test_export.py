"""PyTorch to ONNX: a tensor for every module, the same numbers, nothing else in the file."""

import json
import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from calib_data.preprocess import PRESETS
from core.artifacts import sha256_file
from core.errors import AccuracyError, GraphError, InputError
from deploy.cli import cli
from exporter.export import OPSETS, ExportOptions, check_export, export
from exporter.models.checkpoint import Checkpoint, save_checkpoint, state_digest
from exporter.models.config import ResNetConfig
from exporter.models.init import randomize
from exporter.models.resnet import build
from exporter.models.taps import watch
from exporter.onnx_file import card_of, check, load, save
from exporter.optimize import check_optimized, optimize

SMALL = ExportOptions(size=(32, 48))


def weights(**options):
    """Return a narrow network with one block a stage and random weights."""
    said = {"depth": 18, "width": 8, "classes": 10, "blocks": (1, 1, 1, 1), **options}
    config = ResNetConfig(**said)
    network = build(config)
    randomize(network, seed=0)
    state = network.state_dict()
    origin = {"name": "random:0", "sha256": state_digest(state)}
    return Checkpoint(config, state, PRESETS["imagenet-v1"], origin=origin)


def images(count=3, size=(32, 48), seed=0):
    shape = (count, 3, *size)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def shapes(model):
    infos = [*model.graph.value_info, *model.graph.output]
    dims = {info.name: info.type.tensor_type.shape.dim for info in infos}
    return {name: [dim.dim_param or dim.dim_value for dim in row] for name, row in dims.items()}


def without_weights(model):
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    del graph.graph.initializer[:]
    return graph


@pytest.fixture(scope="module")
def checkpoint():
    return weights()


@pytest.fixture(scope="module")
def model(checkpoint):
    return export(checkpoint, SMALL)


def test_every_module_is_a_node_and_a_tensor_of_its_name(model, checkpoint):
    leaves = [
        path for path, module in checkpoint.network().named_modules() if not [*module.children()]
    ]
    nodes = {node.name: node.output[0] for node in model.graph.node}
    assert set(nodes) == set(leaves)
    assert all(name == output for name, output in nodes.items() if name != "fc")
    assert nodes["fc"] == "logits"


def test_initializers_are_the_state_dict(model, checkpoint):
    held = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    for name, array in held.items():
        if name != "avgpool.axes":
            np.testing.assert_array_equal(array, checkpoint.state_dict[name].numpy())
    unused = {name for name in checkpoint.state_dict if name.endswith("num_batches_tracked")}
    assert held.keys() - {"avgpool.axes"} == checkpoint.state_dict.keys() - unused


def test_nothing_of_the_exporter_is_left(model):
    assert [(item.domain, item.version) for item in model.opset_import] == [("", 19)]
    assert model.producer_name == "strata"
    assert not model.functions
    text = str(without_weights(model))
    assert not re.search(r"torch|doc_string|pkg|/|val_\d|getitem|node_", text)
    assert {entry.key.partition(".")[0] for entry in model.metadata_props} == {"strata"}
    check(model)


def test_interface_and_shapes(model):
    assert [value.name for value in model.graph.input] == ["input"]
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 32, 48]
    found = shapes(model)
    assert found["logits"] == ["batch", 10]
    assert found["layer4.0.relu"] == ["batch", 64, 1, 2]
    assert len(found) == len(model.graph.node)


def test_the_card_says_where_it_comes_from(model, checkpoint):
    card = card_of(model)
    assert card.stage == "model"
    assert card.weights == checkpoint.origin
    assert card.parents == {"weights": checkpoint.origin["sha256"]}
    assert card.preprocess == replace(PRESETS["imagenet-v1"], resize=(32, 48), crop=None)


def test_every_tensor_agrees_with_pytorch(model, checkpoint):
    found = check_export(model, checkpoint, images())
    assert len(found.sqnr_db) == len(model.graph.node)
    assert found.worst[1] > 100


@pytest.mark.parametrize(
    ("key", "tensor"),
    [
        ("conv1.weight", "conv1"),
        ("layer1.0.bn2.running_var", "layer1.0.bn2"),
        ("layer4.0.downsample.0.weight", "layer4.0.downsample.0"),
        ("fc.bias", "logits"),
    ],
)
def test_a_wrong_weight_is_caught_at_its_own_tensor(key, tensor, model, checkpoint):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    weight = next(w for w in wrong.graph.initializer if w.name == key)
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] += 1e-2 * np.abs(array).max()
    weight.CopyFrom(onnx.numpy_helper.from_array(array, key))
    with pytest.raises(AccuracyError, match=f"tensor '{re.escape(tensor)}' has an SQNR of"):
        check_export(wrong, checkpoint, images())


def test_nan_weights_do_not_pass(model, checkpoint):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    weight = next(w for w in wrong.graph.initializer if w.name == "bn1.bias")
    array = np.full(weight.dims, np.nan, np.float32)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "bn1.bias"))
    with pytest.raises(AccuracyError, match="tensor 'bn1' has an SQNR of nan"):
        check_export(wrong, checkpoint, images())


def test_a_module_that_is_missing_is_named(model, checkpoint):
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    wrong.graph.node[3].name = "other"
    with pytest.raises(GraphError, match="module 'maxpool' has no node"):
        check_export(wrong, checkpoint, images())


def test_the_same_checkpoint_gives_the_same_file(model, tmp_path):
    # In a process of its own: another hash seed, another order of sets.
    code = (
        "import sys; from pathlib import Path; sys.path.append(sys.argv[1])\n"
        "from test_export import SMALL, export, save, weights\n"
        "save(export(weights(), SMALL), Path(sys.argv[2]))"
    )
    path = tmp_path / "again.onnx"
    command = [sys.executable, "-W", "error", "-c", code, Path(__file__).parent, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")  # nothing of PyTorch's chatter
    save(model, tmp_path / "model.onnx")
    assert path.read_bytes() == (tmp_path / "model.onnx").read_bytes()


VARIANTS = {
    "grouped": {"depth": 50, "groups": 4, "width_per_group": 8},
    "paper, option C": {"depth": 50, "version": "1", "shortcut": "projection-all"},
    "pre-activation, features": {"depth": 50, "version": "2", "features": True},
    "identity-pad": {"shortcut": "identity-pad"},
    "plain": {"shortcut": "none"},
}
ONE_FORM = {"Conv", "Relu", "MaxPool", "Add", "GlobalAveragePool", "Flatten", "Gemm"}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_exports_and_optimizes(variant):
    options = VARIANTS[variant]
    checkpoint = weights(**options)
    checkpoint = replace(checkpoint, preprocess=PRESETS["fashion-mnist"])
    model = export(checkpoint, ExportOptions())
    pixels = images(size=(32, 32))
    check_export(model, checkpoint, pixels)
    optimized, _ = optimize(model)
    check(optimized)
    check_optimized(model, optimized, [{"input": pixels}])
    extra = {"BatchNormalization"} if options.get("version") == "2" else set()
    extra |= {"Slice", "Pad"} if options.get("shortcut") == "identity-pad" else set()
    assert {node.op_type for node in optimized.graph.node} <= ONE_FORM | extra
    assert [value.name for value in model.graph.output] == list(checkpoint.config.outputs)
    if variant == "identity-pad":
        kinds = {node.name: node.op_type for node in model.graph.node}
        assert kinds["layer2.0.downsample.0"] == "Slice"
        assert kinds["layer2.0.downsample.1"] == "Pad"
        assert Counter(kinds.values())["Slice"] == 3  # one a module


@pytest.mark.parametrize("opset", [OPSETS[-1]])
def test_a_free_size_and_another_opset(opset, checkpoint):
    model = export(checkpoint, replace(SMALL, size=None, free_size=True, opset=opset))
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, "height", "width"]
    assert model.opset_import[0].version == opset
    for size in ((32, 32), (47, 65)):
        check_export(model, checkpoint, images(size=size))
    optimized, _ = optimize(model)
    check_optimized(model, optimized, [{"input": images(size=(33, 70))}])
    again, results = optimize(optimized)
    assert not any(result.changed for result in results)
    assert again == optimized


def test_cityscapes_shapes():
    model = export(weights(features=True), ExportOptions(size=(1024, 2048)))
    found = shapes(model)
    assert found["conv1"][2:] == [512, 1024]
    assert found["maxpool"][2:] == [256, 512]
    assert [found[name][2:] for name in ("c2", "c3", "c4", "c5")] == [
        [256, 512], [128, 256], [64, 128], [32, 64],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "what"),
    [({"opset": 18}, "opset 18"), ({"opset": 99}, "opset 99"), ({"size": (0, 4)}, "is empty")],
)
def test_options_that_no_graph_can_have(options, what):
    with pytest.raises(InputError, match=what):
        ExportOptions(**options)


def test_an_unknown_size_is_refused_with_the_way_out(checkpoint):
    with pytest.raises(InputError, match="not known") as caught:
        export(replace(checkpoint, preprocess=None), ExportOptions())
    assert "--size" in caught.value.hint


class Moody(torch.nn.Module):
    """Computes one thing or another, by what it sees: no graph can hold that."""

    def forward(self, x):
        return x + 1 if x.sum() > 0 else x - 1


@dataclass
class MoodyCheckpoint:
    preprocess: None = None

    def network(self):
        return Moody()


def test_a_network_pytorch_cannot_trace_is_a_graph_error():
    with pytest.raises(GraphError, match="PyTorch cannot trace"):
        export(MoodyCheckpoint(), SMALL)


def test_hooks_see_what_a_relu_in_place_overwrites():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.ReLU(inplace=True)).eval()
    found = {}
    watch(network, {"0": "bn", "1": "relu"}, images(1), found.__setitem__)
    assert found["bn"].min() < 0
    np.testing.assert_array_equal(np.maximum(found["bn"], 0), found["relu"])


# ------------------------------------------------------------------------- the command line


def strata(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_the_command_writes_a_checked_file(tmp_path):
    path = tmp_path / "model.onnx"
    weights_file = tmp_path / "weights.safetensors"
    save_checkpoint(weights(), weights_file)
    done = strata("export", "--weights", weights_file, "--size", "32x48", "-o", path, "--json")
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    assert facts["inputs"] == {"input": "batch×3×32×48"}
    assert facts["check"]["min_sqnr_db"] > 100
    assert facts["check"]["tensors"] == facts["nodes"]
    assert card_of(load(path)).parents == {"weights": sha256_file(weights_file)}


@pytest.mark.parametrize(
    ("args", "code", "what"),
    [
        (("--depth", 19), 2, "'19' is not one of"),
        (("--weights", "random:x"), 2, "no seed"),
        (("--weights", "random:0", "--opset", 11), 2, "opset 11"),
        (("--weights", "random:0", "--size", "0x4"), 2, "not a size"),
        (("--weights", "random:0", "--preprocess", "nonsense"), 2, "hint"),
        (("--weights", "random:0", "--data", "nothing"), 2, "no such data set"),
    ],
)
def test_bad_requests_have_an_exit_code_and_leave_no_file(args, code, what, tmp_path):
    path = tmp_path / "model.onnx"
    done = strata("export", "--width", 8, *args, "-o", path)
    assert done.exit_code == code
    assert what in done.output
    assert not path.exists()
