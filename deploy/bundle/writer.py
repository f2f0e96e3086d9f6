"""Write a bundle: the same files give the same bytes, on any machine and at any time."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from core.artifacts import write_whole
from core.errors import InputError
from core.progress import Progress, silent
from deploy.bundle.index import INDEX, File, Index, checked_name, parse_index
from deploy.bundle.layout import Entry, central_parts, local_header

__all__ = ["Part", "write_bundle"]

Part = Path | bytes  # a file's bytes, or where they lie
_CHUNK_BYTES = 1 << 20


def write_bundle(output: Path, parts: Mapping[str, Part], *, progress: Progress = silent) -> Index:
    """Write a bundle, whole or not at all.

    Args:
        output: The file.
        parts: Name in the bundle → its bytes; the order does not matter.
        progress: Told the files written.

    Raises:
        InputError: A name that no bundle has; a file that cannot be read, or that changed
            while it was read; too much for one bundle.
        OutputError: It cannot be written.
    """
    named = sorted((checked_name(file, str(output)), part) for file, part in parts.items())
    index = Index(tuple(_file(file, part) for file, part in named))
    text = index.to_text().encode()
    parse_index(text, output)  # what is written can be read
    entries = [Entry(INDEX, len(text), zlib.crc32(text)), *(file.entry for file in index.files)]
    with write_whole(output) as temporary, temporary.open("wb") as stream:
        stream.write(local_header(entries[0]) + text)
        for done, (file, (_, part)) in enumerate(zip(index.files, named, strict=True)):
            progress(done, len(named), file.name)
            stream.write(local_header(file.entry))
            _copy(part, file, stream)
        stream.writelines(record for _, record in central_parts(entries))
    progress(len(named), len(named))
    return index


def _file(name: str, part: Part) -> File:
    digest, crc32, size = hashlib.sha256(), 0, 0
    for chunk in _chunks(part):
        digest.update(chunk)
        crc32 = zlib.crc32(chunk, crc32)
        size += len(chunk)
    return File(name, size, crc32, digest.hexdigest())


def _copy(part: Part, file: File, stream: BinaryIO) -> None:
    """Copy a file; its digest is in the index by now, so it must not have changed."""
    digest = hashlib.sha256()
    for chunk in _chunks(part):
        digest.update(chunk)
        stream.write(chunk)
    if digest.hexdigest() != file.sha256:
        raise InputError(
            f"{part if isinstance(part, Path) else file.name}: changed while it was bundled",
            hint="wait until whatever writes it is done, and bundle again",
        )


def _chunks(part: Part) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part
        return
    try:
        with part.open("rb") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                yield chunk
    except OSError as err:
        raise InputError(
            f"{part}: cannot be read ({err.strerror})", hint="check its permissions"
        ) from err
