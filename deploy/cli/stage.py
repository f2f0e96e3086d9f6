"""A command that writes files: before it begins it is known that it can, and over nothing it reads.

An option that names such a file is of the type :data:`OUTPUT`; every other value that is the
path of a file counts as read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from core.outputs import require_outputs

__all__ = ["OUTPUT", "Stage"]


class _Output(click.Path):
    """The path of a file to write; ``-`` is stdout."""


OUTPUT = _Output(path_type=Path, allow_dash=True)


class Stage(click.Command):
    """A command whose options of type :data:`OUTPUT` are looked at before it runs."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, once its files can be written.

        Raises:
            OutputError: One of them cannot be.
            InputError: It would be written over what the command reads.
        """
        written: list[str] = []
        read: list[str] = []
        for parameter in self.params:
            found = list(_texts(ctx.params.get(parameter.name or "")))
            (written if isinstance(parameter.type, _Output) else read).extend(found)
        outputs = [Path(text) for text in written if text != "-"]
        require_outputs(outputs, [path for text in read for path in _files(text)])
        return super().invoke(ctx)


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts and paths in an option's value."""
    if isinstance(value, str | Path):
        yield str(value)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _texts(item)


def _files(text: str) -> Iterator[Path]:
    """Yield the files that a text may name: ``a.onnx``, ``torch:a.pth``, ``ENTRY=a.onnx``."""
    for said in {text, text.partition(":")[2], text.partition("=")[2]} - {""}:
        with suppress(OSError):  # a name too long, a folder that may not be looked into
            if Path(said).is_file():
                yield Path(said)
