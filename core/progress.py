"""How a stage tells the command line how far it got, without knowing who listens."""

from __future__ import annotations

from typing import Protocol

__all__ = ["Progress", "silent"]


class Progress(Protocol):
    """Called by a stage after each unit of work, from the thread that does the work."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Report ``done`` of ``total`` units, with an optional short note."""


def silent(done: int, total: int, note: str = "") -> None:
    """Report to nobody: the default of every stage."""
    del done, total, note
