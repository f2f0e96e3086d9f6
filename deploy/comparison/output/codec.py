"""Frozen values to JSON and back, by the types of their fields.

A float is written to the digits that mean something, so that files can be diffed: decibels to
a thousandth, a cosine to eight decimals, anything else to seven digits.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from typing import Any

from deploy.numbers import json_number

__all__ = ["from_json", "to_json"]


def to_json(value: Any, name: str = "") -> Any:
    """Return a value as JSON has it.

    Args:
        value: A dataclass, mapping, tuple, text, number or None.
        name: Of the field that holds it; says how a float is rounded.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name), f.name) for f in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_json(item, name) for key, item in value.items()}
    if isinstance(value, tuple):
        return [to_json(item, name) for item in value]
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, float):
        return json_number(_rounded(value, name))
    return value


def _rounded(value: float, name: str) -> float:
    if name.endswith("_db"):
        return round(value, 3)
    return round(value, 8) if name == "cosine" else float(f"{value:.7g}")


def from_json(kind: Any, value: Any) -> Any:
    """Return the value of a type that :func:`to_json` wrote.

    A field that is missing and has a default takes that: an older Strata did not write it.

    Raises:
        KeyError: A field is missing.
        TypeError: A value of another type.
        ValueError: A number or a word that cannot be.
    """
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _optional(kind, value)
    if origin is tuple:
        return _tuple(typing.get_args(kind), value)
    if origin is Mapping:
        key, item = typing.get_args(kind)
        return {from_json(key, k): from_json(item, v) for k, v in _of(dict, value).items()}
    if is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        held = _of(dict, value)
        given = {
            f.name: from_json(hints[f.name], held[f.name])
            for f in fields(kind)
            if f.name in held or f.default is MISSING
        }
        return typing.cast("type", kind)(**given)
    if kind is float:  # NaN and infinities travel as texts
        return float(value) if isinstance(value, str) else float(_of((int, float), value))
    if kind is int:
        return _of(int, value)
    return kind(_of(str, value))


def _optional(kind: Any, value: Any) -> Any:
    """Read ``X | None`` or ``int | str``."""
    choices = typing.get_args(kind)
    if value is None and types.NoneType in choices:
        return None
    kinds = [choice for choice in choices if choice is not types.NoneType]
    if len(kinds) == 1:
        return from_json(kinds[0], value)
    return _of(tuple(kinds), value)


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    items = _of(list, value)
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(from_json(kinds[0], item) for item in items)
    return tuple(from_json(kind, item) for kind, item in zip(kinds, items, strict=True))


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{value!r} is not {kind}")
    return value
