"""Typed access to the fields of a JSON object that somebody else may have written."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from core.errors import InputError

__all__ = ["Fields"]

T = TypeVar("T")


class Fields:
    """A JSON object; each accessor returns a value of its type or names the field at fault.

    Args:
        value: The object.
        path: The file, for the error text.
        at: Where in the file the object is (``"inputs[0]."``).
    """

    def __init__(self, value: Mapping[str, Any], path: Path, at: str = "") -> None:
        self.path = path
        self._value = value
        self._at = at

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the fields."""
        return iter(self._value)

    def _get(self, name: str, kind: type[T] | tuple[type[T], ...], what: str) -> T:
        if name not in self._value:
            raise self._wrong(name, "is missing")
        value = self._value[name]
        # bool is an int to Python, and not to a reader of JSON.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not object):
            raise self._wrong(name, f"is not {what}")
        return value

    def _wrong(self, name: str, problem: str) -> InputError:
        return InputError(
            f"{self.path}: {self._at}{name} {problem}",
            hint="restore the file, or build the engine again",
        )

    def any(self, name: str) -> Any:
        """Return whatever is there, for a reader that checks it itself."""
        return self._get(name, object, "there")

    def text(self, name: str, *, choices: tuple[str, ...] = ()) -> str:
        """Return a text; one of ``choices`` where there are any."""
        value = self._get(name, str, "a text")
        if choices and value not in choices:
            raise self._wrong(name, f"is {value!r}, none of {', '.join(choices)}")
        return value

    def digest(self, name: str) -> str:
        """Return a SHA-256, 64 hexadecimal digits."""
        value = self._get(name, str, "a SHA-256")
        if not re.fullmatch(r"[0-9a-f]{64}", value):
            raise self._wrong(name, "is not a SHA-256")
        return value

    def integer(self, name: str) -> int:
        """Return a whole number."""
        return self._get(name, int, "a whole number")

    def _list(self, name: str, kind: type[T], what: str) -> tuple[T, ...]:
        values: list[Any] = self._get(name, list, f"a list of {what}")
        if not all(isinstance(v, kind) and not isinstance(v, bool) for v in values):
            raise self._wrong(name, f"is not a list of {what}")
        return tuple(values)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        return self._list(name, str, "texts")

    def integers(self, name: str) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        return self._list(name, int, "whole numbers")

    def items(self, name: str) -> tuple[Fields, ...]:
        """Return a list of objects."""
        values: tuple[dict[str, Any], ...] = self._list(name, dict, "objects")
        return tuple(Fields(v, self.path, f"{self._at}{name}[{i}].") for i, v in enumerate(values))

    def child(self, name: str) -> Fields:
        """Return an object."""
        value: dict[str, Any] = self._get(name, dict, "an object")
        return Fields(value, self.path, f"{self._at}{name}.")

    def numbers(self, name: str) -> dict[str, float]:
        """Return an object of finite numbers."""
        child = self.child(name)
        found = {key: float(child._get(key, (int, float), "a number")) for key in child}
        for key, value in found.items():
            if not math.isfinite(value):
                raise child._wrong(key, "is not a finite number")
        return found

    def scalars(self, name: str) -> dict[str, bool | int | str | None]:
        """Return an object of flags, whole numbers, texts and nulls."""
        child = self.child(name)
        for key in child:
            if not isinstance(child._value[key], bool | int | str | None):
                raise child._wrong(key, "is not a flag, a whole number, a text or null")
        return dict(child._value)
