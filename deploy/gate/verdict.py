"""What came of a check: a row a metric, the layers that moved, the images that changed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from deploy.gate.rules import Rules
from deploy.images import DataRecord

__all__ = ["UNCHANGED", "ChangedImage", "Drift", "LayerMove", "Outcome", "Row", "Verdict"]


UNCHANGED = "the same file, the same answers"  # the note of a row that cannot but hold


class Outcome(StrEnum):
    """What became of one thing that must hold, from worst to best."""

    DRIFT = "drift"
    REGRESSED = "regressed"
    NOT_RUN = "not run"
    CANNOT_TELL = "cannot tell"
    HELD = "held"


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one model.

    ``loss`` and what is beside it are in ``unit``; the loss is positive when it got worse.

    Attributes:
        model: The baseline's name of the model.
        metric: ``top1``, ``agreement``, ``sqnr`` or ``layers``.
        outcome: What became of it.
        unit: ``"points"`` (hundredths of the images) or ``"dB"``.
        before: The baseline's value, on the images that were run.
        now: The value found; None when it was not run.
        loss: By how much it got worse.
        at_least: The true loss is at least this much, with the confidence of the gate.
        at_most: And at most this much.
        tolerance: What may be lost.
        p: How probable so large a loss is with none, by McNemar's exact test.
        needed: How many images would tell; None when it can be told, or by no set.
        note: Why it was not run, or what to know of it.
    """

    model: str
    metric: str
    outcome: Outcome
    unit: str
    tolerance: float
    before: float | None = None
    now: float | None = None
    loss: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    p: float | None = None
    needed: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class LayerMove:
    """A layer whose own SQNR, in dB, moved by more than its tolerance; up is no regression."""

    model: str
    tensor: str
    before_db: float
    now_db: float | None  # None when the model has no such tensor any more

    @property
    def worse(self) -> bool:
        """Whether it got worse; a NaN is, and so is a layer that is gone."""
        return self.now_db is None or not self.now_db > self.before_db


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """An image that was answered rightly before and is not any more."""

    model: str
    image: str
    label: str
    answer: str


@dataclass(frozen=True, slots=True)
class Drift:
    """Why a run cannot be held against the baseline: kind, text, way out and exit code."""

    kind: str
    problem: str
    hint: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check against a baseline.

    Attributes:
        baseline: File name of the baseline.
        data: The images that were run; None when it did not come so far.
        rules: What is allowed.
        rows: Metric by metric.
        layers: The layers that moved, worst first.
        changed: The images that are answered wrongly now and were not before.
        notes: What else there is to know.
        drift: Why nothing could be judged; None when it could.
    """

    baseline: str
    rules: Rules
    data: DataRecord | None = None
    rows: tuple[Row, ...] = ()
    layers: tuple[LayerMove, ...] = ()
    changed: tuple[ChangedImage, ...] = ()
    notes: tuple[str, ...] = ()
    drift: Drift | None = None

    @property
    def counts(self) -> dict[Outcome, int]:
        """How many rows came out how; outcomes that did not occur are left out."""
        counted = Counter(row.outcome for row in self.rows)
        return {outcome: counted[outcome] for outcome in Outcome if counted[outcome]}

    @property
    def outcome(self) -> Outcome:
        """The worst of all outcomes; a check of nothing was not run."""
        if self.drift is not None:
            return Outcome.DRIFT
        return next(iter(self.counts), Outcome.NOT_RUN)
