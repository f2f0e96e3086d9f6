"""Read a bundle without unpacking it, and trust nothing in it that was not checked.

Opening checks the index and every byte around the files; reading a file checks its digest.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import BinaryIO

from core.artifacts import sha256_bytes
from core.errors import InputError
from deploy.bundle.index import INDEX, MOST_BYTES, File, Index, parse_index
from deploy.bundle.layout import (
    LOCAL_BYTES,
    Entry,
    archive_bytes,
    central_parts,
    first_entry,
    local_header,
    offsets,
)

__all__ = [
    "Bundle",
    "Problem",
    "frame_problems",
    "is_bundle",
    "open_bundle",
    "open_file",
    "read_index",
]

_COPY_AGAIN = "copy it again whole, or make it again with strata bundle"


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a file of a bundle; ``file`` is empty for the end of the zip."""

    file: str
    what: str

    def __str__(self) -> str:
        """Return ``labels.json: its bytes differ``."""
        return f"{self.file or 'the end of the zip'}: {self.what}"


class Bundle:
    """An open bundle; a context manager. One thread at a time.

    Attributes:
        path: The file.
        index: What is in it.
        sha256: Digest of the index, which names the digests of all else: its identity.
        files: Name → what the index says of it.
    """

    def __init__(self, path: Path, stream: BinaryIO, index: Index) -> None:
        self.path = path
        self.index = index
        text = index.to_text().encode()
        self.sha256 = sha256_bytes(text)
        self.files = MappingProxyType({file.name: file for file in index.files})
        _, *starts = offsets([Entry(INDEX, len(text), 0), *(file.entry for file in index.files)])
        self._starts = dict(zip(self.files, starts, strict=False))
        self._stream = stream

    def __enter__(self) -> Bundle:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._stream.close()

    def __contains__(self, name: object) -> bool:
        """Tell whether a file of that name is in it."""
        return name in self.files

    def read(self, name: str) -> bytes:
        """Return a file's bytes, which are those that the index names the digest of.

        Raises:
            InputError: No such file in it, or its bytes differ.
        """
        file = self.files.get(name)
        if file is None:
            raise InputError(
                f"{self.path}: holds no {name}", hint="`strata inspect` lists what a bundle holds"
            )
        data = self._raw(file)
        if len(data) != file.bytes or sha256_bytes(data) != file.sha256:
            raise InputError(
                f"{self.path}: {name}: its bytes are not those that the index names",
                hint=f"do not use it: {_COPY_AGAIN}",
            )
        return data

    def _raw(self, file: File) -> bytes:
        try:
            self._stream.seek(self._starts[file.name] + LOCAL_BYTES + len(file.name))
            return self._stream.read(file.bytes)
        except OSError as err:
            raise _unreadable(self.path, err) from err


def is_bundle(path: Path) -> bool:
    """Tell whether a file looks like a bundle: a zip whose first entry is the index."""
    try:
        with open_file(path) as stream:
            first = first_entry(stream.read(LOCAL_BYTES + len(INDEX)))
    except (InputError, OSError):
        return False
    return first is not None and first.name == INDEX


def open_file(path: Path) -> BinaryIO:
    """Open what may be a bundle.

    Raises:
        InputError: It is no file, or cannot be read.
    """
    if path.exists() and not path.is_file():  # a pipe or a device would be waited for
        raise InputError(f"{path}: is not a file", hint="name a bundle; strata bundle makes one")
    try:
        return path.open("rb")
    except OSError as err:
        raise _unreadable(path, err) from err


def open_bundle(path: Path) -> Bundle:
    """Open a bundle; its index and all bytes around its files are checked.

    Raises:
        InputError: It cannot be read, is no bundle, or is damaged; the file is named.
    """
    with ExitStack() as stack:
        stream = stack.enter_context(open_file(path))
        index = read_index(stream, path)
        for problem in frame_problems(stream, index, path):
            raise InputError(f"{path}: {problem}", hint=_COPY_AGAIN)
        stack.pop_all()
        return Bundle(path, stream, index)


def read_index(stream: BinaryIO, path: Path) -> Index:
    """Read the index at the start of an open file.

    Raises:
        InputError: There is none, or it is damaged.
    """
    head = _at(stream, 0, LOCAL_BYTES + len(INDEX), path)
    first = first_entry(head)
    if first is None or first.name != INDEX:
        raise InputError(f"{path}: {_not_ours(head, first)}", hint="strata bundle makes a bundle")
    if local_header(first) != head or first.size > MOST_BYTES:
        raise InputError(f"{path}: {INDEX}: its header differs", hint=_COPY_AGAIN)
    data = _at(stream, len(head), first.size, path)
    if len(data) < first.size or zlib.crc32(data) != first.crc32:
        raise InputError(f"{path}: {INDEX}: its bytes differ", hint=_COPY_AGAIN)
    return parse_index(data, path)


def _not_ours(head: bytes, first: Entry | None) -> str:
    if not head.startswith(b"PK"):
        return f"not a bundle: no zip, or one whose first entry, {INDEX}, is damaged"
    what = f"is {first.name!r}" if first is not None else "cannot be read"
    return f"not a bundle as strata bundle writes it: its first entry is not {INDEX}, but {what}"


def frame_problems(stream: BinaryIO, index: Index, path: Path) -> Iterator[Problem]:
    """Yield what differs in the bytes around the files, in their order."""
    text = index.to_text().encode()
    entries = [Entry(INDEX, len(text), zlib.crc32(text)), *(file.entry for file in index.files)]
    size = os.fstat(stream.fileno()).st_size
    whole = archive_bytes(entries)
    if size != whole:
        what = "truncated" if size < whole else "too long"
        yield Problem("", f"the bundle is {what}: {size} bytes of {whole}")
    *starts, at = offsets(entries)
    for entry, start in zip(entries, starts, strict=True):
        expected = local_header(entry)
        if _at(stream, start, len(expected), path) != expected:
            yield Problem(entry.name, "its header differs")
    for name, expected in central_parts(entries):
        if _at(stream, at, len(expected), path) != expected:
            yield Problem(name, "its entry in the directory differs" if name else "it differs")
        at += len(expected)


def _at(stream: BinaryIO, start: int, count: int, path: Path) -> bytes:
    try:
        stream.seek(start)
        return stream.read(count)
    except OSError as err:
        raise _unreadable(path, err) from err


def _unreadable(path: Path, err: OSError) -> InputError:
    return InputError(
        f"{path}: cannot be read ({err.strerror})", hint="name a bundle; strata bundle makes one"
    )
