"""What the system refuses while a command runs: a path, a disk, an output that is full."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress

from core.errors import InputError, OutputError, StrataError

__all__ = ["failure_of", "flush_streams", "forgive_characters"]

_PATH = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EIO, errno.EROFS}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def failure_of(err: OSError) -> StrataError | None:
    """Return the failure that a user can mend; None for a bug, which keeps its traceback."""
    if err.errno in _FULL:
        where = err.filename or "the output, or a temporary file"
        return OutputError(
            f"{where}: cannot be written ({err.strerror})",
            hint="free some space, or send it to another place",
        )
    if err.errno in _PATH and err.filename is not None:
        return InputError(
            f"{os.fsdecode(err.filename)}: cannot be used ({err.strerror})",
            hint="check the path and its permissions",
        )
    return None


def forgive_characters() -> None:
    """Let a character that the terminal's encoding lacks be written by its number.

    A table holds ``×`` and ``…``, a name any character; in JSON the number means the same.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def flush_streams() -> None:
    """Write what is left, or let it go: Python would fail on it again while it ends."""
    for stream in (sys.stdout, sys.stderr):
        if stream is None:  # closed by the shell: strata … >&-
            continue
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
