"""``strata evaluate`` as a user runs it: shards, saved predictions, classes, what cannot run."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_nets import resnet, with_qdq, write

from core.errors import MissingBackendError
from deploy.cli import cli
from deploy.runners import open_model

IMAGES = 40


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluate")
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    np.savez(root / "d.npz", images=images, labels=np.arange(IMAGES) % 10)
    write(resnet(), root / "float.onnx")
    write(with_qdq(resnet()), root / "int8.onnx")
    return root


def run(*words, code=0):
    done = CliRunner().invoke(cli, ["evaluate", *(str(word) for word in words)])
    assert done.exit_code == code, done.output
    return done


def both(place):
    return place / "float.onnx", place / "int8.onnx", "--data", place / "d.npz", "--batch", "1"


def test_shards_put_together_are_the_run_of_all(place, tmp_path):
    whole = run(*both(place), "--predictions", tmp_path / "whole.npz", "--json", "-").stdout
    for at in (1, 2, 3):
        run(*both(place), "--shard", f"{at}/3", "--predictions", tmp_path / f"{at}.npz")
    parts = [tmp_path / f"{at}.npz" for at in (2, 3, 1)]
    merged = run(*parts, "--predictions", tmp_path / "merged.npz", "--json", "-").stdout
    assert merged == whole
    assert (tmp_path / "merged.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert "in two of them" in run(parts[0], parts[0], code=2).stderr
    assert "beside models" in run(parts[0], place / "int8.onnx", code=2).stderr
    assert "i/n" in run(*both(place), "--shard", "3/2", code=2).stderr
    assert "is empty" in run(*both(place), "--images", "2", "--shard", "3/3", code=2).stderr


def test_classes_are_told_one_by_one(place):
    done = run(*both(place), "--per-class")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert sum(line.startswith("class") for line in lines) == 2
    value = json.loads(run(*both(place), "--json", "-").stdout)
    rows = value["models"][0]["classes"]
    assert sum(row["images"] for row in rows) == IMAGES
    assert sum(row["answered"] for row in rows) == IMAGES
    wrong = sum(sum(row["taken_for"].values()) for row in rows)
    assert wrong == IMAGES - value["models"][0]["top1"]
    assert 0 <= value["models"][0]["ece"] <= 1


def test_what_cannot_run_is_told_and_is_no_success(place, monkeypatch):
    def refuse(text, **options):
        if text.endswith(".engine"):
            raise MissingBackendError(f"{text}: no GPU", hint="use one")
        return open_model(text, **options)

    monkeypatch.setattr("deploy.evaluation.opening.open_model", refuse)
    (place / "int8.engine").write_bytes(b"plan")
    done = run(place / "int8.engine", *both(place), code=3)
    assert "int8.engine: not run" in done.stdout
    assert "float.onnx" in done.stdout
    assert "no GPU" in done.stderr
    value = json.loads(run(place / "int8.engine", *both(place), "--json", "-", code=3).stdout)
    assert value["not_run"][0]["model"] == "int8.engine"
    run(place / "int8.engine", *both(place), "--allow-not-run")
    run(place / "int8.engine", "--data", place / "d.npz", code=3)
    # An engine that is not there at all is a mistake, not a missing GPU.
    assert "no.engine" in run(place / "no.engine", *both(place), code=3).stderr


def test_saved_predictions_are_checked_without_running(place, tmp_path):
    path, saved = tmp_path / "baseline.json", tmp_path / "p.npz"
    models = [str(word) for word in both(place)]
    assert CliRunner().invoke(cli, ["baseline", *models, "-o", str(path)]).exit_code == 0
    run(*both(place), "--predictions", saved)
    words = ["check", "--baseline", str(path), "--predictions", str(saved)]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 3
    assert "1 not run, 4 held" in done.stdout
    assert "hold no layers" in done.stdout.replace("\n", " ")
    done = CliRunner().invoke(cli, [*words, "--no-layers"])
    assert done.exit_code == 0, done.output
    assert "held: 4 held" in done.stdout
    done = CliRunner().invoke(cli, [*words, models[0]])
    assert done.exit_code == 2
    assert "both --predictions and MODELs" in done.stderr


def test_an_output_that_cannot_be_written_is_told(place):
    run(*both(place), "--predictions", "/proc/no/p.npz", code=8)
