"""Unpack a bundle: plain files with checked names in a new folder, and nothing anywhere else."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from core.artifacts import write_bytes
from core.errors import OutputError
from deploy.bundle.index import INDEX
from deploy.bundle.reader import Bundle

__all__ = ["unpack"]


def unpack(bundle: Bundle, folder: Path) -> tuple[Path, ...]:
    """Write all files, each checked, into a folder that is new or empty; all or none.

    Raises:
        InputError: A file's bytes differ.
        OutputError: The folder holds something, or cannot be written.
    """
    _require_empty(folder)
    names = (INDEX, *bundle.files)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        for name in names:
            data = bundle.index.to_text().encode() if name == INDEX else bundle.read(name)
            write_bytes(beside / name, data)
        beside.replace(folder)
    except OSError as err:
        raise _unwritable(folder, err) from err
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return tuple(folder / name for name in names)


def _require_empty(folder: Path) -> None:
    try:
        taken = folder.is_symlink() or (folder.exists() and any(folder.iterdir()))
    except OSError as err:
        raise _unwritable(folder, err) from err
    if taken:
        raise OutputError(
            f"{folder}: is not an empty folder", hint="name a new one: nothing is written over"
        )


def _unwritable(folder: Path, err: OSError) -> OutputError:
    return OutputError(
        f"{folder}: cannot be written ({err.strerror or err})", hint="name a new folder"
    )
