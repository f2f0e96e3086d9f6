"""Whether results can be written, asked before the work that they are of."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from core.errors import InputError, OutputError

__all__ = ["require_outputs"]


def require_outputs(outputs: Sequence[Path], inputs: Sequence[Path] = ()) -> None:
    """Refuse a place that nothing can be written to, and one that the work is made from.

    What cannot be known in advance (a disk that fills up) is found when the file is written.

    Args:
        outputs: Files that are to be written; folders of theirs that are missing will be made.
        inputs: Files that they are made from; what is no file is passed over.

    Raises:
        OutputError: A folder is there, or the folder of one takes no files.
        InputError: It is one of the inputs, or two outputs are one file.
    """
    read = {os.path.realpath(path): path for path in inputs}
    written: dict[str, Path] = {}
    for output in outputs:
        real = os.path.realpath(output)  # no error where links go round
        if real in read:
            raise InputError(
                f"{output}: would be written over {read[real]}, which it is made from",
                hint="name another file for it",
            )
        if real in written:
            raise InputError(
                f"{output}: two results would be written to it", hint="name a file for each"
            )
        written[real] = output
        _require_place(output, Path(real))


def _require_place(output: Path, real: Path) -> None:
    """Refuse a place that takes no file; a device and a pipe are written to as they are."""
    try:
        if real.is_dir():
            raise IsADirectoryError(None, "a folder is there")
        if real.exists() and not real.is_file():
            return
        folder = next(folder for folder in real.parents if folder.exists())
        with tempfile.TemporaryFile(dir=folder):  # has no name, where the system can do that
            pass
    except OSError as err:
        raise OutputError(
            f"{output}: cannot be written ({err.strerror})",
            hint="free some space, or name another place with -o",
        ) from err
