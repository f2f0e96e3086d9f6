"""What is measured of one tensor: on each side, and between two sides."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Cell", "Codes", "Errors", "Explained", "Histogram", "Made", "Place", "Status"]


class Status(StrEnum):
    """What became of a tensor in one step of a comparison."""

    COMPARED = "compared"
    ONLY_IN_REFERENCE = "only in reference"
    ONLY_IN_CANDIDATE = "only in candidate"
    SHAPE_DIFFERS = "shape differs"
    SHAPE_VARIES = "shape varies"  # from image to image
    NOT_NUMBERS = "not numbers"
    ELSEWHERE = "made elsewhere"  # on the other side of a cut: the networks differ in order
    ABSENT = "absent"  # neither side of this step has it
    NOT_REACHED = "not reached"  # behind the first offence, with --until-first


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a tensor: the image's index in the data, and (channel, y, x) or fewer."""

    image: int
    index: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Errors:
    """How far a tensor is from the reference's.

    Attributes:
        sqnr_db: 10·log10(Σr² / Σ(r−c)²); infinite when equal, NaN with any NaN or Inf.
        cosine: Σr·c / √(Σr²·Σc²).
        max_abs: Largest |r − c|, in the tensor's own units.
        at: Where that is; None when nothing differs, or when it is not known.
    """

    sqnr_db: float
    cosine: float
    max_abs: float
    at: Place | None = None

    @property
    def goodness(self) -> tuple[bool, float]:
        """Sort by this: by SQNR, and NaN before all."""
        nan = math.isnan(self.sqnr_db)
        return (not nan, 0.0 if nan else self.sqnr_db)


@dataclass(frozen=True, slots=True)
class Explained:
    """The own error, held against what the layer's precision and scales account for.

    Attributes:
        expected_db: SQNR that its rounding leaves, computed from the scales, the weights and
            the statistics of its inputs; None when that is not known for such a layer.
        excess_db: By how much the own error is larger, in the tensor or in its worst channel;
            None when it is not known. Around 0 for a layer that only rounds.
        channel: The channel that exceeds most, when one alone stands out.
    """

    expected_db: float | None
    excess_db: float | None
    channel: int | None = None


@dataclass(frozen=True, slots=True)
class Codes:
    """The INT8 codes of a tensor that the candidate quantizes.

    Attributes:
        scale: Real units a code; of a tensor with factors, units in which it is held.
        shift: What is taken off the tensor before (full-range INT8); 0 for most.
        factors: Smallest and largest of its channels' factors (equalization): a channel with
            factor f holds codes of f · scale real units. (1, 1) for most.
        equal: Share of codes that both sides give alike, when both run freely.
        largest: Largest difference between them, in codes.
        own_equal: The same when the candidate's layer is fed the reference's tensors.
        own_largest: The same.
        saturated: Share of the reference's values beyond the largest code.
        rounding_db: SQNR that quantizing the reference's tensor leaves.
        best_amax: The amax that would have left least noise on these images.
        regret_db: By how much less: 0 when the chosen one is as good.
    """

    scale: float
    shift: float
    factors: tuple[float, float]
    equal: float
    largest: int
    own_equal: float | None
    own_largest: int | None
    saturated: float
    rounding_db: float
    best_amax: float
    regret_db: float

    @property
    def amax(self) -> float:
        """Largest magnitude that the codes can hold, before any factor."""
        return 127.0 * self.scale


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts of both sides' values in equal bins; the outer bins hold all that lies beyond.

    Attributes:
        low: Lower edge of the first bin.
        high: Upper edge of the last.
        reference: Counts, as many as there are bins.
        candidate: The same of the candidate.
    """

    low: float
    high: float
    reference: tuple[int, ...]
    candidate: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A tensor as one model makes it.

    Attributes:
        node: Name of the node or module.
        op: Its operator.
        dtype: Type of the elements; None when the tensor was not read.
        shape: With "N" for the batch; None when it was not read.
        precision: What the layer computes in: "INT8", "FP16", "FP32", …; None when unknown.
        low: Smallest value; None when it was not read.
        high: Largest value.
        dead: Channels that are constant over all images.
        nan: How many NaN.
        inf: How many infinities.
    """

    node: str
    op: str
    dtype: str | None = None
    shape: tuple[int | str, ...] | None = None
    precision: str | None = None
    low: float | None = None
    high: float | None = None
    dead: int = 0
    nan: int = 0
    inf: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """One tensor in one step: the candidate against the model before it in the chain.

    Attributes:
        status: What became of it.
        into: For a tensor that only the reference has: the next one that both have, into
            which it was folded.
        inherited: Both sides run freely from the same images; None when not compared.
        own: The candidate's layer is fed the reference's tensors; None when not measured.
        explained: The own error against its expectation; None when not measured.
        total_db: SQNR against the first model of the chain; None when that lacks the tensor.
        codes: Where the candidate quantizes the tensor.
        histogram: Of the first images; only for the rows worth a look.
    """

    status: Status
    into: str | None = None
    inherited: Errors | None = None
    own: Errors | None = None
    explained: Explained | None = None
    total_db: float | None = None
    codes: Codes | None = None
    histogram: Histogram | None = None
