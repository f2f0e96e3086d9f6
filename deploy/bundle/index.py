"""The index of a bundle: ``index.json``, the first file in it, which names all others.

It holds the length, CRC-32 and SHA-256 of each, and so, with :mod:`~deploy.bundle.layout`,
says every byte of the bundle but those of the files, and the digest of these. There is one
text for one index: what would be written otherwise is no index.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import InputError
from deploy.bundle.layout import LARGEST, Entry, archive_bytes
from deploy.engines.manifest_fields import Fields

__all__ = ["INDEX", "MOST_BYTES", "SCHEMA", "File", "Index", "checked_name", "parse_index"]

SCHEMA = "strata.bundle/1"
INDEX = "index.json"
MOST_BYTES = 1 << 20  # of the index itself
_MOST_FILES = 1000
_MOST_CHARACTERS = 200
# No "..", no root, no drive, no control characters.
_PART = r"[A-Za-z0-9_+](?:[A-Za-z0-9._+-]*[A-Za-z0-9_+-])?"
_NAME = re.compile(rf"{_PART}(?:/{_PART})*")


@dataclass(frozen=True, slots=True)
class File:
    """One file of a bundle; its name has parts divided by ``/``."""

    name: str
    bytes: int
    crc32: int
    sha256: str

    @property
    def entry(self) -> Entry:
        """The file as the zip knows it."""
        return Entry(self.name, self.bytes, self.crc32)


@dataclass(frozen=True, slots=True)
class Index:
    """What is in a bundle: all files but the index, in the order of their names."""

    files: tuple[File, ...]

    def to_text(self) -> str:
        """Return the one text of this index."""
        files = [
            {"name": f.name, "bytes": f.bytes, "crc32": f"{f.crc32:08x}", "sha256": f.sha256}
            for f in self.files
        ]
        return json.dumps({"schema": SCHEMA, "files": files}, indent=2) + "\n"


def checked_name(name: str, where: str) -> str:
    """Return the name of a file in a bundle, once it is one that leads nowhere else.

    Raises:
        InputError: A path out of a folder, or one that some system reads differently.
    """
    if len(name) <= _MOST_CHARACTERS and _NAME.fullmatch(name):
        return name
    raise InputError(
        f"{where}: {name[:_MOST_CHARACTERS]!r} is no name for a file in a bundle",
        hint="parts of letters, digits and ._+- divided by /, none of which starts or ends with "
        "a dot; do not unpack a bundle that has another",
    )


def parse_index(data: bytes, path: Path) -> Index:
    """Read an index.

    Args:
        data: The bytes of ``index.json``.
        path: The bundle, for the error text.

    Raises:
        InputError: Not an index, one of another schema, or one with a name, a number or an
            order that no bundle has.
    """
    value = _json(data, path)
    fields = Fields(value, path, f"{INDEX}: ")
    schema = fields.text("schema")
    if schema != SCHEMA:
        raise InputError(
            f"{path}: {INDEX}: of schema {schema!r}, not {SCHEMA!r}",
            hint="use the Strata that wrote it, or make the bundle again with strata bundle",
        )
    index = Index(tuple(_file(item, path) for item in fields.items("files")))
    _check(index, data, path)
    return index


def _json(data: bytes, path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as err:
        raise _broken(path, f"not JSON: {err}") from err
    if not isinstance(value, dict):
        raise _broken(path, f"a JSON {type(value).__name__}, not an object")
    return value


def _file(item: Fields, path: Path) -> File:
    crc32 = item.text("crc32")
    if not re.fullmatch(r"[0-9a-f]{8}", crc32):
        raise _broken(path, f"crc32 {crc32[:20]!r} is not 8 hexadecimal digits")
    name = checked_name(item.text("name"), str(path))
    size = item.integer("bytes")
    if not 0 <= size <= LARGEST:
        raise _broken(path, f"{name} of {size} bytes; a bundle has at most {LARGEST}")
    return File(name, size, int(crc32, 16), item.digest("sha256"))


def _check(index: Index, data: bytes, path: Path) -> None:
    """Refuse what no writer of ours writes."""
    if len(index.files) > _MOST_FILES:
        raise _broken(path, f"{len(index.files)} files; a bundle has at most {_MOST_FILES}")
    names = [file.name for file in index.files]
    if names != sorted(set(names)):
        raise _broken(path, "its files are not in the order of their names, each once")
    if clash := _clash([INDEX, *names]):
        raise _broken(path, f"{clash[0]} and {clash[1]} would be one file, or a file and a folder")
    entries = [Entry(INDEX, len(data), 0), *(file.entry for file in index.files)]
    if archive_bytes(entries) > LARGEST:
        raise _broken(path, f"its files are more than {LARGEST} bytes together")
    if index.to_text().encode() != data:
        raise _broken(path, "not written as strata bundle writes it")


def _clash(names: list[str]) -> tuple[str, str] | None:
    """Return two names that a file system may not hold both of."""
    seen: dict[str, str] = {}
    for name in names:
        if name.lower() in seen:
            return seen[name.lower()], name
        seen[name.lower()] = name
    for name in names:
        for parent in _parents(name.lower()):
            if parent in seen:
                return seen[parent], name
    return None


def _parents(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _broken(path: Path, why: str) -> InputError:
    return InputError(
        f"{path}: {INDEX}: broken or not ours: {why}",
        hint="copy the bundle again whole, or make it again with strata bundle",
    )
