import json

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from calib_data.pixels import INTERPOLATIONS
from calib_data.preprocess import PRESETS, PreprocessSpec, preprocess_option
from core.errors import InputError

IMAGENET_V1 = PRESETS["imagenet-v1"]
IMAGENET = PRESETS["imagenet-v2"]
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}

sides = st.integers(1, 40)
images = st.builds(lambda h, w: (h, w, 3), sides, sides).flatmap(
    lambda shape: arrays(np.uint8, shape)
)
triples = st.tuples(*[st.floats(-2, 2)] * 3)
positive = st.tuples(*[st.floats(0.01, 4)] * 3)
specs = st.builds(
    PreprocessSpec,
    resize=st.none() | sides | st.tuples(sides, sides),
    crop=st.none() | st.tuples(sides, sides),
    interpolation=st.sampled_from(sorted(INTERPOLATIONS)),
    mean=triples,
    std=positive,
)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# What the result looks like


@given(image=images, spec=specs)
def test_result_is_float32_of_the_declared_size_and_range(image, spec):
    assume(isinstance(spec.resize, tuple) or max(image.shape[:2]) <= 8 * min(image.shape[:2]))
    tensor = spec.apply(image)
    assert tensor.dtype == np.float32
    assert tensor.ndim == 3
    assert tensor.shape[0] == 3
    if spec.input_size is not None:
        assert tensor.shape[1:] == spec.input_size
    mean, std = np.array(spec.mean)[:, None, None], np.array(spec.std)[:, None, None]
    assert np.all(tensor >= (0 - mean) / std - 1e-4)
    assert np.all(tensor <= (1 - mean) / std + 1e-4)


@given(image=images)
def test_without_resize_and_crop_pixels_are_only_scaled(image):
    tensor = PreprocessSpec(None, None, **PLAIN).apply(image)
    assert np.array_equal(np.rint(tensor * 255).astype(np.uint8), image.transpose(2, 0, 1))


@given(image=images, spec=specs)
def test_grey_is_bit_for_bit_its_rgb_repetition(image, spec):
    assume(isinstance(spec.resize, tuple) or max(image.shape[:2]) <= 8 * min(image.shape[:2]))
    grey = np.ascontiguousarray(image[:, :, 0])
    assert np.array_equal(spec.apply(grey), spec.apply(np.repeat(grey[:, :, None], 3, axis=2)))


def test_the_image_itself_is_left_alone():
    image = noise(9, 7)
    before = image.copy()
    IMAGENET.apply(image)
    PreprocessSpec((9, 7), (9, 7), **PLAIN).apply(image)
    assert np.array_equal(image, before)


def test_a_long_thin_image_is_refused_before_it_fills_the_memory():
    with pytest.raises(InputError, match=r"10000×1 pixels would be resized to 2560000×256"):
        IMAGENET_V1.apply(np.zeros((1, 10_000, 3), np.uint8))


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
    ],
)
def test_what_is_no_image_is_a_bug(wrong):
    with pytest.raises(ValueError, match="not an image"):
        IMAGENET.apply(wrong)


# The spec as text


def test_presets_are_those_of_the_published_weights():
    assert IMAGENET_V1.resize == 256
    assert IMAGENET.resize == 232
    for preset in (IMAGENET_V1, IMAGENET):
        assert preset.crop == (224, 224)
        assert preset.interpolation == "bilinear"
        assert preset.mean == (0.485, 0.456, 0.406)
        assert preset.std == (0.229, 0.224, 0.225)
    assert PRESETS["fashion-mnist"].input_size == (32, 32)


@given(spec=specs)
def test_json_round_trip(spec):
    text = spec.to_json()
    again = PreprocessSpec.from_json(text, where="here")
    assert again == spec
    assert again.to_json() == text
    assert "\n" not in text


def test_equal_specs_give_equal_text():
    ints = PreprocessSpec(32, None, "bilinear", (0, 0, 0), (1, 1, 1))
    floats = PreprocessSpec(32, None, "bilinear", (0.0, -0.0, 0.0), (1.0, 1.0, 1.0))
    assert ints.to_json() == floats.to_json()


