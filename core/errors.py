"""The error tree. Every failure a user can cause or mend is one of these.

StrataError (1)
├── InputError (2)           a file, option or data set that cannot be used as given
├── MissingBackendError (3)  a library or device that is not here
├── CalibrationError (4)     statistics no scale can be taken from
├── GraphError (5)           a network that cannot be exported, rewritten or quantized
├── BuildError (6)           TensorRT refused the network or the target
├── AccuracyError (7)        a check ran, and what it measured is out of bounds
├── OutputError (8)          the result could not be written
├── UndecidedError (9)       a check ran, and its images are too few to tell
├── DriftError (10)          a check cannot be held against its baseline, because it is of
│   ├── ImageDriftError (11)       other images
│   ├── LabelDriftError (12)       other labels
│   ├── PreprocessDriftError (13)  images prepared in another way
│   ├── ModelDriftError (14)       another model
│   └── EditedBaselineError (15)   or not what was measured
└── Interrupted (130)        Ctrl-C or SIGTERM

The number is the exit code of the command line. Exit code 1 is kept for bugs.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccuracyError",
    "BuildError",
    "CalibrationError",
    "DriftError",
    "EditedBaselineError",
    "GraphError",
    "ImageDriftError",
    "InputError",
    "Interrupted",
    "LabelDriftError",
    "MissingBackendError",
    "ModelDriftError",
    "OutputError",
    "PreprocessDriftError",
    "StrataError",
    "UndecidedError",
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


class UndecidedError(StrataError):
    """A check ran to its end, and cannot tell with this many images."""

    exit_code = 9


class DriftError(StrataError):
    """What a check runs on is not what its baseline was measured on: no regression is meant."""

    exit_code = 10
    kind: ClassVar[str] = "drift"


class ImageDriftError(DriftError):
    """An image is not one of the baseline's, or one of them is gone."""

    exit_code = 11
    kind = "other images"


class LabelDriftError(DriftError):
    """The images are the baseline's, their labels are not."""

    exit_code = 12
    kind = "other labels"


class PreprocessDriftError(DriftError):
    """The images are prepared in another way than the baseline's were."""

    exit_code = 13
    kind = "other preprocessing"


class ModelDriftError(DriftError):
    """The baseline is that of another model."""

    exit_code = 14
    kind = "another model"


class EditedBaselineError(DriftError):
    """The baseline, or the answers beside it, were changed after they were measured."""

    exit_code = 15
    kind = "edited baseline"


class Interrupted(StrataError):  # noqa: N818 - it is a request, not an error
    """The user stopped the command; nothing half-written is left behind."""

    exit_code = 130
