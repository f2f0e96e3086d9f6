"""``strata baseline`` and ``strata check``, as a user runs them."""

import json
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_nets import SPEC, resnet, set_weight, with_qdq

from core.errors import MissingBackendError
from deploy.cli import cli
from deploy.gate.baseline_file import read_baseline
from exporter.onnx_file import Card, save

IMAGES = 40
CARD = Card(SPEC, weights={"name": "tiny", "sha256": "a" * 64})


def run(*words, code=0, **more):
    done = CliRunner().invoke(cli, [str(word) for word in words], **more)
    assert done.exit_code == code, done.output
    return done


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images in class folders, a float network, its INT8 and their baseline."""
    root = tmp_path_factory.mktemp("gate")
    random = np.random.default_rng(0)
    for at in range(IMAGES):
        folder = root / "images" / f"class{at % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{at:02}.png")
    save(resnet(), root / "float.onnx", CARD)
    save(with_qdq(resnet()), root / "int8.onnx", CARD)
    words = ["baseline", root / "float.onnx", root / "int8.onnx", "--data", root / "images"]
    done = run(*words, "-o", root / "baseline.json")
    assert "40 images of images" in done.stdout
    assert "commit both" in done.stdout
    return root


def check(place, *models, code=0, **more):
    data = more.pop("data", place / "images")
    options = [word for key, v in more.items() for word in (f"--{key.replace('_', '-')}", v)]
    return run(
        *("check", *models, "--baseline", place / "baseline.json", "--data", data, *options),
        code=code,
    )


def test_what_did_not_change_holds_on_few_images_too(place):
    done = check(place, place / "float.onnx", place / "int8.onnx")
    assert "baseline.json: held: 5 held, on 40 images" in done.stdout
    done = check(place, place / "float.onnx", place / "int8.onnx", images=7, seed=3)
    assert "held, on 7 images" in done.stdout


def test_what_a_model_cautions_of_is_said_once_and_kept(place, tmp_path):
    card = replace(CARD, synthetic="random", caveats=("3 images are double",))
    for name, net in (("float", resnet()), ("int8", with_qdq(resnet()))):
        save(net, tmp_path / f"{name}.onnx", card if name == "int8" else CARD)
    models = ("int8.onnx=" + str(tmp_path / "int8.onnx"),)
    kept = tmp_path / "out.json"
    done = check(place, place / "float.onnx", *models, "--other-weights", json=kept, code=9)
    for sentence in ("calibrated with random, which is noise", "3 images are double"):
        assert done.stdout.count(f"note: int8.onnx: {sentence}") == 1
        assert json.loads(kept.read_text())["notes"].count(f"int8.onnx: {sentence}") == 1


def test_a_scale_changed_by_a_twentieth_is_named(place, tmp_path):
    scale = np.float32(6 / 127 * 1.05)
    moved = set_weight(with_qdq(resnet()), "layer1.0.relu1.scale", scale)
    save(moved, tmp_path / "int8.onnx", CARD)
    outputs = {kind: tmp_path / f"out.{kind}" for kind in ("json", "junit", "markdown")}
    done = check(place, place / "float.onnx", tmp_path / "int8.onnx", code=7, **outputs)
    assert "layer1.0.conv2" in done.stderr
    assert "scales are others: layer1.0.relu1 +5.0 %" in done.stdout
    value = json.loads(outputs["json"].read_text())
    assert value["outcome"] == "regressed"
    assert [move["tensor"] for move in value["layers"]][:1] == ["layer1.0.conv2"]
    root = ElementTree.parse(outputs["junit"]).getroot()
    assert root.find(".//testcase[@name='layer1.0.conv2']/failure") is not None
    assert "`layer1.0.conv2`" in outputs["markdown"].read_text()
    # The twin: without the layers, 40 images see nothing of it that could be told.
    done = run(
        *("check", place / "float.onnx", tmp_path / "int8.onnx", "--no-layers"),
        *("--baseline", place / "baseline.json", "--data", place / "images"),
        code=9,
    )
    assert "cannot tell" in done.stderr
    run(
        *("check", place / "float.onnx", tmp_path / "int8.onnx", "--no-layers"),
        *("--baseline", place / "baseline.json", "--data", place / "images"),
        *("--allow", "cannot-tell"),
    )


@pytest.fixture
def copy(place, tmp_path):
    shutil.copytree(place / "images", tmp_path / "images")
    return tmp_path / "images"


def test_one_image_replaced(place, copy, tmp_path):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(copy / "class3" / "13.png")
    junit = tmp_path / "j.xml"
    done = check(place, place / "int8.onnx", data=copy, junit=junit, code=11)
    assert "1 of 40 images are not the baseline's: images/class3/13.png" in done.stderr
    error = ElementTree.parse(junit).getroot().find(".//error")
    assert error.get("type") == "other images"
    (copy / "class3" / "13.png").unlink()
    assert "are not there" in check(place, place / "int8.onnx", data=copy, code=11).stderr


def test_labels_shuffled(place, copy):
    one, other = copy / "class1" / "01.png", copy / "class2" / "02.png"
    one.rename(copy / "class2" / "01.png")
    other.rename(copy / "class1" / "02.png")
    done = check(place, place / "int8.onnx", data=copy, code=12)
    assert "2 of 40 images are the baseline's with another label" in done.stderr
    assert "images/class1/02.png was class2, is class1" in done.stderr


def test_another_preprocess_spec(place):
    done = check(place, place / "int8.onnx", preprocess="resize=16,16,mean=0.5,std=0.5", code=13)
    assert "mean" in done.stderr


def test_a_baseline_of_another_model(place, tmp_path):
    card = Card(SPEC, weights={"name": "tiny", "sha256": "b" * 64})
    save(with_qdq(resnet()), tmp_path / "int8.onnx", card)
    done = check(place, tmp_path / "int8.onnx", code=14)
    assert "the weights bbbbbbbbbbbb" in done.stderr
    save(resnet(), tmp_path / "float.onnx", card)
    run(
        *("check", tmp_path / "float.onnx", tmp_path / "int8.onnx", "--other-weights"),
        *("--baseline", place / "baseline.json", "--data", place / "images", "--no-layers"),
        *("--allow", "cannot-tell"),
    )


def test_an_edited_digest(place, tmp_path):
    for file in place.glob("baseline.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "baseline.json"
    digest = read_baseline(path)[0].models[1].sha256
    path.write_text(path.read_text().replace(digest, "0" * 64))
    done = run("check", place / "int8.onnx", "--baseline", path, code=15)
    assert "seal" in done.stderr
    assert "restore it" in done.stderr


def test_layers_without_the_reference_were_not_run(place):
    done = check(place, place / "int8.onnx", code=3)
    assert "name the reference" in done.stdout.replace("\n", " ")
    assert "3 held" in done.stdout
    check(place, place / "int8.onnx", allow="not-run")


def test_an_engine_that_cannot_run_is_not_green(place, monkeypatch, tmp_path):
    (tmp_path / "int8.engine").write_bytes(b"plan")
    opened = []

    def refuse(text, **options):
        if text.endswith(".engine"):
            raise MissingBackendError(f"{text}: no GPU", hint="use one")
        opened.append(text)
        return open_model(text, **options)

    from deploy.runners import open_model

    monkeypatch.setattr("deploy.evaluation.opening.open_model", refuse)
    engine = f"int8.onnx={tmp_path / 'int8.engine'}"
    done = check(place, place / "float.onnx", engine, code=3)
    assert "1 not run" in done.stdout
    assert "no GPU" in done.stdout
    done = check(place, engine, code=3)
    assert "not run: 1 not run" in done.stdout
    check(place, place / "float.onnx", engine, allow="not-run")
    # It cannot be measured either.
    words = ("baseline", place / "float.onnx", tmp_path / "int8.engine", "-o", tmp_path / "b.json")
    assert "no GPU" in run(*words, "--data", place / "images", code=3).stderr
    assert not (tmp_path / "b.json").exists()
    assert len(set(opened)) == 1


def test_an_update_shows_the_difference_and_wants_a_yes(place, tmp_path, monkeypatch):
    for file in place.glob("baseline.*"):
        shutil.copy(file, tmp_path)
    path = tmp_path / "baseline.json"
    models = (place / "float.onnx", place / "int8.onnx", "--data", place / "images", "-o", path)
    assert "--update" in run("baseline", *models, code=2).stderr
    assert "nothing changed" in run("baseline", *models, "--update").stdout
    before = path.read_bytes()
    words = ("baseline", *models, "--update", "--tolerance", "top1=1")
    done = run(*words, code=2)
    assert "rule top1: 0.25 → 1" in done.stdout
    assert "--yes" in done.stderr
    assert path.read_bytes() == before
    monkeypatch.setattr("deploy.cli.baseline.is_somebody_there", lambda: True)
    run(*words, input="n\n", code=2)
    assert path.read_bytes() == before
    run(*words, input="y\n")
    assert read_baseline(path)[0].rules.top1 == 1
    moved = set_weight(with_qdq(resnet()), "relu.scale", np.float32(5 / 127))
    save(moved, tmp_path / "int8.onnx", CARD)
    done = run(
        *("baseline", place / "float.onnx", tmp_path / "int8.onnx", "--data", place / "images"),
        *("-o", path, "--update", "--yes"),
    )
    assert "layers moved" in done.stdout
    assert read_baseline(path)[0].rules.top1 == 1  # rules stay unless said


def test_what_a_user_may_get_wrong(place, tmp_path):
    base = ("--baseline", place / "baseline.json")
    assert "no MODEL" in run("check", *base, code=2).stderr
    assert "give --data" in run("check", place / "int8.onnx", *base, code=2).stderr
    assert "no such data" in check(place, place / "int8.onnx", data="nowhere", code=2).stderr
    missing = run("check", place / "int8.onnx", "--baseline", tmp_path / "no.json", code=2)
    assert "no.json" in missing.stderr
    check(place, tmp_path / "int8.onnx", code=2)
    assert "ask for 1 to 40" in check(place, place / "int8.onnx", images=41, code=2).stderr
    check(place, place / "int8.onnx", junit="/proc/no/j.xml", code=8)
    two = ("baseline", place / "int8.onnx", f"{place}/../{place.name}/int8.onnx")
    done = run(*two, "--data", place / "images", "-o", tmp_path / "b.json", code=2)
    assert "two models of one name" in done.stderr


def test_other_classes_than_the_models(place, tmp_path):
    save(resnet(classes=7), tmp_path / "int8.onnx", CARD)
    done = check(place, tmp_path / "int8.onnx", code=2)
    assert "answers for 7" in done.stderr
    assert isinstance(onnx.load(tmp_path / "int8.onnx"), onnx.ModelProto)
