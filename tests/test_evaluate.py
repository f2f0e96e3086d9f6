"""Counting right answers: by hand, by model, by command; and what is refused."""

import json
import math

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from refusal import refused
from tiny_nets import SPEC, resnet, set_weight, with_qdq, write

from core.errors import GraphError, InputError
from deploy.cli import cli
from deploy.evaluate import evaluate
from deploy.evaluation.accuracy import (
    Accuracy,
    Answers,
    Changed,
    accuracy_to_json,
    read_accuracy,
    write_accuracy,
)
from deploy.images import DataRecord, ImageRequest
from deploy.runners import Model, open_model
from exporter.card import Card
from exporter.session import open_session

IMAGES = 24


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Prepared images with labels, so that answers can be laid down by hand."""
    path = tmp_path_factory.mktemp("data") / "d.npz"
    random = np.random.default_rng(0)
    images = random.standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    np.savez(path, images=images, labels=np.arange(IMAGES) % 10)
    return ImageRequest(data=str(path), batch=7)


def fake(answer, name="fake"):
    """A model that answers as a function of the images says."""
    return Model(name, "0" * 64, "fake", Card(), "input", "logits", lambda feeds: {
        "logits": answer(feeds["input"])
    })  # fmt: skip


def table(rows, name="fake"):
    """A model that answers with the rows of a table, in order."""
    at = iter(rows.astype(np.float32))
    return fake(lambda images: np.stack([next(at) for _ in images]), name)


def naive(logits, labels):
    """Top-1, top-5 and loss, image by image, sorting as a person would."""
    top1 = top5 = 0
    loss = 0.0
    for row, label in zip(logits.astype(np.float64), labels, strict=True):
        order = sorted(range(len(row)), key=lambda k: (-row[k], k))
        top1 += order[0] == label
        top5 += label in order[:5]
        loss -= math.log(math.exp(row[label] - row.max()) / np.exp(row - row.max()).sum())
    return top1, top5, loss / len(labels)


@given(logits=arrays(np.float32, (IMAGES, 10), elements=st.floats(-20, 20, width=16)))
def test_counts_are_those_of_sorting_each_row(data, logits):
    accuracy = evaluate([table(logits)], data)
    top1, top5, loss = naive(logits, np.arange(IMAGES) % 10)
    (answers,) = accuracy.models
    assert (answers.top1, answers.top5) == (top1, top5)
    assert answers.loss == pytest.approx(loss, abs=1e-6)
    assert answers.changed is None
    assert accuracy.data.images == IMAGES


def test_equal_logits_are_no_right_answer_for_every_class(data):
    """A constant answer is right for the first class alone, as argmax has it."""
    (answers,) = evaluate([table(np.zeros((IMAGES, 10)))], data).models
    assert answers.top1 == 3
    assert answers.top5 == 14
    assert answers.loss == pytest.approx(math.log(10))


def test_changed_answers_are_counted_against_the_first(data):
    logits = np.random.default_rng(1).standard_normal((IMAGES, 10))
    other = logits.copy()
    other[[3, 8, 20]] = -other[[3, 8, 20]]
    near = logits * 1.01
    first, same, three, scaled = evaluate(
        [table(logits), table(logits), table(other), table(near)], data
    ).models
    assert first.changed is None
    assert same.changed == Changed(0, math.inf)
    assert three.changed.answers == 3
    assert three.changed.sqnr_db == math.inf  # the median image has not changed
    assert scaled.changed.answers == 0
    assert scaled.changed.sqnr_db == pytest.approx(40, abs=0.01)
    assert scaled.top1 == first.top1


def test_silent_logits_are_no_division_by_zero(data):
    zeros, ones = np.zeros((IMAGES, 10)), np.ones((IMAGES, 10))
    _, same, other = evaluate([table(zeros), table(zeros), table(ones)], data).models
    assert same.changed.sqnr_db == math.inf
    assert other.changed.sqnr_db == -math.inf


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_real_models_answer_the_same_in_any_batch(tmp_path, data, batch):
    files = [write(resnet(), tmp_path / "a.onnx"), write(with_qdq(resnet()), tmp_path / "b.onnx")]
    models = [open_model(str(path)) for path in files]
    expected = evaluate(models, data)
    ours = evaluate(models, ImageRequest(data=data.data, batch=batch))
    assert ours.data == expected.data
    for a, b in zip(ours.models, expected.models, strict=True):
        assert (a.top1, a.top5, a.sha256) == (b.top1, b.top5, b.sha256)
        assert a.loss == pytest.approx(b.loss, rel=1e-5)


@pytest.mark.parametrize("fast", [False, True])
def test_q_and_dq_compute_what_they_say(tmp_path, data, fast):
    """By default as ONNX Runtime's unoptimized session does; fast, but for float rounding."""
    path = write(with_qdq(resnet()), tmp_path / "b.onnx")
    images = np.load(data.data)["images"]
    exact = open_session(path)({"input": images})["logits"]
    ours = open_model(str(path), fast=fast).logits(images)
    assert np.abs(ours - exact).max() <= (1e-5 if fast else 0) * np.abs(exact).max()
    # The twin: one step of one scale is far beyond that.
    moved = set_weight(with_qdq(resnet()), "relu.scale", np.float32(6 / 127 * 1.01))
    off = open_session(moved)({"input": images})["logits"]
    assert np.abs(off - exact).max() > 1e-3 * np.abs(exact).max()


