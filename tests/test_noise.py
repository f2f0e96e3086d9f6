"""Noise in place of images: only when it is asked for, the same every time."""

import numpy as np
import pytest

from calib_data.batches import sample
from calib_data.noise import is_synthetic
from calib_data.open import open_data
from calib_data.preprocess import PRESETS
from core.errors import InputError


def test_noise_is_even_over_all_bytes():
    source = open_data("random:3", synthetic=True)
    assert (source.name, source.labels, source.preprocessed) == ("random:3", None, False)
    image = source.image(5)
    assert (image.shape, image.dtype) == ((224, 224, 3), np.uint8)
    counts = np.bincount(image.ravel(), minlength=256)
    assert abs(counts - image.size / 256).max() < 150  # 6 standard deviations of 588
    assert image.astype(float).mean() == pytest.approx(127.5, abs=1)


def test_an_image_is_its_seed_and_number():
    one, again, other = (open_data(f"random:{s}", synthetic=True) for s in (0, 0, 1))
    assert open_data("random", synthetic=True).name == "random:0"
    assert (one.image(4) == again.image(4)).all()
    assert one.digest(4) == again.digest(4)
    assert len({one.digest(4), one.digest(5), other.digest(4)}) == 3
    assert len(sample(one, 512)) == 512


@pytest.mark.parametrize(("preset", "side"), [("imagenet-v2", 224), ("fashion-mnist", 32)])
def test_noise_is_not_blurred_to_the_size_of_the_network(preset, side):
    source = open_data("random", synthetic=True)
    tensor = source.tensor(2, PRESETS[preset])
    assert (tensor.shape, tensor.dtype) == ((3, side, side), np.float32)
    pixels = tensor.std() * PRESETS[preset].std[0]
    assert pixels == pytest.approx(np.sqrt(1 / 12), rel=0.05)  # an even spread over [0, 1]


@pytest.mark.parametrize("text", ["random:-1", "random:x", "random:0:1", "random:²"])
def test_no_such_seed(text):
    with pytest.raises(InputError, match="no seed"):
        open_data(text, synthetic=True)


def test_noise_has_to_be_asked_for():
    with pytest.raises(InputError, match=r"random:7: noise, not images.*\n.*--allow-synthetic"):
        open_data("random:7")


def test_real_images_are_not_synthetic(tmp_path, monkeypatch):
    assert not is_synthetic(open_data("fashion-mnist:test"))
    assert is_synthetic(open_data("random", synthetic=True))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such data"):  # a path is a path
        open_data("./random")
