"""How an image becomes a network's input: resize, centre crop, normalize.

The spec travels with the weights and in the ONNX file's metadata, so that calibration,
evaluation and deployment all prepare an image alike. Its semantics and its presets are
those of torchvision's classification weights.

Source: torchvision 0.29, transforms/_presets.py and models/resnet.py (behaviour, numbers).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from calib_data.pixels import (
    INTERPOLATIONS,
    Pixels,
    Size,
    Tensor,
    Triple,
    centre_crop,
    normalize,
    resize_to,
)
from core.errors import InputError

__all__ = ["PRESETS", "PreprocessSpec", "preprocess_option"]

_MAX_SIDE = 1 << 14  # pixels; a larger network input is a typing error


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """Resize, then crop, then (pixel / 255 − mean) / std.

    Args:
        resize: Length of the shorter side (the other keeps the aspect ratio, rounded
            down), or (height, width), or None to keep the size.
        crop: (height, width) cut from the centre, zero-padded where the image is smaller;
            or None to keep all.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos", antialiased.
        mean: R, G, B mean of pixels in [0, 1].
        std: R, G, B standard deviation of pixels in [0, 1]; positive.

    Raises:
        InputError: A field no image can be prepared by.
    """

    resize: int | Size | None
    crop: Size | None
    interpolation: str
    mean: Triple
    std: Triple

    def __post_init__(self) -> None:
        """Refuse nonsense before the first image meets it; make equal specs look equal."""
        _check_fields(self)
        for name in ("mean", "std"):  # 0, 0.0 and −0.0 are equal and must read equal
            values = tuple(float(value) + 0.0 for value in getattr(self, name))
            object.__setattr__(self, name, values)

    @property
    def input_size(self) -> Size | None:
        """(height, width) of every result; None when it depends on the image."""
        if self.crop is not None:
            return self.crop
        return self.resize if isinstance(self.resize, tuple) else None

    def to_json(self) -> str:
        """Return the spec as one line of JSON; equal specs give equal text."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, *, where: str) -> PreprocessSpec:
        """Read what :meth:`to_json` wrote.

        Args:
            text: A JSON object with all five fields.
            where: What holds the text, for the error ("model.onnx", "--preprocess").

        Raises:
            InputError: Not JSON, a field missing or unknown, or a value out of range.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as err:
            raise _bad_spec(where, f"not JSON: {err}") from err
        if not isinstance(value, dict):
            raise _bad_spec(where, f"a JSON {type(value).__name__}, not an object")
        return _from_fields(value, where)

    def apply(self, image: Pixels) -> Tensor:
        """Prepare one image.

        Args:
            image: uint8, (H, W, 3) RGB, or (H, W) grey, which gives bit for bit what its
                RGB repetition would.

        Returns:
            float32, (3, h, w).

        Raises:
            InputError: So long and thin an image that resizing it would fill the memory.
            ValueError: Another type or shape (a bug in the caller).
        """
        fits = image.ndim == 2 or image.shape[2:] == (3,)
        if image.dtype != np.uint8 or not fits or image.size == 0:
            raise ValueError(f"not an image: {image.dtype} {image.shape}")
        if self.resize is not None:
            image = resize_to(image, self.resize, self.interpolation)
        if self.crop is not None:
            image = centre_crop(image, self.crop)
        return normalize(image, self.mean, self.std)


def _check_fields(spec: PreprocessSpec) -> None:
    """Raise InputError for the first field that makes no sense."""
    where = "preprocessing"
    if not (spec.resize is None or _is_side(spec.resize) or _is_size(spec.resize)):
        raise _bad_spec(where, f"resize {spec.resize!r} is neither a length nor (height, width)")
    if not (spec.crop is None or _is_size(spec.crop)):
        raise _bad_spec(where, f"crop {spec.crop!r} is not (height, width)")
    if spec.interpolation not in tuple(INTERPOLATIONS):
        choices = ", ".join(INTERPOLATIONS)
        raise _bad_spec(where, f"interpolation {spec.interpolation!r} is none of {choices}")
    for name, values in (("mean", spec.mean), ("std", spec.std)):
        if not _is_triple(values):
            raise _bad_spec(where, f"{name} {values!r} is not three finite numbers")
    # In float32, which the network gets, a smaller std would be 0 or lose its digits.
    if not min(spec.std) > np.finfo(np.float32).tiny:
        raise _bad_spec(where, f"std {spec.std} is not positive")


def _is_side(value: object) -> bool:
    return type(value) is int and 0 < value <= _MAX_SIDE


def _is_size(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and all(map(_is_side, value))


def _is_triple(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(type(v) in (int, float) and abs(v) < 1e9 for v in value)  # no NaN, no Inf
    )


def _bad_spec(where: str, what: str) -> InputError:
    return InputError(
        f"{where}: {what}",
        hint=f"give a preset ({', '.join(PRESETS)}), or numbers: "
        "resize=232,crop=224,mean=0.485,0.456,0.406,std=0.229,0.224,0.225",
    )


def _from_fields(value: Mapping[str, Any], where: str) -> PreprocessSpec:
    """Build a spec from JSON values: all fields and no others, lists made tuples."""
    names = [field.name for field in fields(PreprocessSpec)]
    if missing := [name for name in names if name not in value]:
        raise _bad_spec(where, f"{', '.join(missing)} missing")
    if unknown := [name for name in value if name not in names]:
        raise _bad_spec(where, f"{', '.join(unknown)} unknown; the fields are {', '.join(names)}")
    tuples: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in value.items()
    }
    try:
        return PreprocessSpec(**tuples)
    except InputError as err:
        raise _bad_spec(where, err.problem.removeprefix("preprocessing: ")) from err


_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)

PRESETS: dict[str, PreprocessSpec] = {
    "imagenet-v1": PreprocessSpec(256, (224, 224), "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
    "imagenet-v2": PreprocessSpec(232, (224, 224), "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
    "fashion-mnist": PreprocessSpec((32, 32), None, "bilinear", (0.286,) * 3, (0.353,) * 3),
}


def preprocess_option(text: str) -> PreprocessSpec:
    """Read the value of ``--preprocess``.

    Args:
        text: A preset's name, the JSON of a spec, or numbers such as
            ``resize=232,crop=224,mean=0.485,0.456,0.406,std=0.229,0.224,0.225``. A single
            crop is a square, a single mean or std serves all three channels; mean and std
            have no default, because a guess would spoil every result in silence.

    Raises:
        InputError: None of these.
    """
    where = "--preprocess"
    if text in PRESETS:
        return PRESETS[text]
    if text.lstrip().startswith("{"):
        return PreprocessSpec.from_json(text, where=where)
    given: dict[str, list[str]] = {}
    for piece in text.split(","):
        name, equals, number = (part.strip() for part in piece.rpartition("="))
        if equals and name in given:
            raise _bad_spec(where, f"{name} is given twice")
        if not equals and not given:
            raise _bad_spec(where, f"{text!r} is no preset")
        given.setdefault(name if equals else next(reversed(given)), []).append(number)
    value: dict[str, Any] = {"resize": None, "crop": None, "interpolation": "bilinear"}
    value |= {name: _option_value(name, numbers, where) for name, numbers in given.items()}
    return _from_fields(value, where)


def _option_value(name: str, numbers: list[str], where: str) -> object:
    """Turn the text after ``name=`` into the field's type."""
    if name == "interpolation":
        return ",".join(numbers)
    try:
        if name in ("resize", "crop"):
            sides = tuple(int(number) for number in numbers)
            square = sides[0] if name == "resize" else sides * 2
            return square if len(sides) == 1 else sides
        values = tuple(float(number) for number in numbers)
    except ValueError as err:
        raise _bad_spec(where, f"{name}={','.join(numbers)} is not a number") from err
    return values * 3 if len(values) == 1 else values