def test_pytorch_weights_are_a_model_too(tmp_path, data):
    torch = pytest.importorskip("torch")
    from exporter.models.config import ModelOptions
    from exporter.weights import load_weights, save_checkpoint

    options = ModelOptions(depth=18, width=8, classes=10)
    checkpoint = load_weights("random:0", options, preprocess=SPEC)
    path = tmp_path / "w.safetensors"
    save_checkpoint(checkpoint, path)
    model = open_model(f"torch:{path}")
    assert model.name == "torch:w.safetensors"
    assert model.card.preprocess == SPEC
    images = np.load(data.data)["images"]
    expected = checkpoint.network()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(model.logits(images), expected, rtol=1e-3, atol=1e-4)
    (answers,) = evaluate([model], data).models
    assert answers.top1 == naive(expected, np.arange(IMAGES) % 10)[0]
    save_checkpoint(load_weights("random:0", ModelOptions(depth=18, width=8, features=True)), path)
    refused(lambda: open_model(f"torch:{path}"), "backbone", hint="classifier")


def test_what_is_refused(tmp_path, data):
    answer = np.zeros((IMAGES, 10))
    bare = tmp_path / "bare.npz"
    np.savez(bare, images=np.zeros((3, 3, 16, 16), np.float32))
    request = ImageRequest(data=str(bare))
    refused(lambda: evaluate([table(answer)], request), "no labels", hint="labels")
    few = np.zeros((IMAGES, 7))
    refused(lambda: evaluate([table(few, "few")], data), "10 classes", "few answers for 7")
    refused(lambda: evaluate([fake(lambda x: x)], data), "not a row of logits", hint="backbone")
    fashion = ImageRequest(images=2, preprocess=SPEC.to_json())
    refused(lambda: evaluate([table(np.zeros((2, 1000)))], fashion), "10 classes", "for 1000")
    refused(lambda: open_model("weights.pt"), "weights.pt", hint="torch:WEIGHTS")
    refused(lambda: open_model("torch:"), "torch:", hint="FILE.onnx")
    refused(lambda: open_model(str(tmp_path / "no.onnx")), "no.onnx")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_answers_that_are_no_numbers_name_the_image(data, bad):
    logits = np.zeros((IMAGES, 10))
    logits[17, 2] = bad
    with pytest.raises(GraphError, match=r"broken: answers NaN or Inf for .*17"):
        evaluate([table(logits, "broken")], data)


def test_a_network_with_many_outputs_needs_one_named_logits(tmp_path):
    model = resnet()
    model.graph.output.extend(
        [onnx.ValueInfoProto(name="relu"), onnx.ValueInfoProto(name="avgpool")]
    )
    path = tmp_path / "many.onnx"
    onnx.save(model, path)
    assert open_model(str(path)).output == "logits"
    del model.graph.output[0]
    onnx.save(model, path)
    with pytest.raises(InputError, match="none is named 'logits'"):
        open_model(str(path))


RESULT = Accuracy(
    DataRecord("fashion-mnist:test", "d" * 64, 10000, SPEC.to_json()),
    (
        Answers("a.onnx", "a" * 64, "onnxruntime", 8841, 9975, 0.345678),
        Answers("b.onnx", "b" * 64, "onnxruntime", 8838, 9974, 0.351, Changed(31, math.inf)),
    ),
)


def test_a_result_survives_its_file(tmp_path):
    path = tmp_path / "accuracy.json"
    write_accuracy(RESULT, path)
    assert read_accuracy(path) == RESULT


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda v: v.update(schema=None), "schema None"),
        (lambda v: v.pop("models"), "KeyError"),
        (lambda v: v["models"][0].update(top1="many"), "ValueError"),
        (lambda v: v["models"][1].update(changed=[]), "TypeError|KeyError"),
        (lambda v: v.update(data=7), "TypeError"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, text):
    value = accuracy_to_json(RESULT)
    value["models"][1]["changed"] = {"answers": 31, "sqnr_db": 1.0}
    damage(value)
    path = tmp_path / "accuracy.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=text):
        read_accuracy(path)


def test_the_command_prints_a_table_and_writes_the_result(tmp_path, data):
    a = write(resnet(), tmp_path / f"{'a' * 60}.onnx")
    b = write(with_qdq(resnet()), tmp_path / "b.onnx")
    path = tmp_path / "accuracy.json"
    options = ["--data", data.data, "--batch", "8"]
    done = CliRunner().invoke(cli, ["evaluate", str(a), str(b), *options, "--json", str(path)])
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0] == f"{IMAGES} images of d.npz"
    assert lines[2].split()[:2] == ["model", "top-1"]
    result = read_accuracy(path)
    assert result.models[1].changed is not None
    assert f"{result.models[1].top1 / IMAGES:.2%}" in lines[4]
    printed = CliRunner().invoke(cli, ["evaluate", str(a), str(b), *options, "--json", "-"])
    assert json.loads(printed.stdout) == json.loads(path.read_text())


def test_the_command_needs_a_model_and_says_what_is_wrong(tmp_path):
    assert CliRunner().invoke(cli, ["evaluate"]).exit_code == 2
    done = CliRunner().invoke(cli, ["evaluate", str(tmp_path / "no.onnx")])
    assert done.exit_code == 2
    assert "hint:" in done.stderr
