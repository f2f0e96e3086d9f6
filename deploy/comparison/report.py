"""The values of a comparison: a row a tensor, and a report of all rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from statistics import median

from core.metrics import Difference
from deploy.images import DataRecord

__all__ = ["LayerDiff", "Made", "Measures", "Report", "Status", "Subject"]


class Status(StrEnum):
    """What became of a tensor in the comparison."""

    COMPARED = "compared"
    ONLY_IN_REFERENCE = "only in reference"
    ONLY_IN_CANDIDATE = "only in candidate"
    SHAPE_DIFFERS = "shape differs"
    NOT_NUMBERS = "not numbers"
    ELSEWHERE = "made elsewhere"  # on the other side of a cut: the networks differ in order


@dataclass(frozen=True, slots=True)
class Measures:
    """How far a tensor is from the reference's: SQNR in dB, cosine, and in its own units."""

    sqnr_db: float
    cosine: float
    max_abs: float

    @classmethod
    def of(cls, difference: Difference) -> Measures:
        """Take the measures of folded differences."""
        return cls(difference.sqnr_db, difference.cosine, difference.max_abs)

    @property
    def goodness(self) -> tuple[bool, float]:
        """Sort by this: by SQNR, and NaN before all."""
        nan = math.isnan(self.sqnr_db)
        return (not nan, 0.0 if nan else self.sqnr_db)


@dataclass(frozen=True, slots=True)
class Made:
    """How one side makes a tensor.

    Attributes:
        node: Name of the node.
        op_type: Its operator.
        dtype: Type of the elements; None when the tensor was not read.
        shape: Of the tensor, with "N" for the batch; None when it was not read.
    """

    node: str
    op_type: str
    dtype: str | None = None
    shape: tuple[int | str, ...] | None = None


@dataclass(frozen=True, slots=True)
class LayerDiff:
    """One tensor on both sides.

    Attributes:
        tensor: Its name, the same on both sides.
        status: What became of it.
        reference: How the reference makes it; None when it does not.
        candidate: How the candidate makes it; None when it does not.
        into: For a tensor that only the reference has: the next tensor that both have,
            into which it was folded.
        inherited: Both sides run freely from the same images; None when not compared.
        own: The candidate's layer is fed the reference's tensors; None when not measured.
    """

    tensor: str
    status: Status
    reference: Made | None
    candidate: Made | None
    into: str | None = None
    inherited: Measures | None = None
    own: Measures | None = None

    @property
    def op_type(self) -> str:
        """The operator that makes it, in the reference where that has it."""
        made = self.reference or self.candidate
        return made.op_type if made else ""

    @property
    def shape(self) -> tuple[int | str, ...] | None:
        """Its shape in the reference, or else in the candidate."""
        made = self.reference or self.candidate
        return made.shape if made else None


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that was compared: file name, digest, and the stage it says it is from."""

    file: str
    sha256: str
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison: what was compared, on what, and a row for every tensor in graph order."""

    reference: Subject
    candidate: Subject
    data: DataRecord
    rows: tuple[LayerDiff, ...]

    @property
    def compared(self) -> tuple[LayerDiff, ...]:
        """The rows of the tensors that both sides have."""
        return tuple(row for row in self.rows if row.inherited is not None)

    def worst(self, count: int, *, own: bool) -> tuple[LayerDiff, ...]:
        """Return the rows of lowest SQNR, worst first; equal ones in graph order.

        Args:
            count: At most so many.
            own: By their own error; by the inherited one otherwise.
        """
        rated = [
            (measures.goodness, row)
            for row in self.compared
            if (measures := row.own if own else row.inherited) is not None
        ]
        return tuple(row for _, row in sorted(rated, key=lambda pair: pair[0])[:count])

    def first_below(self, floor_db: float) -> LayerDiff | None:
        """Return the first row in graph order whose inherited SQNR is not ``floor_db`` or more."""
        return next(
            (r for r in self.compared if r.inherited and not r.inherited.sqnr_db >= floor_db), None
        )

    def median_db(self, *, own: bool) -> float | None:
        """Return the median SQNR of the tensors that differ at all.

        Infinite when none does; None when none was measured, or one holds a NaN.
        """
        measured = [row.own if own else row.inherited for row in self.compared]
        values = [measures.sqnr_db for measures in measured if measures is not None]
        if not values or any(map(math.isnan, values)):
            return None
        return median([value for value in values if value != math.inf] or [math.inf])
