"""An engine in a comparison: its outputs, and where it shows them the tensors within it."""

import ctypes
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from comparing import compare
from gpu_stand_in import cuda_of, stand_ins
from tiny_nets import SPEC, resnet, set_weight, weight, with_qdq, write

from core.errors import BuildError, InputError
from core.metrics import sqnr_db
from deploy.cli import cli
from deploy.comparison.values.measures import Status
from deploy.engines.build import build
from deploy.engines.build_options import BuildOptions, shows_tensors
from deploy.engines.builder import parse
from deploy.engines.debug_tensors import mark_debug_tensors
from deploy.engines.flavour import load_flavour
from deploy.engines.log import TensorrtLog
from deploy.engines.manifest import manifest_path, read_manifest
from deploy.engines.target import BuildTarget, OptimizationProfile
from deploy.images import ImageRequest
from deploy.machines.host import find_gpus
from deploy.onnx_files.reader import read_graph
from deploy.runners import engine as engine_runner
from deploy.runners.engine import open_engine
from deploy.runners.engine_tensors import InnerTensors, address_of
from exporter.onnx_file import Card, save

FEW = ImageRequest(images=6, batch=4)
TARGET = BuildTarget(
    (OptimizationProfile(2, 2, 2),), size=(16, 16), options=BuildOptions(debug_tensors=True)
)
# What the nodes of the network make, but its output and what Q and DQ make.
WITHIN = [node.name for node in resnet().graph.node if node.name != "logits"]


def names_marked(model):
    data = model.SerializeToString()
    graph = read_graph(data, where="n.onnx")
    network = parse(load_flavour("rtx"), data, Path("n.onnx"), TensorrtLog())
    return list(mark_debug_tensors(network.native, graph))


def test_what_q_and_dq_make_is_not_marked():
    assert names_marked(resnet()) == WITHIN
    assert names_marked(with_qdq(resnet())) == WITHIN


@pytest.fixture
def files(tmp_path):
    """The float network, its Q/DQ form, and an engine of that with the tensors within it."""
    reference = write(resnet(), tmp_path / "a.onnx")
    source = write(with_qdq(resnet()), tmp_path / "n.onnx", stage="int8")
    made = build(source, TARGET, tmp_path / "n.engine")
    assert shows_tensors(made.manifest.options)
    assert read_manifest(made.plan).options["debug_tensors"] is True
    return reference, source, made.plan


@pytest.fixture
def gpu(files, monkeypatch, tmp_path):
    """A machine with a GPU, as far as anybody can tell."""
    flavour, library, _ = stand_ins(files[1])
    flavour.module.engine.debug = frozenset(WITHIN)
    monkeypatch.setattr(engine_runner, "load_flavour", lambda *_: flavour)
    monkeypatch.setattr(engine_runner, "load_cuda", lambda: cuda_of(library)())
    monkeypatch.setenv("STRATA_CACHE", str(tmp_path / "cache"))
    return flavour, library


def test_its_layers_are_compared_by_name(files, gpu):
    reference, source, plan = files
    ours = {row.tensor: row for row in compare(reference, plan, FEW).rows}
    theirs = {row.tensor: row for row in compare(reference, source, FEW).rows}
    assert ours.keys() == theirs.keys()
    for name, row in ours.items():
        assert row.status is Status.COMPARED, name
        assert row.inherited.sqnr_db == pytest.approx(theirs[name].inherited.sqnr_db, abs=1e-3)
        assert row.own is None  # no layer of an engine can be fed


def test_a_fault_in_the_engine_shows_where_it_begins(files, gpu, tmp_path):
    reference, _, plan = files
    wrong = with_qdq(resnet())
    name = next(i.name for i in wrong.graph.initializer if i.name.startswith("layer1.1.conv1.bias"))
    set_weight(wrong, name, weight(wrong, name) + 1)
    gpu[0].module.engine.graph = wrong.SerializeToString()
    rows = {row.tensor: row.inherited.sqnr_db for row in compare(reference, plan, FEW).rows}
    assert rows["layer1.0.relu"] > 20
    assert rows["layer1.1.conv1"] < 10


def test_without_its_onnx_file_nobody_knows_the_names(files, gpu):
    reference, source, plan = files
    source.unlink()
    with pytest.raises(InputError, match=r"that names them .* is not beside it"):
        compare(reference, plan, FEW)


def test_an_engine_as_it_is_shipped_shows_its_outputs(files, gpu):
    reference, _, plan = files
    manifest = read_manifest(plan)
    plain = replace(manifest, options={**manifest.options, "debug_tensors": False})
    manifest_path(plan).write_text(plain.to_text())
    rows = compare(reference, plan, FEW).rows
    assert [row.tensor for row in rows if row.status is Status.COMPARED] == ["logits"]


