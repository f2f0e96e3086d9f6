"""What is said of the input: nothing of real images, one sentence of each thing that is wrong."""

import re
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_data.image import read_image
from calib_data.open import open_data
from calib_data.preprocess import PRESETS, preprocess_option
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.image_record import Origin, record_image
from exporter.calibration.input_look import FEWEST, look_at_input
from exporter.calibration.merging import merge
from exporter.calibration.statistics import Statistics, read_statistics

IMAGENET, FASHION = PRESETS["imagenet-v1"], PRESETS["fashion-mnist"]
FILES, PIXELS, INPUTS = Origin("files"), Origin("pixels"), Origin("inputs")


def photographs(count=FEWEST, side=96):
    """Cuts from a photograph of a person before a flag."""
    path = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    photograph = read_image(path)
    rng = np.random.default_rng(0)
    tops, lefts = (rng.integers(0, n - side, count) for n in photograph.shape[:2])
    return [photograph[y : y + side, x : x + side] for y, x in zip(tops, lefts, strict=True)]


SMALL = replace(IMAGENET, resize=None, crop=None)
PHOTOGRAPHS = np.stack(photographs())
PREPARED = np.stack([SMALL.apply(image) for image in PHOTOGRAPHS])
# Warm light, as most photographs have it, and as the one above has not.
WARM = np.uint8(PHOTOGRAPHS * [1.0, 0.9, 0.7])
TWO_TONE = np.median(PHOTOGRAPHS, axis=(1, 2), keepdims=True) < PHOTOGRAPHS
UNIT = PHOTOGRAPHS.transpose(0, 3, 1, 2).astype(np.float32) / 255
MEAN, STD = (np.float32(v)[:, None, None] for v in (SMALL.mean, SMALL.std))


def statistics(inputs, origin, spec=None, digests=None):
    digests = digests or [f"{i:064x}" for i in range(len(inputs))]
    records = (record_image(d, np.float32(x)) for d, x in zip(digests, inputs, strict=True))
    preprocess = spec.to_json() if spec else ""
    tensors = {"input": Histogram.empty()}
    return Statistics("0" * 64, preprocess, tuple(sorted(records)), tensors, origin)


def warnings(*args, **kwargs):
    return look_at_input(statistics(*args, **kwargs)).warnings


def wanted(spec=SMALL):
    return Origin("inputs", spec.to_json())


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("spec", [FASHION, replace(IMAGENET, resize=64, crop=(56, 56))])
def test_nothing_is_said_of_fashion_mnist(split, spec):
    source = open_data(f"fashion-mnist:{split}")
    inputs = [source.tensor(i, spec) for i in range(300)]
    assert warnings(inputs, FILES, spec) == ()
    assert warnings(inputs, wanted(spec)) == ()


@pytest.mark.parametrize(
    "spec",
    [
        SMALL,
        replace(SMALL, mean=(0.5,) * 3, std=(0.5,) * 3),  # [−1, 1]
        replace(SMALL, mean=(0.0,) * 3, std=(1.0,) * 3),  # [0, 1]
        replace(SMALL, mean=(0.0,) * 3, std=(1 / 255,) * 3),  # bytes, the network divides
        replace(SMALL, std=(1 / 255,) * 3),  # Caffe's way
        replace(SMALL, resize=48, interpolation="bicubic"),
        replace(SMALL, resize=224, interpolation="lanczos"),
    ],
)
def test_nothing_is_said_of_photographs(spec):
    inputs = [spec.apply(image) for image in PHOTOGRAPHS]
    assert warnings(inputs, FILES, spec) == ()
    assert warnings(inputs, PIXELS, spec) == ()
    assert warnings(inputs, wanted(spec)) == ()


def test_nothing_is_said_of_normalized_inputs_of_an_unknown_network():
    assert warnings(PREPARED, INPUTS) == ()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (UNIT, "in [0, 1] have that were not normalized"),
        (UNIT * 255, "of 0…255 have that were not divided by 255"),
        (UNIT * 2 - 1, "scaled to [−1, 1]"),
        ((UNIT * 255 - MEAN) / STD, "is the division by 255 missing?"),
        ((PREPARED - MEAN) / STD, "prepared otherwise"),
        ((UNIT / 255 - MEAN) / STD, "divided by 255 twice"),
        ([SMALL.apply(image[:, :, ::-1]) for image in WARM], "hold B, G, R"),
        (np.random.default_rng(0).normal(size=(FEWEST, 3, 32, 32)) / 2, "as in noise"),
        (PREPARED[:, :, :, np.random.default_rng(0).permutation(96)], "another memory layout"),
    ],
)
def test_what_is_wrong_with_prepared_inputs(inputs, words):
    (found,) = warnings(inputs, wanted())
    assert words in found
    assert "\n" not in found


@pytest.mark.parametrize(
    ("inputs", "words"),
    [(UNIT, "none of them below 0"), (UNIT * 255, "far from that"), (PREPARED * 9, "far from")],
)
def test_what_is_wrong_with_inputs_of_an_unknown_network(inputs, words):
    (found,) = warnings(inputs, INPUTS)
    assert words in found


