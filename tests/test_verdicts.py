"""Faults planted in one layer are named, first and worst; a sound network is not blamed."""

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from resnet_graph import resnet

import deploy
from calib_data.preprocess import PRESETS
from deploy.cli import cli
from deploy.comparison.values.measures import Status
from deploy.comparison.values.verdict import Reason
from deploy.images import ImageRequest
from exporter.models.config import ModelOptions
from exporter.onnx_file import Card, save
from exporter.weights import load_weights, save_checkpoint

sys.path.insert(0, str(Path(__file__).parents[1]))  # bench/ is run from here, never installed

from bench.faults import FAULTS, plant

REQUEST = ImageRequest(images=32)
REASONS = {
    "weight scale ×2": {Reason.WEIGHT, Reason.CHANNEL},
    "activation scale ×2": {Reason.TOO_WIDE, Reason.SCALES},
    "channel zeroed": {Reason.CHANNEL},
    "channels swapped": {Reason.CHANNEL},
    "bias dropped": {Reason.BIAS},
    "missing shortcut Q": {Reason.MISSING_Q},
    "uint8 zero point": {Reason.ZERO_POINT},
    "classifier transposed": {Reason.WEIGHT, Reason.CHANNEL},
    "wrong padding": {Reason.ERROR, Reason.SHAPE},
}


def strata(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A folder with a network in float and, made by the commands, in INT8."""
    folder = tmp_path_factory.mktemp("sound")
    card = Card(preprocess=PRESETS["fashion-mnist"])
    save(resnet((2, 1, 1, 1)), folder / "optimized.onnx", card)
    strata("calibrate", folder / "optimized.onnx", "--data", "fashion-mnist", "--images", 64)
    strata("quantize", folder / "optimized.onnx")  # full range where it costs nothing
    return folder


def test_a_sound_network_is_not_blamed(sound):
    report = deploy.compare(sound / "optimized.onnx", sound / "int8.onnx", REQUEST)
    (verdict,) = report.verdicts
    assert report.holds
    assert verdict.first is None
    assert verdict.blame == ()


def test_corrected_biases_are_not_blamed(sound, tmp_path):
    """Own errors have less mean for them; a bias that was moved elsewhere would show."""
    model = sound / "optimized.onnx"
    strata("quantize", model, "--correct-biases", "-o", tmp_path / "int8.onnx")
    (verdict,) = deploy.compare(model, tmp_path / "int8.onnx", REQUEST).verdicts
    assert verdict.blame == ()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", [*FAULTS, "FP16 overflow"])
def test_a_fault_is_named_first_and_worst(sound, tmp_path, kind, seed):
    pair = (onnx.load(sound / name) for name in ("optimized.onnx", "int8.onnx"))
    planted = plant(kind, *pair, np.random.default_rng(seed))
    onnx.save(planted.reference, tmp_path / "reference.onnx")
    onnx.save(planted.candidate, tmp_path / "candidate.onnx")
    report = deploy.compare(tmp_path / "reference.onnx", tmp_path / "candidate.onnx", REQUEST)
    (verdict,) = report.verdicts
    assert verdict.first == planted.tensor
    assert verdict.blame[0].tensor == planted.tensor
    assert verdict.blame[0].reason in REASONS.get(kind, {Reason.OVERFLOW, Reason.NOT_FINITE})
    assert verdict.blame[0].next_step
    assert not report.holds


def test_two_right_evaluators_of_one_graph_agree(sound):
    """What TensorRT's parser made of the graph, and ONNX Runtime: equal codes, nobody blamed."""
    both = sound / "int8.onnx", f"trt-network:{sound / 'int8.onnx'}"
    report = deploy.compare(*both, REQUEST)
    codes = [row.cells[0].codes for row in report.rows if row.cells[0].codes]
    assert len(codes) > 10
    equal = [code.own_equal for code in codes if code.own_equal is not None]
    assert np.mean(equal) >= 0.9999
    assert min(equal) >= 1 - 1 / 8192  # one value of the smallest tensor may lie on an edge
    assert max(code.own_largest or 0 for code in codes) <= 1
    assert report.holds


def test_a_chain_from_pytorch_to_tensorrt_is_one_table(tmp_path):
    weights, made = tmp_path / "w.safetensors", tmp_path / "model.onnx"
    options = ModelOptions(depth=18, width=8, classes=10)
    spec = PRESETS["fashion-mnist"]
    save_checkpoint(load_weights("random:0", options, preprocess=spec), weights)
    strata("export", "--depth", 18, "--width", 8, "--weights", weights, "-o", made)
    strata("optimize", made, "-o", tmp_path / "optimized.onnx")
    strata("calibrate", tmp_path / "optimized.onnx", "--data", "fashion-mnist", "--images", 32)
    strata("quantize", tmp_path / "optimized.onnx", "--method", "mse")
    names = ("optimized.onnx", "int8.onnx")
    chain = [made, *(tmp_path / name for name in names), f"trt-network:{tmp_path / 'int8.onnx'}"]
    report = deploy.compare(f"torch:{weights}", chain, ImageRequest(images=8))
    assert report.steps == 4
    assert report.holds
    rows = {row.tensor: row for row in report.rows}
    assert rows["layer1.0.conv1"].cells[0].own.sqnr_db > 100  # PyTorch's and the exported one
    assert rows["layer1.0.conv1"].cells[1].status is Status.ONLY_IN_REFERENCE
    assert rows["layer1.0.conv1"].cells[1].into == "layer1.0.bn1"
    logits = rows["logits"].cells
    assert min(logits[0].inherited.sqnr_db, logits[1].inherited.sqnr_db) > 100
    assert 10 < logits[2].inherited.sqnr_db < 60
    assert logits[3].own.sqnr_db > logits[2].own.sqnr_db