GOOD = json.loads(IMAGENET.to_json())


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "a JSON list, not an object"),
        ("{}", "resize, crop, interpolation, mean, std missing"),
        (GOOD | {"colour": 1}, "colour unknown"),
        (GOOD | {"resize": 0}, "resize 0"),
        (GOOD | {"resize": True}, "resize True"),
        (GOOD | {"resize": 224.0}, "resize 224.0"),
        (GOOD | {"resize": [1, 2, 3]}, "resize (1, 2, 3)"),
        (GOOD | {"resize": 10**30}, "resize 1000"),
        (GOOD | {"crop": 224}, "crop 224"),
        (GOOD | {"crop": [224, -1]}, "crop (224, -1)"),
        (GOOD | {"crop": {"a": 1}}, "crop {'a': 1}"),
        (GOOD | {"interpolation": "area"}, "interpolation 'area' is none of nearest, bilinear"),
        (GOOD | {"interpolation": {}}, "interpolation {}"),
        (GOOD | {"mean": 0.5}, "mean 0.5"),
        (GOOD | {"mean": [0.5, 0.5]}, "mean (0.5, 0.5)"),
        (GOOD | {"mean": ["a", 0, 0]}, "mean ('a', 0, 0)"),
        (GOOD | {"mean": [10**400, 0, 0]}, "mean (1000"),
        (GOOD | {"mean": [None, 0, 0]}, "mean (None, 0, 0)"),
        (GOOD | {"std": [0, 1, 1]}, "is not positive"),
        (GOOD | {"std": [-1, 1, 1]}, "is not positive"),
        (GOOD | {"std": [1e-50, 1, 1]}, "is not positive"),  # 0 in float32
        (GOOD | {"std": [float("nan"), 1, 1]}, "std (nan, 1, 1)"),
        (GOOD | {"std": [float("inf"), 1, 1]}, "std (inf, 1, 1)"),
    ],
)
def test_nonsense_is_refused_by_name(text, problem):
    text = text if isinstance(text, str) else json.dumps(text)
    with pytest.raises(InputError) as caught:
        PreprocessSpec.from_json(text, where="model.onnx")
    assert caught.value.problem.startswith("model.onnx: ")
    assert problem in caught.value.problem
    assert "imagenet-v2" in caught.value.hint


def test_a_spec_made_in_python_is_checked_too():
    with pytest.raises(InputError, match="std"):
        PreprocessSpec(None, None, "bilinear", (0, 0, 0), (0, 0, 0))


# The option


def test_option_takes_a_preset_json_or_numbers():
    assert preprocess_option("imagenet-v1") == IMAGENET_V1
    assert preprocess_option(IMAGENET.to_json()) == IMAGENET
    numbers = "resize=232, crop=224, mean=0.485,0.456,0.406, std=0.229,0.224,0.225"
    assert preprocess_option(numbers) == IMAGENET


def test_option_fills_in_what_has_only_one_meaning():
    spec = preprocess_option("resize=32,48,mean=0.5,std=0.25,interpolation=bicubic")
    assert spec == PreprocessSpec((32, 48), None, "bicubic", (0.5,) * 3, (0.25,) * 3)
    assert preprocess_option("crop=96,64,mean=0,std=1").crop == (96, 64)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "'' is no preset"),
        ("imagenet", "'imagenet' is no preset"),
        ("resize=232,crop=224", "mean, std missing"),
        ("resize=232,mean=0.5", "std missing"),
        ("size=3,mean=0,std=1", "size unknown"),
        ("resize=a,mean=0,std=1", "resize=a is not a number"),
        ("resize=,mean=0,std=1", "resize= is not a number"),
        ("resize=2.5,mean=0,std=1", "resize=2.5 is not a number"),
        ("mean=0,mean=0,std=1", "mean is given twice"),
        ("mean=0,0,std=1", "mean (0.0, 0.0)"),
        ("mean=nan,std=1", "mean (nan, nan, nan)"),
        ("mean=0,std=0", "is not positive"),
        ("resize=1,2,3,mean=0,std=1", "resize (1, 2, 3)"),
        ("mean=0,std=1,interpolation=best", "interpolation 'best'"),
        ("{}", "missing"),
    ],
)
def test_option_refuses_nonsense(text, problem):
    with pytest.raises(InputError) as caught:
        preprocess_option(text)
    assert caught.value.problem.startswith("--preprocess: ")
    assert problem in caught.value.problem