@pytest.mark.parametrize("origin", [FILES, PIXELS])
@pytest.mark.parametrize(
    ("pixels", "spec", "words"),
    [
        (
            TWO_TONE,
            SMALL,
            "no pixel is brighter than 1.0 of 255",
        ),
        (PHOTOGRAPHS, "mean=123.7,116.3,103.5,std=58.4,57.1,57.4", "as for pixels of 0…255"),
        (PHOTOGRAPHS, "mean=0.485,0.456,0.406,std=58.4,57.1,57.4", "as for pixels of 0…255"),
        (np.random.default_rng(0).integers(0, 256, (FEWEST, 32, 32, 3), np.uint8), SMALL, "noise"),
        (
            np.random.default_rng(0).integers(0, 256, (FEWEST, 256, 256, 3), np.uint8),
            replace(IMAGENET, resize=224, crop=None),
            "noise",
        ),
    ],
)
def test_what_is_wrong_with_pixels(origin, pixels, spec, words):
    spec = preprocess_option(spec) if isinstance(spec, str) else spec
    (found,) = warnings([spec.apply(image.astype(np.uint8)) for image in pixels], origin, spec)
    assert words in found


def test_the_order_of_channels_is_judged_in_arrays_only():
    """A file is decoded here, so a set of blue photographs is a set of blue photographs."""
    assert warnings([SMALL.apply(image) for image in WARM], PIXELS, SMALL) == ()
    turned = [SMALL.apply(image[:, :, ::-1]) for image in WARM]
    assert warnings(turned, FILES, SMALL) == ()
    (found,) = warnings(turned, PIXELS, SMALL)
    assert re.search(r"brighter than the first by 0\.1\d", found)


def test_few_images():
    (found,) = warnings(PREPARED[: FEWEST - 1], FILES, SMALL)
    assert found.startswith("99 different images are few: ")
    assert "one unseen image in 100 " in found
    assert warnings(PREPARED[:FEWEST], FILES, SMALL) == ()
    part = statistics(PREPARED[:9], FILES, SMALL)
    assert look_at_input(part, part=True).warnings == ()
    assert warnings(PREPARED[:1], FILES, SMALL)[0].startswith("1 different image is few")


def test_copies():
    digests = [f"{i:064x}" for i in range(FEWEST)]
    doubled = [*digests, *digests[:2]]
    inputs = np.concatenate([PREPARED, PREPARED[:2]])
    (found,) = warnings(inputs, FILES, SMALL, digests=doubled)
    assert found.startswith("2 of 102 images are copies")
    assert "sha256 000000000000…" in found
    once = [*digests[:-1], digests[0]]  # 1 %
    assert not any("copies" in text for text in warnings(PREPARED, FILES, SMALL, digests=once))


def test_images_of_one_colour_are_named():
    inputs = PREPARED.copy()
    inputs[7] = np.float32([1.0, 2.0, 0.5])[:, None, None]
    found = look_at_input(statistics(inputs, FILES, SMALL), where=lambda d: f"{int(d, 16)}.jpg")
    assert found.warnings[0].startswith("1 of 100 images is of one colour (such as 7.jpg)")
    inputs[7, 2, 0, 0] = 0
    assert warnings(inputs, FILES, SMALL) == ()


def test_noise_that_was_asked_for_is_called_noise_once():
    noise = np.random.default_rng(0).normal(size=(FEWEST, 3, 16, 16))
    look = look_at_input(statistics(noise, Origin("files", "", "random:0"), SMALL))
    assert look.synthetic == "random:0"
    (found,) = look.warnings
    assert found.startswith("calibrated with random:0, which is noise")


def test_mean_and_std_over_all_values():
    inputs = np.random.default_rng(0).normal(2, 3, (5, 3, 8, 9)).astype(np.float32)
    look = look_at_input(statistics(inputs, FILES))
    np.testing.assert_allclose(look.mean, inputs.mean(axis=(0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(look.std, inputs.std(axis=(0, 2, 3)), rtol=1e-5)


def test_statistics_of_before_say_nothing():
    old = Statistics("0" * 64, "", (), {})
    assert look_at_input(old).warnings == ()


def test_roughness_of_known_images():
    ramp = np.arange(8, dtype=np.float32) * np.ones((1, 4, 8), np.float32)
    # steps of 1, variance (8² − 1)/12 = 5.25
    assert record_image("0", ramp).roughness == pytest.approx(1 / (2 * 5.25))
    stripes = np.tile(np.float32([0, 1]), (1, 4, 4))
    assert record_image("0", stripes).roughness == pytest.approx(2.0)
    assert record_image("0", np.ones((3, 4, 4), np.float32)).roughness == 0.0
    assert record_image("0", np.float32([[[1], [2]]])).roughness == 0.0


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40), st.floats(-1e4, 1e4))
def test_a_record_is_that_of_the_image(seed, height, width, level):
    image = np.random.default_rng(seed).normal(level, size=(3, height, width)).astype(np.float32)
    record = record_image("0", image)
    exact = image.astype(np.float64)
    np.testing.assert_allclose(record.mean, exact.mean(axis=(1, 2)), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(record.std, exact.std(axis=(1, 2)), rtol=1e-9, atol=1e-12)
    if image.size > 3:
        steps = sum(np.square(np.diff(exact)).mean(axis=(1, 2))) if width > 1 else 0.0
        assert record.roughness == pytest.approx(steps / (2 * sum(exact.var(axis=(1, 2)))))
    assert record.low == tuple(image.min(axis=(1, 2)).tolist())
    assert record.high == tuple(image.max(axis=(1, 2)).tolist())


def test_what_was_noted_comes_back_from_the_file(tmp_path):
    found = statistics(PREPARED[:3], Origin("inputs", SMALL.to_json(), "random:0"))
    found.write(tmp_path / "s.npz")
    back = read_statistics(tmp_path / "s.npz")
    assert (back.images, back.origin) == (found.images, found.origin)


def test_parts_merge_to_the_look_at_all():
    whole = statistics(PREPARED, FILES, SMALL)
    parts = [replace(whole, images=whole.images[i::3]) for i in (2, 0, 1)]
    assert look_at_input(merge(parts, list("abc"))) == look_at_input(whole)
