import io
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from refusal import refused

from calib_data import image as image_module
from calib_data.image import read_image
from core.errors import InputError

rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (12, 9, 3), dtype=np.uint8)
GREY = rng.integers(0, 256, (12, 9), dtype=np.uint8)


def pillow_rgb(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize(
    ("mode", "transparency"),
    [
        *((mode, None) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")),
        ("1", 0),
        ("L", 7),
        ("P", 0),
        ("P", b"\x00\x80\xff" * 20),
        ("RGB", (1, 2, 3)),
    ],
)
def test_png_colours_are_those_of_pillows_convert(tmp_path, mode, transparency):
    path = tmp_path / "a.png"
    extra = {} if transparency is None else {"transparency": transparency}
    Image.fromarray(np.dstack([RGB, GREY])).convert(mode).save(path, **extra)
    assert np.array_equal(read_image(path), pillow_rgb(path))


def test_alpha_is_dropped_not_blended(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.dstack([RGB, np.zeros_like(GREY)])).save(path)
    assert np.array_equal(read_image(path), RGB)


def test_cmyk_jpeg(tmp_path):
    path = tmp_path / "a.jpg"
    Image.fromarray(np.full((8, 8, 3), (250, 20, 30), np.uint8)).convert("CMYK").save(path)
    red, green, blue = read_image(path).mean(axis=(0, 1))
    assert red > 200 > 60 > max(green, blue)  # ink not inverted
    assert np.array_equal(read_image(path), pillow_rgb(path))


def test_16_bit_grey_keeps_its_upper_byte(tmp_path):
    deep = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    expected = (deep >> 8).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "a.png"), np.stack([expected] * 3, axis=-1))


def rotated(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("suffix", ["png", "webp"])
def test_exif_orientation_is_undone(tmp_path, orientation, suffix):
    # What a camera held that way would have stored, by the Exif standard's table.
    stored = {
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, 1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB, -1),
    }.get(orientation, RGB)
    path = tmp_path / f"a.{suffix}"
    extra = {"lossless": True} if suffix == "webp" else {}
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=rotated(orientation), **extra)
    assert np.array_equal(read_image(path), RGB)


def test_exif_orientation_of_a_jpeg(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.jpg", exif=rotated(6))
    assert read_image(tmp_path / "a.jpg").shape == (9, 12, 3)


def test_of_an_animation_the_first_frame_is_taken(tmp_path):
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    assert np.array_equal(read_image(tmp_path / "a.png"), RGB)


def test_a_phones_double_jpeg_is_read(tmp_path):
    frames = [Image.new("RGB", (9, 8), "red"), Image.new("RGB", (9, 8), "blue")]
    path = tmp_path / "a.jpg"
    frames[0].save(path, "MPO", save_all=True, append_images=frames[1:])
    assert read_image(path)[0, 0, 0] > 200


def test_an_impostor_is_named(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("<html>not found</html>")
    refused(lambda: read_image(path), path, "not a JPEG, PNG or WebP")
    Image.fromarray(RGB).save(path, "BMP")  # a format that Pillow could read, and we do not
    refused(lambda: read_image(path), path, "not a JPEG, PNG or WebP")
    path.write_bytes(b"")
    refused(lambda: read_image(path), path)


@given(data=st.data())
def test_damaged_bytes_never_end_in_a_traceback(tmp_path_factory, data):
    buffer = io.BytesIO()
    mode = data.draw(st.sampled_from(["RGB", "P", "L", "CMYK"]))
    suffix = "JPEG" if mode == "CMYK" else data.draw(st.sampled_from(["JPEG", "PNG", "WEBP"]))
    image = Image.fromarray(RGB).convert(mode if suffix != "JPEG" or mode != "P" else "RGB")
    image.save(buffer, suffix, **({} if mode == "CMYK" else {"exif": rotated(6)}))
    damaged = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "a.jpg"
    path.write_bytes(damaged)
    try:
        pixels = read_image(path)
    except InputError as err:
        problem = err.problem
        assert str(path) in problem
        return
    assert pixels.shape[2] == 3


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize("limit", [50, 70, 107])
def test_a_decompression_bomb_is_refused_by_its_header(tmp_path, monkeypatch, action, limit):
    path = tmp_path / "a.png"
    Image.fromarray(RGB).save(path)  # 108 pixels: over the limit, and over twice the limit
    monkeypatch.setattr(image_module.Image, "MAX_IMAGE_PIXELS", limit)
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        refused(lambda: read_image(path), path, "too large an image", hint="scale it down")
        monkeypatch.setattr(image_module.Image, "MAX_IMAGE_PIXELS", 108)
        assert read_image(path).shape == (12, 9, 3)
