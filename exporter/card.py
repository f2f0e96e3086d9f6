"""What an ONNX file of ours says of itself, in its ``metadata_props``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from calib_data.preprocess import PreprocessSpec
from core.errors import InputError
from core.json_text import parse_json
from exporter.quantization.channel_steps import Steps, steps_from_json, steps_to_json

__all__ = ["KEY_PREFIX", "Card"]

KEY_PREFIX = "strata."

_MOST = 3.4e38  # a float32 holds no more


@dataclass(frozen=True, slots=True)
class Card:
    """The facts that travel with a network from stage to stage.

    Attributes:
        preprocess: How an image becomes the network's input; None when nobody said.
        labels: Class names by index; empty when unknown.
        weights: Origin of the weights: ``name``, ``sha256``, ``top1``, …
        parents: Role → SHA-256 of each file that this one was made from.
        stage: ``"model"``, ``"optimized"``, ``"int8"`` or ``"fp16"``; empty for a foreign file.
        shifts: Tensor T → constant c: the file holds T as ``T.shifted`` = T − c.
        equalized: Tensor T → k of each channel: the file holds T as ``T.equalized`` =
            T / 2^(k/8), and less a constant as ``T.equalized.shifted``; (C,) int64.
        synthetic: The name of the noise it was calibrated with; empty for real images.
        caveats: What is wrong with the images it was calibrated with, a sentence each; a
            report of this file says so too.
    """

    preprocess: PreprocessSpec | None = None
    labels: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    parents: Mapping[str, str] = field(default_factory=dict)
    stage: str = ""
    shifts: Mapping[str, float] = field(default_factory=dict)
    equalized: Mapping[str, Steps] = field(default_factory=dict)
    synthetic: str = ""
    caveats: tuple[str, ...] = ()

    @property
    def cautions(self) -> tuple[str, ...]:
        """What a reader of any of its results must know, a sentence each."""
        named = not self.synthetic or any(self.synthetic in text for text in self.caveats)
        noise = () if named else (f"calibrated with {self.synthetic}, which is noise",)
        return (*noise, *self.caveats)

    def to_metadata(self) -> dict[str, str]:
        """Return the ``strata.*`` entries, sorted by key; facts nobody knows are left out."""
        facts = {
            "caveats": _texts_to_json(self.caveats),
            "equalized": json.dumps(steps_to_json(self.equalized)) if self.equalized else "",
            "labels": _texts_to_json(self.labels),
            "parents": _object_to_json(self.parents),
            "preprocess": self.preprocess.to_json() if self.preprocess else "",
            "shifts": json.dumps(dict(self.shifts)) if self.shifts else "",
            "stage": self.stage,
            "synthetic": json.dumps(self.synthetic) if self.synthetic else "",
            "weights": _object_to_json(self.weights),
        }
        return {KEY_PREFIX + key: text for key, text in facts.items() if text}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], *, where: str) -> Card:
        """Read a card back from metadata; entries of others are ignored.

        Args:
            metadata: All key–value pairs of the file.
            where: The file, for the error text.

        Raises:
            InputError: An entry of ours is not what we write.
        """
        own = {
            key.removeprefix(KEY_PREFIX): text
            for key, text in metadata.items()
            if key.startswith(KEY_PREFIX)
        }
        return cls(
            preprocess=_preprocess(own.get("preprocess"), where),
            labels=_texts(own.get("labels", "[]"), f"{where}: strata.labels"),
            weights=_object(own.get("weights", "{}"), f"{where}: strata.weights"),
            parents=_object(own.get("parents", "{}"), f"{where}: strata.parents"),
            stage=own.get("stage", ""),
            shifts=_numbers(own.get("shifts", "{}"), f"{where}: strata.shifts"),
            equalized=_steps(own.get("equalized", "[]"), f"{where}: strata.equalized"),
            synthetic=_text(own.get("synthetic", '""'), f"{where}: strata.synthetic"),
            caveats=_texts(own.get("caveats", "[]"), f"{where}: strata.caveats"),
        )


def _object_to_json(facts: Mapping[str, str]) -> str:
    """Write an object sorted by key; nothing for an empty one."""
    return json.dumps(dict(facts), ensure_ascii=False, sort_keys=True) if facts else ""


def _preprocess(text: str | None, where: str) -> PreprocessSpec | None:
    return None if not text else PreprocessSpec.from_json(text, where=f"{where}: strata.preprocess")


def _texts_to_json(texts: tuple[str, ...]) -> str:
    """Write a list; nothing for an empty one."""
    return json.dumps(texts, ensure_ascii=False) if texts else ""


def _texts(text: str, where: str) -> tuple[str, ...]:
    value = _json(text, where)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise _broken(where, "not a list of strings")
    return tuple(value)


def _text(text: str, where: str) -> str:
    value = _json(text, where)
    if not isinstance(value, str):
        raise _broken(where, "not a string")
    return value


def _object(text: str, where: str) -> dict[str, str]:
    value = _json(text, where)
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _broken(where, "not an object of strings")
    return value


def _numbers(text: str, where: str) -> dict[str, float]:
    value = _json(text, where)
    if not isinstance(value, dict) or not all(type(v) in (int, float) for v in value.values()):
        raise _broken(where, "not an object of numbers")
    try:
        numbers = {str(name): float(number) for name, number in value.items()}
    except OverflowError as err:
        raise _broken(where, f"a number too large ({err})") from err
    if not all(map(math.isfinite, numbers.values())):
        raise _broken(where, "a number that is not finite")
    if max(map(abs, numbers.values()), default=0.0) > _MOST:
        raise _broken(where, "a number that no float32 holds")
    return numbers


def _steps(text: str, where: str) -> dict[str, Steps]:
    value = _json(text, where)
    try:
        return steps_from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        raise _broken(where, f"not factors of channels ({err})") from err


def _json(text: str, where: str) -> Any:
    try:
        return parse_json(text)
    except (ValueError, RecursionError) as err:
        raise _broken(where, f"not JSON: {err}") from err


def _broken(where: str, what: str) -> InputError:
    return InputError(
        f"{where}: unreadable metadata ({what})",
        hint="make the file again, or remove its strata.* metadata entries",
    )
