import os

import numpy as np
import pytest
from PIL import Image
from refusal import refused

from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec

SMALL = PreprocessSpec((8, 8), None, "bilinear", (0.5,) * 3, (0.25,) * 3)
rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)


def png(path, pixels=RGB):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def test_formats_and_suffixes(tmp_path):
    names = ["a.jpg", "b.JPEG", "c.Png", "d.webp", "e.WebP"]
    for name in names:
        fmt = {"j": "JPEG", "p": "PNG", "w": "WEBP"}[name[2].lower()]
        Image.fromarray(RGB).save(tmp_path / name, fmt)
    (tmp_path / "LICENSE.txt").write_text("x")
    (tmp_path / ".hidden.png").write_text("x")
    (tmp_path / ".cache").mkdir()
    source = open_data(str(tmp_path))
    assert source.files == tuple(names)
    assert source.labels is None
    for i in range(5):
        assert abs(source.image(i).astype(int) - RGB).mean() < 60  # lossy on noise
    assert np.array_equal(source.image(2), RGB)


def test_folder_a_class_is_labelled_by_sorted_names(tmp_path):
    for name in ("zebra/b.png", "zebra/a.png", "Ant/c.png", "bee/d.png"):
        png(tmp_path / name)
    (tmp_path / "bee" / "notes.txt").write_text("x")
    source = open_data(f"{tmp_path}/")
    assert source.class_names == ("Ant", "bee", "zebra")
    assert source.files == ("Ant/c.png", "bee/d.png", "zebra/a.png", "zebra/b.png")
    assert source.labels.tolist() == [0, 1, 2, 2]
    assert source.name == tmp_path.name
    assert source.where(0) == f"{tmp_path.name}/Ant/c.png"


def test_folder_name_is_real_even_for_a_dot(tmp_path, monkeypatch):
    png(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert open_data(".").name == tmp_path.name


def test_linked_images_and_classes_are_followed(tmp_path):
    png(tmp_path / "store" / "a.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "store")
    assert open_data(str(tmp_path / "data")).class_names == ("cat",)


def test_folder_without_images(tmp_path):
    refused(lambda: open_data(str(tmp_path)), tmp_path, "holds no images", hint=".webp")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"")
    refused(lambda: open_data(str(tmp_path)), hint="train-images-idx3-ubyte.gz")
    (tmp_path / "train-images-idx3-ubyte.gz").rename(tmp_path / "a.npz")
    refused(lambda: open_data(str(tmp_path)), hint=f"{tmp_path / 'a.npz'}")


def test_loose_images_beside_class_folders(tmp_path):
    png(tmp_path / "loose.png")
    png(tmp_path / "cat" / "a.png")
    refused(lambda: open_data(str(tmp_path)), "1 loose images (such as loose.png)", "cat/")


def test_class_without_images_or_with_folders(tmp_path):
    png(tmp_path / "cat" / "a.png")
    (tmp_path / "dog").mkdir()
    refused(lambda: open_data(str(tmp_path)), "dog", "a class without images")
    png(tmp_path / "dog" / "deep" / "a.png")
    refused(lambda: open_data(str(tmp_path)), "dog/ holds folders", hint=str(tmp_path / "dog"))
    png(tmp_path / "dog" / "a.png")
    refused(lambda: open_data(str(tmp_path)), "dog", "1 loose images", "deep/")


@pytest.mark.parametrize("name", ["a.tif", "b.GIF", "c.heic"])
def test_a_picture_that_is_not_read_is_no_silent_loss(tmp_path, name):
    png(tmp_path / "a.png")
    (tmp_path / name).write_bytes(b"x")
    refused(lambda: open_data(str(tmp_path)), tmp_path / name, "not read", hint="convert")


def test_folder_that_may_not_be_read(tmp_path, monkeypatch):
    png(tmp_path / "cat" / "a.png")

    def scandir(folder):
        raise PermissionError(13, "Permission denied")  # root, who may run this, meets none

    monkeypatch.setattr(os, "scandir", scandir)
    refused(lambda: open_data(str(tmp_path)), tmp_path, "Permission denied")


def test_digest_of_a_file_is_of_its_content(tmp_path):
    png(tmp_path / "a.png")
    png(tmp_path / "b.png")
    png(tmp_path / "c.png", 255 - RGB)
    source = open_data(str(tmp_path))
    assert source.digest(0) == source.digest(1) != source.digest(2)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("keep", [0.3, 0.8])
def test_a_broken_image_is_named(tmp_path, suffix, keep):
    png(tmp_path / "a.png")
    path = tmp_path / f"b.{suffix}"
    Image.fromarray(np.tile(RGB, (20, 20, 1))).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    source = open_data(str(tmp_path))
    source.tensor(0, SMALL)
    refused(lambda: source.tensor(1, SMALL), path, "broken image", hint="replace it")


def test_a_missing_image_is_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    source = open_data(str(tmp_path))
    refused(lambda: source.image(0), "a.png", "No such file")
    refused(lambda: source.digest(0), "a.png", "No such file")


def test_a_link_that_goes_round_is_named(tmp_path):
    png(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("b.png")
    refused(lambda: open_data(str(tmp_path)), tmp_path / "b.png", "Too many levels", hint="links")
