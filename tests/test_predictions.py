"""Predictions: summed up, kept in a file, merged from shards; and what is refused."""

import json
import zipfile

import numpy as np
import pytest
from gate_runs import CLASSES, answers, predictions, table
from refusal import refused
from tiny_nets import resnet, with_qdq, write

from calib_data.batches import data_digest
from calib_data.open import open_data
from deploy.evaluation.measures import accuracy_of, calibration_error, confusion
from deploy.evaluation.opening import open_models
from deploy.evaluation.predict import open_part, predict
from deploy.evaluation.predictions import arrays_of, merge
from deploy.evaluation.predictions_file import (
    predictions_to_bytes,
    read_predictions,
    write_predictions,
)
from deploy.images import ImageRequest

IMAGES = 30


def found():
    images = table(IMAGES)
    return predictions(
        images, answers("float.onnx", images, wrong=[3]), answers("int8.onnx", images, wrong=[3, 7])
    )


def same(one, other):
    assert one.data == other.data
    assert one.images.keys == other.images.keys
    for a, b in zip(one.models, other.models, strict=True):
        assert (a.name, a.sha256, a.weights) == (b.name, b.sha256, b.weights)
        assert arrays_of(a).keys() == arrays_of(b).keys()
        for name, array in arrays_of(a).items():
            np.testing.assert_array_equal(array, arrays_of(b)[name])


def test_sums_are_those_of_counting_by_hand():
    first, second = accuracy_of(found()).models
    assert (first.top1, second.top1) == (29, 28)
    assert second.changed.answers == 1
    assert second.changed.sqnr_db == 40
    assert second.ece == pytest.approx(28 / 30 - 0.75)
    rows = {row.name: row for row in second.classes}
    assert (rows["class 3"].images, rows["class 3"].right, rows["class 3"].answered) == (3, 2, 2)
    assert rows["class 3"].taken_for == {"class 4": 1}
    assert rows["class 4"].answered == 4
    table_ = confusion(found(), found().models[1])
    assert table_.sum() == IMAGES
    assert table_[3, 4] == 1
    assert np.trace(table_) == 28


def test_calibration_error_is_that_of_bins():
    """Two bins: sure 0.95 and right 1 of 2; sure 0.55 and right 2 of 2."""
    images = table(4)
    model = answers("float.onnx", images, wrong=[0])
    model.confidence[:] = [0.95, 0.95, 0.55, 0.55]
    assert calibration_error(model) == pytest.approx((2 * 0.45 + 2 * 0.45) / 4)
    model.confidence[:] = 1.0  # the last bin has its upper end, too
    assert calibration_error(model) == pytest.approx(0.25)


def test_a_file_gives_back_what_was_written_and_equal_bytes(tmp_path):
    path = tmp_path / "p.npz"
    write_predictions(found(), path)
    same(read_predictions(path), found())
    assert path.read_bytes() == predictions_to_bytes(found())
    with np.load(path) as arrays:  # any numpy reads it
        assert arrays["1.answer"].shape == (IMAGES,)


def damaged(path, change):
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(parts["header.json"])
    change(header, parts)
    parts["header.json"] = json.dumps(header).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda h, _: h.update(kind="?"), "another version"),
        (lambda h, _: h.update(classes=3), "a label is of no class"),
        (lambda h, _: h["data"].update(sha256="0" * 64), "not those of its header"),
        (lambda h, _: h["data"].update(images=29), "int64"),
        (lambda _, p: p.pop("1.answer.npy"), "1.answer"),
        (lambda _, p: p.pop("digests.npy"), "digests"),
        (lambda _, p: p.update({"0.rank.npy": b"x"}), "damaged"),
        (lambda h, _: h.update(models=7), "not iterable"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, change, text):
    path = tmp_path / "p.npz"
    write_predictions(found(), path)
    damaged(path, change)
    refused(lambda: read_predictions(path), path, text, hint="strata evaluate")


def test_what_is_no_file_of_ours_is_refused(tmp_path):
    path = tmp_path / "p.npz"
    refused(lambda: read_predictions(path), "No such file")
    path.write_bytes(b"PK")
    refused(lambda: read_predictions(path), "not a predictions file")
    np.savez(path, images=np.zeros(3))
    refused(lambda: read_predictions(path), "header.json")
    write_predictions(found(), path)
    path.write_bytes(path.read_bytes()[:-200])
    refused(lambda: read_predictions(path), "not a predictions file")
    refused(lambda: read_predictions(tmp_path), "cannot be read")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "d.npz"
    random = np.random.default_rng(0)
    images = random.standard_normal((IMAGES, 3, 16, 16)).astype(np.float32)
    np.savez(path, images=images, labels=np.arange(IMAGES) % CLASSES)
    return str(path)


def test_shards_merge_to_the_run_of_all(tmp_path, data):
    files = [write(resnet(), tmp_path / "a.onnx"), write(with_qdq(resnet()), tmp_path / "b.onnx")]
    models = list(open_models([str(file) for file in files]).models.values())
    request = ImageRequest(data, batch=1)
    whole = predict(models, open_part(models, request))
    parts = [predict(models, open_part(models, request, (at, 4))) for at in (3, 1, 4, 2)]
    assert [len(part.images) for part in parts] == [7, 8, 7, 8]
    merged = merge(parts, ["c", "a", "d", "b"])
    same(merged, whole)
    assert predictions_to_bytes(merged) == predictions_to_bytes(whole)
    source = open_data(data)
    assert whole.data.sha256 == data_digest(source, range(IMAGES))
    refused(lambda: merge([parts[0], parts[0]], ["c", "C"]), "7 images are in two", hint="--shard")
    other = predict(models[:1], open_part(models, request, (1, 4)))
    refused(lambda: merge([parts[0], other], ["c", "o"]), "different models")
    refused(lambda: open_part(models, ImageRequest(data, images=2), (3, 3)), "is empty")


def test_the_images_order_does_not_matter(tmp_path, data):
    models = list(open_models([str(write(resnet(), tmp_path / "a.onnx"))]).models.values())
    one, other = (
        predict(models, open_part(models, ImageRequest(data, images=count, batch=1)))
        for count in (None, IMAGES)
    )
    same(one, other)


def test_a_model_that_is_named_twice_is_opened_once(tmp_path):
    file = str(write(resnet(), tmp_path / "a.onnx"))
    assert list(open_models([file, file]).models) == [file]


def test_logits_are_kept_only_while_they_are_few(tmp_path, data, monkeypatch):
    models = list(open_models([str(write(resnet(), tmp_path / "a.onnx"))]).models.values())
    kept = predict(models, open_part(models, ImageRequest(data)))
    assert kept.models[0].logits.shape == (IMAGES, CLASSES)
    monkeypatch.setattr("deploy.evaluation.predict.MOST_LOGITS", IMAGES * CLASSES - 1)
    assert predict(models, open_part(models, ImageRequest(data))).models[0].logits is None
