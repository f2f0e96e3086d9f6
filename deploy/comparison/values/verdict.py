"""What a comparison concludes: which layers offend, why as far as can be told, what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Blame", "Bounds", "Reason", "Verdict"]


class Reason(StrEnum):
    """Why a layer is to blame."""

    SHAPE = "other shape"
    NOT_FINITE = "NaN or Inf"
    OVERFLOW = "overflow"
    WEIGHT = "wrong weight"
    CHANNEL = "wrong channel"
    BIAS = "wrong bias"
    SCALES = "two scales"  # Q and DQ of one tensor disagree
    ZERO_POINT = "zero point"
    MISSING_Q = "missing Q"
    CLIPPING = "clipping"
    TOO_WIDE = "range too wide"
    SPREAD = "spread of channels"  # one scale for channels of very different ranges
    CODES = "codes differ"
    ERROR = "own error"  # larger than rounding explains, and nothing tells why


@dataclass(frozen=True, slots=True)
class Blame:
    """A layer that does more harm than its precision and scales explain.

    Attributes:
        tensor: The tensor where it shows.
        node: The layer that makes it, as ``--exclude`` takes it.
        reason: Why.
        excess_db: By how much its error exceeds what is explained; infinite for NaN.
        text: A sentence with the values seen.
        next_step: What to do.
    """

    tensor: str
    node: str
    reason: Reason
    excess_db: float
    text: str
    next_step: str


def _excess_db() -> dict[str, float]:
    return {"INT8": 6.0, "FP16": 12.0, "FP32": 20.0}


def _own_db() -> dict[str, float]:
    return {"INT8": 12.0, "FP16": 40.0, "FP32": 80.0}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a layer may do, by the precision it computes in.

    Attributes:
        excess_db: Precision → by how much its own error may exceed what rounding explains.
        own_db: Precision → own SQNR that is asked of a layer whose rounding is not known.
        floor_db: Inherited SQNR that is asked of every tensor; None for none.
    """

    excess_db: Mapping[str, float] = field(default_factory=_excess_db)
    own_db: Mapping[str, float] = field(default_factory=_own_db)
    floor_db: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The conclusion of one step.

    Attributes:
        first: The first tensor in graph order that breaks a bound of its own; None if none.
        blame: All layers that do, worst first.
        first_below: The first tensor whose inherited SQNR is under ``floor_db``; None if none.
    """

    first: str | None = None
    blame: tuple[Blame, ...] = ()
    first_below: str | None = None

    @property
    def holds(self) -> bool:
        """Whether all bounds hold."""
        return self.first is None and self.first_below is None
