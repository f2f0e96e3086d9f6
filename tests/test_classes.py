"""Folders are numbered as the model numbers its classes, or refused."""

import numpy as np
import pytest
from PIL import Image

from calib_data.classes import doubts, numbered_as
from calib_data.folder import open_folder
from calib_data.preprocess import PreprocessSpec
from core.errors import InputError
from deploy.evaluate import evaluate
from deploy.evaluation.predict import open_part, table_of
from deploy.images import ImageRequest
from deploy.runners import Model
from exporter.card import Card

SPEC = PreprocessSpec((8, 8), None, "bilinear", (0, 0, 0), (1, 1, 1))
LABELS = ("shoe", "T-shirt/top", "bag", "dress")
GREY = {"shoe": 10, "T-shirt/top": 90, "bag": 170, "dress": 250}


def folder(root, names):
    """One folder a class, an image each; its grey says the class (folder → label, or none)."""
    for name, label in names.items():
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (GREY.get(label, 0),) * 3).save(root / name / "1.png")
    return root


def model(labels, name="net.onnx", order=LABELS):
    """A model that sees the grey, and is never wrong; `order` is how it numbers its classes."""
    greys = np.array([GREY[label] for label in order]) / 255

    def run(feeds):
        return {"logits": -np.abs(feeds["input"].mean((1, 2, 3))[:, None] - greys)}

    return Model(name, "0" * 64, "fake", Card(SPEC, tuple(labels)), "input", "logits", run)


def right(models, root):
    return [answers.top1 for answers in evaluate(models, ImageRequest(data=str(root))).models]


def test_classes_are_matched_by_name(tmp_path):
    """In the order of the folders two of the four would be wrong, and nobody would know."""
    names = {"bag": "bag", "dress": "dress", "shoe": "shoe", "T-shirt_top": "T-shirt/top"}
    root = folder(tmp_path / "d", names)
    assert right([model(LABELS)], root) == [4]
    assert right([model(())], root) == [0]  # no names: by the order of the folders
    table = table_of(open_part([model(LABELS)], ImageRequest(data=str(root))))
    assert table.class_names == LABELS
    assert [table.name(label) for label in table.labels] == ["T-shirt/top", "bag", "dress", "shoe"]


def test_some_of_the_classes_will_do(tmp_path):
    root = folder(tmp_path / "d", {"dress": "dress", "bag": "bag"})
    assert right([model(LABELS), model((), "other.onnx")], root) == [2, 2]


def test_a_class_that_the_model_does_not_know_is_named(tmp_path):
    root = folder(tmp_path / "d", {"bag": "bag", "dress": "dress", "shoe": "shoe", "Skirt": ""})
    with pytest.raises(InputError, match=r"'Skirt' is no class of net\.onnx, which knows 3 of"):
        right([model(LABELS)], root)


def test_identifiers_go_by_their_order(tmp_path):
    ids = dict(zip(("n01", "n02", "n03", "n04"), LABELS, strict=True))
    assert right([model(LABELS)], folder(tmp_path / "d", ids)) == [4]


def test_identifiers_of_another_number_of_classes_are_refused(tmp_path):
    root = folder(tmp_path / "d", {"n01": "shoe", "n02": "bag"})
    with pytest.raises(InputError, match=r"has 2 classes, net\.onnx answers for 4"):
        right([model(LABELS)], root)


@pytest.mark.parametrize(
    ("names", "labels", "words"),
    [
        (("crane", "shoe"), ("crane", "shoe", "crane"), "'crane' could be class 0 or 2"),
        (("a b", "a-b"), ("a/b", "shoe"), "'a b' and 'a-b' are both 'a/b'"),
        (("a.b", "shoe"), ("a/b", "a-b", "shoe"), "'a.b' could be class 0 or 1"),
    ],
)
def test_what_could_be_two_classes_is_refused(tmp_path, names, labels, words):
    source = open_folder(folder(tmp_path / "d", dict.fromkeys(names, "bag")))
    with pytest.raises(InputError, match=words):
        numbered_as(source, {"net.onnx": labels})


def test_names_of_marks_alone_and_accents_have_their_own_spelling(tmp_path):
    source = open_folder(
        folder(tmp_path / "d", {"++": "bag", "cafe\N{COMBINING ACUTE ACCENT}": ""})
    )
    assert numbered_as(source, {"net.onnx": ("--", "++", "café")}).labels.tolist() == [1, 2]


def test_two_models_must_number_them_alike(tmp_path):
    root = folder(tmp_path / "d", {"bag": "bag", "dress": "dress"})
    other = ("bag", "dress", "shoe", "T-shirt/top")
    with pytest.raises(InputError, match=r"net\.onnx and b\.onnx number the classes of d differ"):
        right([model(LABELS), model(other, "b.onnx", other)], root)


def test_folders_called_by_number_are_in_doubt_where_text_orders_them_otherwise(tmp_path):
    root = folder(tmp_path / "d", dict.fromkeys(map(str, range(12)), "bag"))
    source = open_folder(root)
    (said,) = doubts(source)
    assert "10/ is class 2, and no model names its classes" in said
    assert not doubts(numbered_as(source, {"net.onnx": tuple(map(str, range(12)))}))


@pytest.mark.parametrize(
    "names", [[f"{n:02}" for n in range(12)], [str(n) for n in range(10)], ["2", "10b", "x"]]
)
def test_folders_of_one_order_are_not_in_doubt(tmp_path, names):
    assert not doubts(open_folder(folder(tmp_path / "d", dict.fromkeys(names, "bag"))))
