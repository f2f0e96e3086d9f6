"""``strata check`` with layers.json files: bounds that must hold, and layers measured before."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_nets import SPEC, resnet, set_weight, with_qdq

from deploy.cli import cli
from exporter.onnx_file import Card, save

IMAGES = 40
CARD = Card(SPEC, weights={"name": "tiny", "sha256": "a" * 64})
CHANGED = "layer1.0.relu1.scale"  # the input of layer1.0.conv2


def run(*words, code=0):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == code, done.output
    return done


def compare(place, *models, to, images=32):
    words = ["compare", *models, "--data", place / "d.npz", "--images", images, "--json", to]
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code in (0, 7), done.output  # a layer of the tiny network may be to blame


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Networks with labelled images, their baseline, and the comparison that it was made of."""
    root = tmp_path_factory.mktemp("layers")
    images = np.random.default_rng(0).standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    np.savez(root / "d.npz", images=images, labels=np.arange(IMAGES) % 10)
    save(resnet(), root / "float.onnx", CARD)
    save(with_qdq(resnet()), root / "int8.onnx", CARD)
    changed = set_weight(with_qdq(resnet()), CHANGED, np.float32(6 / 127 * 1.05))
    (root / "new").mkdir()
    save(changed, root / "new" / "int8.onnx", CARD)
    models = root / "float.onnx", root / "int8.onnx"
    run("baseline", *models, "--data", root / "d.npz", "-o", root / "baseline.json")
    compare(root, *models, to=root / "layers.json")
    compare(root, models[0], root / "new" / "int8.onnx", to=root / "new" / "layers.json")
    for name, at in (("same", models[1]), ("new", root / "new" / "int8.onnx")):
        saved = root / f"{name}.npz"
        run("evaluate", models[0], at, "--data", root / "d.npz", "--predictions", saved)
    return root


def check(place, *words, code=0, baseline="baseline.json"):
    return run(
        *("check", *words, "--baseline", place / baseline, "--data", place / "d.npz"),
        code=code,
    )


def both(place, folder="."):
    return place / "float.onnx", place / folder / "int8.onnx"


def test_bounds_of_a_file_hold_and_are_named(place):
    done = check(place, *both(place), "--layers", place / "layers.json")
    assert "5 held" in done.stdout
    said = " ".join(done.stdout.split())
    assert "int8.onnx: its layers are held to layers.json, of" in said
    assert "another file" not in said


def test_a_changed_scale_is_named_by_the_bounds_of_a_file(place, tmp_path):
    out = tmp_path / "check.json"
    words = *both(place, "new"), "--layers", place / "layers.json", "--json", out
    done = check(place, *words, code=7)
    value = json.loads(out.read_text())
    assert [move["tensor"] for move in value["layers"]][:1] == ["layer1.0.conv2"]
    assert "layer1.0.conv2" in done.stderr
    assert "layer1.0.relu1 +5.0 %" in " ".join(done.stdout.split())
    # The twin: held to what was measured of the changed network, it holds, and that is said.
    words = *both(place, "new"), "--layers", place / "new" / "layers.json"
    done = check(place, *words, code=9)
    assert "0 of 16 layers fell" in done.stdout
    assert "another file than the baseline's" in " ".join(done.stdout.split())


def test_a_baseline_without_layers_takes_bounds_from_a_file(place):
    bare = place / "bare.json"
    words = ["baseline", *both(place), "--data", place / "d.npz", "-o", bare]
    run(*words, "--tolerance", "layers=off")
    refused = check(place, *both(place), "--layers", place / "layers.json", code=2, baseline=bare)
    assert "rules.layers" in refused.stderr
    value = json.loads(bare.read_text())
    value["rules"]["layers"] = 0.3
    bare.write_text(json.dumps(value))
    assert "4 held" in check(place, *both(place), baseline=bare).stdout
    done = check(place, *both(place), "--layers", place / "layers.json", baseline=bare)
    assert "5 held" in done.stdout
    check(place, *both(place, "new"), "--layers", place / "layers.json", code=7, baseline=bare)
    words = *both(place), "--measured-layers", place / "layers.json"
    assert "holds no layers of int8.onnx" in check(place, *words, code=2, baseline=bare).stderr


