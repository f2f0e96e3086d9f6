import numpy as np
import pytest
from PIL import Image

from calib_data.pixels import INTERPOLATIONS, centre_crop, normalize, resize_to
from calib_data.preprocess import PRESETS, PreprocessSpec

IMAGENET = PRESETS["imagenet-v2"]


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_normalization_is_float32_arithmetic_to_the_last_bit():
    image = np.arange(768, dtype=np.uint8).reshape(16, 16, 3)
    mean, std = IMAGENET.mean, IMAGENET.std
    plain = image.transpose(2, 0, 1).astype(np.float32) / np.float32(255)
    plain = (plain - np.array(mean, np.float32)[:, None, None]) / np.array(std, np.float32)[
        :, None, None
    ]
    assert np.array_equal(normalize(image, mean, std), plain)
    assert not np.array_equal(normalize(image, mean[::-1], std), plain)


# Resize and crop, as torchvision


@pytest.mark.parametrize(
    ("shape", "resize", "wanted"),
    [
        ((500, 375), 256, (341, 256)),  # 256·500/375 = 341.33, rounded down
        ((375, 500), 256, (256, 341)),
        ((333, 500), 232, (232, 348)),
        ((427, 640), 256, (256, 383)),  # 383.7: rounding to nearest would give 384
        ((28, 28), (32, 48), (32, 48)),
        ((1, 3), 5, (5, 15)),
    ],
)
def test_resized_size_is_torchvisions(shape, resize, wanted):
    assert resize_to(noise(*shape), resize, "bilinear").shape == (*wanted, 3)


@pytest.mark.parametrize("interpolation", sorted(INTERPOLATIONS))
def test_resampling_is_pillows(interpolation):
    image = noise(50, 37)
    how = getattr(Image.Resampling, interpolation.upper())
    pillow = np.asarray(Image.fromarray(image).resize((24, 32), how))
    assert np.array_equal(resize_to(image, (32, 24), interpolation), pillow)
    others = [name for name in INTERPOLATIONS if name != interpolation]
    assert not any(np.array_equal(resize_to(image, (32, 24), name), pillow) for name in others)


def test_downscaling_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    small = resize_to(stripes, (8, 8), "bilinear").astype(int)
    assert np.all(abs(small - 128) <= 8)  # sampling without a filter would give 0 or 255


def test_an_image_of_the_right_size_is_not_resampled():
    image = noise(32, 32)
    assert resize_to(image, 32, "lanczos") is image
    assert resize_to(image, (32, 32), "lanczos") is image
    assert resize_to(noise(32, 40), 32, "lanczos").shape == (32, 40, 3)


@pytest.mark.parametrize(
    ("side", "crop", "first", "last"),
    [
        (5, 2, 2, 3),  # 1.5 → 2
        (7, 2, 2, 3),  # 2.5 → 2: half to even; rounding up would give 3, 4
        (6, 4, 1, 4),
        (4, 4, 0, 3),
    ],
)
def test_crop_rounds_half_to_even(side, crop, first, last):
    rows = np.arange(side, dtype=np.uint8)[:, None, None] * np.ones((1, side, 3), np.uint8)
    for image in (rows, rows.transpose(1, 0, 2), rows[:, :, 0]):
        cut = centre_crop(image, (crop, crop))
        assert cut.shape[:2] == (crop, crop)
        assert (cut.min(), cut.max()) == (first, last)


def test_crop_pads_a_smaller_image_with_zeros():
    cut = centre_crop(np.full((1, 5, 3), 9, np.uint8), (4, 2))
    assert cut[:, :, 1].tolist() == [[0, 0], [9, 9], [0, 0], [0, 0]]  # the odd row goes below


def test_padding_is_black_before_normalization():
    spec = PreprocessSpec(None, (3, 3), "bilinear", (0.5,) * 3, (0.25,) * 3)
    tensor = spec.apply(np.full((1, 1, 3), 255, np.uint8))
    assert tensor[0].tolist() == [[-2, -2, -2], [-2, 2, -2], [-2, -2, -2]]
