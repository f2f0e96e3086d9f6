"""The error tree. Every failure a user can cause or mend is one of these.

StrataError (1)
├── InputError (2)           a file, option or data set that cannot be used as given
├── MissingBackendError (3)  a library or device that is not here
├── CalibrationError (4)     statistics no scale can be taken from
├── GraphError (5)           a network that cannot be exported, rewritten or quantized
├── BuildError (6)           TensorRT refused the network or the target
├── AccuracyError (7)        a check ran, and what it measured is out of bounds
├── OutputError (8)          the result could not be written
└── Interrupted (130)        Ctrl-C or SIGTERM

The number is the exit code of the command line. Exit code 1 is kept for bugs.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccuracyError",
    "BuildError",
    "CalibrationError",
    "GraphError",
    "InputError",
    "Interrupted",
    "MissingBackendError",
    "OutputError",
    "StrataError",
]


class StrataError(Exception):
    """A failure the reader can act on: what is wrong and where, then what to do.

    Args:
        problem: What is wrong, where (file, tensor, layer) and the value seen.
        hint: The next step, an instruction the reader can follow.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, problem: str, *, hint: str) -> None:
        super().__init__(problem)
        self.problem = problem
        self.hint = hint

    def __str__(self) -> str:
        """Return the problem, and below it the hint."""
        return f"{self.problem}\n  hint: {self.hint}"


class InputError(StrataError):
    """A file, an option or a data set cannot be used as given."""

    exit_code = 2


class MissingBackendError(StrataError):
    """A library, a flavour or a device that the request needs is not here."""

    exit_code = 3


class CalibrationError(StrataError):
    """No usable scale can be taken: NaN, Inf, empty or all-zero statistics."""

    exit_code = 4


class GraphError(StrataError):
    """A network cannot be exported, rewritten or quantized as asked."""

    exit_code = 5


class BuildError(StrataError):
    """TensorRT refused the network, the profile or the target."""

    exit_code = 6


class AccuracyError(StrataError):
    """A check ran to its end, and what it measured is out of bounds."""

    exit_code = 7


class OutputError(StrataError):
    """A result could not be written: no space, no permission, no such folder."""

    exit_code = 8


class Interrupted(StrataError):  # noqa: N818 - it is a request, not an error
    """The user stopped the command; nothing half-written is left behind."""

    exit_code = 130
