"""The bytes of a bundle around its files: a plain zip that can be written in one way only.

Any tool unzips it, and every byte is known from the names, sizes and CRCs of its files:
nothing is compressed (what is stored needs no bound against bombs, and another zlib gives
other bytes), nothing is dated, every entry is a plain file, and the index comes first. A
reader makes the headers again and compares: a zip that says anything else is refused.

Source: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12 and 4.3.16.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "LARGEST",
    "LOCAL_BYTES",
    "Entry",
    "archive_bytes",
    "central_parts",
    "first_entry",
    "local_header",
    "offsets",
]

LARGEST = (1 << 32) - 2  # bytes of a whole bundle; above, a zip needs headers of another form
LOCAL_BYTES = 30  # of a local header, without the name
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_VERSION = 20  # of the zip format that is needed
_UNIX = 3 << 8  # the attributes are those of Unix
_DATE = 1 << 5 | 1  # 1980-01-01, the first day that a zip can name
_PLAIN_FILE = 0o100644 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as the zip knows it: its name, its length in bytes, its CRC-32."""

    name: str
    size: int
    crc32: int


def local_header(entry: Entry) -> bytes:
    """Return what stands before a file's bytes."""
    name = entry.name.encode("ascii")
    sizes = (entry.crc32, entry.size, entry.size)
    return _LOCAL.pack(b"PK\3\4", _VERSION, 0, 0, 0, _DATE, *sizes, len(name), 0) + name


def first_entry(data: bytes) -> Entry | None:
    """Read a local header at the start of ``data``; None when there is none, or no ASCII name.

    Only its name, size and CRC are taken: whether it is one of ours is the caller's to check.
    """
    if len(data) < LOCAL_BYTES or not data.startswith(b"PK\3\4"):
        return None
    *_, crc32, _, size, length, _ = _LOCAL.unpack_from(data)
    name = data[LOCAL_BYTES : LOCAL_BYTES + length]
    return Entry(name.decode("ascii"), size, crc32) if name.isascii() else None


def offsets(entries: Sequence[Entry]) -> tuple[int, ...]:
    """Return where each entry's local header begins, and behind the last one where all end."""
    found = [0]
    for entry in entries:
        found.append(found[-1] + LOCAL_BYTES + len(entry.name) + entry.size)
    return tuple(found)


def central_parts(entries: Sequence[Entry]) -> Iterator[tuple[str, bytes]]:
    """Yield the directory at the end of the zip: (name, record) each, then ("", its end)."""
    *starts, directory = offsets(entries)
    size = 0
    for entry, start in zip(entries, starts, strict=True):
        record = _central(entry, start)
        size += len(record)
        yield entry.name, record
    count = len(entries)
    yield "", _END.pack(b"PK\5\6", 0, 0, count, count, size, directory, 0)


def _central(entry: Entry, start: int) -> bytes:
    name = entry.name.encode("ascii")
    sizes = (entry.crc32, entry.size, entry.size)
    head = (b"PK\1\2", _UNIX | _VERSION, _VERSION, 0, 0, 0, _DATE)
    return _CENTRAL.pack(*head, *sizes, len(name), 0, 0, 0, 0, _PLAIN_FILE, start) + name


def archive_bytes(entries: Sequence[Entry]) -> int:
    """Return the length of the whole zip."""
    names = sum(len(entry.name) for entry in entries)
    return offsets(entries)[-1] + _CENTRAL.size * len(entries) + names + _END.size
