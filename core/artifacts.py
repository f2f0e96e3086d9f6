"""Files that are written whole or not at all, and that know what they were made from.

An artifact is written to a hidden temporary file beside its final place, flushed to
the disk and renamed over the old one. Whatever stops the process, a reader sees the
old file or the new one, never a part. A link is followed, and a device or a pipe
(``/dev/stdout``) is written to, never replaced.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from core.errors import InputError, OutputError
from core.json_text import parse_json

__all__ = [
    "read_json",
    "regular",
    "require_parent",
    "sha256_bytes",
    "sha256_file",
    "write_bytes",
    "write_json",
    "write_text",
    "write_whole",
]

_CHUNK_BYTES = 1 << 20


def sha256_bytes(data: bytes) -> str:
    """Return the SHA-256 of ``data`` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def regular(path: Path, *, pipe: bool = False) -> Path:
    """Return the path, once nothing is there that reading would wait for, or never end.

    Args:
        path: What is about to be read.
        pipe: A pipe will do: what is read once, such as a shell's ``<(command)``.

    Raises:
        OSError: A device, a socket, or a pipe; or it cannot be looked at.
    """
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or (pipe and stat.S_ISFIFO(mode))):
        raise OSError(errno.EINVAL, "a pipe, a device or a socket, not a file")
    return path


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hexadecimal digits.

    Raises:
        InputError: The file is missing or cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with regular(path).open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})", hint="check the path and its permissions"
        ) from err
    return digest.hexdigest()


@contextmanager
def write_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to ``path`` once the block ends without error.

    Raises:
        OutputError: The folder cannot be made, or the file cannot be written.
    """
    try:
        with _through(path) if _is_special(path) else _renamed(path) as temporary:
            yield temporary
    except OSError as err:
        raise OutputError(
            f"{path}: cannot be written ({err.strerror or err})",
            hint="free some space, or name another place with -o",
        ) from err


def _is_special(path: Path) -> bool:
    """Tell whether a device, a pipe or a socket is there, which a rename would do away with."""
    with suppress(OSError):
        mode = path.stat().st_mode
        return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return False


@contextmanager
def _renamed(path: Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path``, or beside what it links to; rename it at the end."""
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def _through(path: Path) -> Iterator[Path]:
    """Yield a temporary file elsewhere; copy it into ``path`` once it is whole."""
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        with temporary.open("rb") as whole, path.open("wb") as device:
            shutil.copyfileobj(whole, device)


def _remove_abandoned(path: Path) -> None:
    """Remove what a process that was killed while writing ``path`` left behind."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        pid = leftover.name.removesuffix(".tmp").rpartition(".")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            leftover.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    """Tell whether a process of this number runs (it may belong to somebody else)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    with write_whole(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` to ``path``, whole or not at all.

    Raises:
        OutputError: It cannot be written.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write ``value`` as JSON made for reading and for diffs.

    NaN and infinities are refused: JSON has no word for them.

    Raises:
        OutputError: It cannot be written.
        ValueError: A float is NaN or infinite (a bug in the caller).
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        what: What it is, for the error text (``"calibration table"``).

    Raises:
        InputError: Missing, unreadable, not JSON, or not an object.
    """
    try:
        value = parse_json(regular(path, pipe=True).read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})",
            hint=f"name an existing {what}; the stage before this one writes it",
        ) from err
    except (ValueError, RecursionError) as err:
        raise InputError(
            f"{path}: not a {what} (not JSON: {err})", hint="remove it and make it again"
        ) from err
    if not isinstance(value, dict):
        raise InputError(
            f"{path}: not a {what} (a JSON {type(value).__name__}, not an object)",
            hint="remove it and make it again",
        )
    return value


def require_parent(child: Path, role: str, recorded: str | None, parent: Path) -> None:
    """Refuse a child that was made from another parent.

    Args:
        child: The artifact that recorded its parent's digest.
        role: What the parent is to the child (``"model"``, ``"statistics"``).
        recorded: The digest in the child; None when it has none.
        parent: The file at hand.

    Raises:
        InputError: No digest was recorded, or it is not the parent's.
    """
    if recorded is None:
        raise InputError(
            f"{child}: does not say which {role} it was made from",
            hint=f"make {child.name} again from {parent}",
        )
    actual = sha256_file(parent)
    if recorded != actual:
        raise InputError(
            f"{child}: made from another {role} (sha256 {recorded[:12]}…; "
            f"{parent} is {actual[:12]}…)",
            hint=f"make {child.name} again from {parent}, or name the {role} it was made from",
        )
