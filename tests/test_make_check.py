"""``make check``: the committed network, its baseline, and that a worse one fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from core.artifacts import sha256_file
from deploy.cli import cli
from deploy.gate.baseline_file import answers_path, read_baseline

ROOT = Path(__file__).parents[1]
HELD = ROOT / "tests" / "accuracy" / "baseline.json"
WEIGHTS = HELD.with_name("resnet18-width16.safetensors")
IMAGES = "2000"


def test_what_is_committed_belongs_together_and_is_small():
    baseline, answers = read_baseline(HELD)
    assert [held.model for held in baseline.models] == ["optimized.onnx", "int8.onnx"]
    assert {held.weights for held in baseline.models} == {sha256_file(WEIGHTS)}
    assert len(answers.images) == baseline.data.images == 10_000
    assert baseline.models[1].metrics["top1"].value > 0.89
    assert len(baseline.models[1].layers.own_db) > 40
    assert WEIGHTS.stat().st_size <= 3_000_000
    assert HELD.stat().st_size <= 10_000
    assert answers_path(HELD).stat().st_size <= 1_500_000


def degrade(path):
    """Write the committed weights with noise on one layer."""
    weights = load_file(WEIGHTS)
    with safe_open(WEIGHTS, "np") as file:
        metadata = file.metadata()
    name = "layer2.0.conv2.weight"
    noise = np.random.default_rng(0).standard_normal(weights[name].shape).astype(np.float32)
    weights[name] += 4 * weights[name].std() * noise
    save_file(weights, path, metadata)


def run(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.mark.parametrize("degraded", [False, True])
def test_the_float_network_fails_when_its_weights_are_degraded(tmp_path, degraded):
    weights = tmp_path / "w.safetensors" if degraded else WEIGHTS
    if degraded:
        degrade(weights)
    model, optimized = tmp_path / "model.onnx", tmp_path / "optimized.onnx"
    options = ("--depth", "18", "--width", "16", "--weights", weights)
    for words in (("export", *options, "-o", model), ("optimize", model, "-o", optimized)):
        done = run(*words)
        assert done.exit_code == 0, done.output
    words = ("check", optimized, "--baseline", HELD, "--images", IMAGES, "--allow", "not-run")
    done = run(*words, "--other-weights")
    assert done.exit_code == (7 if degraded else 0), done.output
    if degraded:  # unless said, other weights are another model
        assert run(*words).exit_code == 14


@pytest.mark.slow
@pytest.mark.parametrize("degraded", [False, True])
def test_make_check_holds_and_fails_when_the_committed_model_is_degraded(tmp_path, degraded):
    weights = tmp_path / "w.safetensors" if degraded else WEIGHTS
    if degraded:
        degrade(weights)
    given = {
        "STRATA": str(Path(sys.executable).with_name("strata")),
        "CHECK": str(tmp_path / "check"),
        "CHECK_WEIGHTS": str(weights),
    }
    words = ["make", "-o", ".venv/.ready", "check", *(f"{k}={v}" for k, v in given.items())]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MAKE")}
    done = subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode != 0) == degraded, done.stdout + done.stderr
    found = json.loads((tmp_path / "check" / "check.json").read_text())
    assert found["outcome"] == ("regressed" if degraded else "held")
    assert (tmp_path / "check" / "junit.xml").is_file()
    assert (tmp_path / "check" / "check.md").is_file()
