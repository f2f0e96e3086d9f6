"""YAML out of plain values: as much of it as manifests of Kubernetes need, in a fixed order."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

__all__ = ["Yaml", "yaml_text"]

Yaml = str | int | bool | Mapping[str, "Yaml"] | Sequence["Yaml"]

# Texts that YAML reads as texts without quotes, whatever its version.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9_./-]*")
_TAKEN = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"}


def yaml_text(value: Mapping[str, Yaml]) -> str:
    """Return a document, two spaces a level."""
    return "".join(f"{line}\n" for line in _mapping(value))


def _mapping(value: Mapping[str, Yaml]) -> list[str]:
    lines = []
    for key, item in value.items():
        name = _scalar(key)
        if isinstance(item, Mapping) and item:
            lines += [f"{name}:", *(f"  {line}" for line in _mapping(item))]
        elif isinstance(item, Sequence) and not isinstance(item, str) and item:
            lines += [f"{name}:", *_sequence(item)]
        else:
            lines.append(f"{name}: {_scalar(item)}")
    return lines


def _sequence(value: Sequence[Yaml]) -> list[str]:
    lines = []
    for item in value:
        if isinstance(item, Mapping) and item:
            first, *rest = _mapping(item)
            lines += [f"- {first}", *(f"  {line}" for line in rest)]
        else:
            lines.append(f"- {_scalar(item)}")
    return lines


def _scalar(value: Yaml) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    return json.dumps(value, ensure_ascii=True)  # JSON's scalars are YAML's
