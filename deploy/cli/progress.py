"""Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from core.progress import Progress

__all__ = ["progress_bar"]

_QUIET_SECONDS = 10.0  # between two lines where there is no terminal to redraw


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """Yield a :class:`~core.progress.Progress` that draws ``what`` on stderr."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with RichProgress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=None, note="")

            def draw(done: int, total: int, note: str = "") -> None:
                bar.update(task, completed=done, total=total, note=note)

            yield draw
        return

    start = last = time.monotonic()

    def say(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _QUIET_SECONDS:
            last = now
            left = (now - start) / done * (total - done) if done else 0.0
            eta = f", {left:.0f} s left" if left else ""
            console.print(f"{what}: {done}/{total}{eta} {note}".rstrip(), highlight=False)

    yield say