@pytest.mark.parametrize("saved", [False, True])
def test_layers_that_were_measured_are_not_measured_again(place, monkeypatch, saved):
    def never(*_, **__):
        raise AssertionError("measured again")

    monkeypatch.setattr("deploy.gate.measure.measure_layers", never)
    same = ("--predictions", place / "same.npz") if saved else both(place)
    done = check(place, *same, "--measured-layers", place / "layers.json")
    assert "5 held" in done.stdout
    new = ("--predictions", place / "new.npz") if saved else both(place, "new")
    done = check(place, *new, "--measured-layers", place / "new" / "layers.json", code=7)
    assert "layer1.0.conv2" in done.stderr
    # Of another model than is checked: no measurement of it.
    for models, path in ((same, place / "new" / "layers.json"), (new, place / "layers.json")):
        done = check(place, *models, "--measured-layers", path, code=2)
        assert "measured of another int8.onnx" in done.stderr


def test_saved_predictions_without_layers_say_how_to_give_them(place):
    done = check(place, "--predictions", place / "same.npz", code=3)
    assert "--measured-layers" in " ".join(done.stdout.split())


def test_a_step_of_a_chain_is_found(place, tmp_path):
    save(resnet(), tmp_path / "model.onnx", CARD)
    chain = tmp_path / "chain.json"
    compare(place, tmp_path / "model.onnx", *both(place), to=chain)
    assert "5 held" in check(place, *both(place), "--measured-layers", chain).stdout
    assert "5 held" in check(place, *both(place), "--layers", chain).stdout
    reverse = tmp_path / "reverse.json"
    compare(place, place / "int8.onnx", tmp_path / "model.onnx", to=reverse)
    done = check(place, *both(place), "--layers", reverse, code=2)
    assert "none of them is a model that is checked (int8.onnx) against float.onnx" in done.stderr


def test_a_model_of_another_name_is_found_by_its_entry(place, tmp_path):
    built = tmp_path / "built.onnx"
    built.write_bytes((place / "new" / "int8.onnx").read_bytes())
    path = tmp_path / "layers.json"
    compare(place, place / "float.onnx", built, to=path)
    words = place / "float.onnx", f"int8.onnx={built}", "--measured-layers", path
    assert "layer1.0.conv2" in check(place, *words, code=7).stderr


def test_other_images_are_drift(place, tmp_path):
    few = tmp_path / "few.json"
    compare(place, *both(place), to=few, images=8)
    done = check(place, *both(place), "--measured-layers", few, code=11)
    assert "other images (8)" in done.stderr
    assert "--images 32 --seed 0" in done.stderr
    other = tmp_path / "d.npz"
    images = np.random.default_rng(1).standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    np.savez(other, images=images, labels=np.arange(IMAGES) % 10)
    compare(tmp_path, *both(place), to=few)
    assert check(place, *both(place), "--layers", few, code=11)


def test_what_is_no_comparison_is_refused(place, tmp_path):
    bad = tmp_path / "layers.json"
    for content, text in (
        (None, "layers.json"),
        ("{", "layers.json"),
        ('{"schema": "strata.layers/1"}', "not 'strata.layers/2'"),
        ('{"schema": "strata.layers/2"}', "not a comparison"),
    ):
        if content is not None:
            bad.write_text(content)
        for option in ("--layers", "--measured-layers"):
            done = check(place, *both(place), option, bad, code=2)
            assert text in done.stderr
            assert "Traceback" not in done.stderr
    words = *both(place), "--layers", place / "layers.json", "--no-layers"
    assert "both layers and --no-layers" in check(place, *words, code=2).stderr