def test_the_command(files, gpu):
    reference, _, plan = files
    words = ["compare", str(reference), str(plan), "--images", "4", "--batch", "2"]
    done = CliRunner().invoke(cli, words)
    assert "layer1.1.conv2" in done.stdout, done.output
    done = CliRunner().invoke(cli, ["build", str(files[1]), "--size", "16", "--debug-tensors"])
    assert "shows the tensors within it" in done.stdout


def inner(files, gpu, names=WITHIN):
    flavour, library = gpu
    manifest = read_manifest(files[2])
    _, session = open_engine(flavour, b"plan", manifest, cuda=cuda_of(library)())
    return InnerTensors(session, names), session


def test_tensors_of_a_batch_in_parts_and_filled_up(files, gpu):
    tensors, session = inner(files, gpu, [*WITHIN, "unknown"])
    assert tensors.names == tuple(WITHIN)
    x = np.random.default_rng(0).standard_normal((5, 3, 16, 16)).astype(np.float32)  # 2, 2, 1 + 0
    found = tensors.run({"input": x}, ["relu", "flatten"])
    assert found.keys() == {"logits", "relu", "flatten"}
    assert found["relu"].shape == (5, 8, 16, 16)
    alone = tensors.run({"input": x[4:]}, ["relu"])
    np.testing.assert_allclose(alone["relu"], found["relu"][4:], rtol=1e-5)
    assert tensors.run({"input": x}, []).keys() == {"logits"}
    session.close()


def test_a_tensor_that_is_not_shown_is_an_error(files, gpu, monkeypatch):
    tensors, session = inner(files, gpu)
    x = np.zeros((2, 3, 16, 16), np.float32)
    monkeypatch.setattr(session.context, "show", lambda: None)
    with pytest.raises(BuildError, match=r"did not show 1 tensors of the engine \(relu\)"):
        tensors.run({"input": x}, ["relu"])
    monkeypatch.setattr(session.context, "set_debug_listener", lambda _: False)
    with pytest.raises(BuildError, match="takes no listener"):
        InnerTensors(session, WITHIN)
    session.close()


def test_an_error_in_the_callback_comes_out_of_the_run(files, gpu, monkeypatch):
    tensors, session = inner(files, gpu)

    def full(*_):
        raise MemoryError("no room")

    monkeypatch.setattr(type(session.cuda), "read", full)
    with pytest.raises(MemoryError, match="no room"):
        tensors.run({"input": np.zeros((2, 3, 16, 16), np.float32)}, ["relu"])
    session.close()


def test_an_address_is_a_number_or_in_a_capsule():
    assert address_of(4096) == 4096
    new = ctypes.pythonapi.PyCapsule_New
    new.restype = ctypes.py_object
    new.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    assert address_of(new(4096, b"tensor", None)) == 4096


@pytest.mark.gpu
def test_a_real_engine_is_compared_layer_by_layer(tmp_path):
    capability = find_gpus().devices[0].capability
    save(resnet(), tmp_path / "n.onnx", Card(SPEC, stage="optimized"))
    targets = (capability,) if load_flavour().capabilities else ()
    build(tmp_path / "n.onnx", replace(TARGET, capabilities=targets), tmp_path / "n.engine")
    rows = compare(tmp_path / "n.onnx", tmp_path / "n.engine", FEW).rows
    shown = [row for row in rows if row.status is Status.COMPARED]
    assert len(shown) > 5
    assert min(row.inherited.sqnr_db for row in shown) > 60


@pytest.mark.gpu
@pytest.mark.parametrize("quantized", [False, True])
def test_a_real_engine_answers_as_its_network(tmp_path, quantized):
    capability = find_gpus().devices[0].capability
    model = with_qdq(resnet()) if quantized else resnet()
    save(model, tmp_path / "n.onnx", Card(SPEC, stage="int8" if quantized else "optimized"))
    targets = (capability,) if load_flavour().capabilities else ()
    target = replace(TARGET, capabilities=targets, options=BuildOptions())
    build(tmp_path / "n.onnx", target, tmp_path / "n.engine")
    words = ["compare", f"trt-network:{tmp_path / 'n.onnx'}", str(tmp_path / "n.engine")]
    done = CliRunner().invoke(cli, [*words, "--images", "16", "--json", str(tmp_path / "l.json")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "l.json").read_text())["models"]
    x = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    from deploy.runners import open_model

    one, other = (open_model(text).logits(x) for text in words[1:])
    assert sqnr_db(one, other) > (20 if quantized else 60)
    assert onnx.load(tmp_path / "n.onnx").graph.node
