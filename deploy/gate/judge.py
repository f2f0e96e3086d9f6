"""Hold what models answer now against what they answered when the baseline was measured.

The null hypothesis of an alarm is that no more than the tolerance was lost: *regressed* is
said when it is that improbable. That of an all-clear is the opposite, that more was lost:
*held* is said when that is as improbable. Between the two, the images are too few to tell.

An alarm on any row is an alarm of the gate, so the rows share what may be false among them
(Bonferroni); an all-clear needs every row, and each may take all of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from deploy.evaluation.predictions import ModelAnswers
from deploy.gate.medians import fall_of_median
from deploy.gate.paired import Pairs, mcnemar_p
from deploy.gate.rules import Rules
from deploy.gate.verdict import UNCHANGED, LayerMove, Outcome, Row

__all__ = ["Twice", "judge", "judge_layers", "moved_scales"]

_SAME_SCALE = 1e-3  # of itself; a smaller change is another processor's rounding
_LISTED = 5
# From here on a layer is exact but for the last bits of float32, which differ between processors.
_EXACT_DB = 100.0

_NO_REFERENCE = "needs the logits of the reference: name it, too"


@dataclass(frozen=True, slots=True, eq=False)
class Twice:
    """One model on the same images, then and now; row i is of image i everywhere.

    Attributes:
        model: The baseline's name of it.
        before: Its answers in the baseline.
        now: Its answers now.
        references: The reference's answers, in the baseline and now; None for the reference
            itself.
    """

    model: str
    before: ModelAnswers
    now: ModelAnswers
    references: tuple[ModelAnswers, ModelAnswers] | None

    @property
    def unchanged(self) -> bool:
        """Whether the same file, run alike, gave the same answers: nothing is in doubt then."""
        ours, theirs = self.before, self.now
        same = (ours.sha256, ours.backend) == (theirs.sha256, theirs.backend)
        return same and bool(np.array_equal(ours.answer, theirs.answer))


def judge(models: list[Twice], rules: Rules) -> list[Row]:
    """Judge every metric of every model that the rules hold to something."""
    asked = [(twice, metric) for twice in models for metric in _metrics(twice, rules)]
    alphas = rules.alpha / max(1, len(asked)), rules.alpha
    return [
        _sqnr(twice, rules, alphas)
        if metric == "sqnr"
        else _share(twice, metric, getattr(rules, metric), alphas)
        for twice, metric in asked
    ]


def _metrics(twice: Twice, rules: Rules) -> list[str]:
    names = ["top1"] if twice.references is None else ["top1", "agreement", "sqnr"]
    return [name for name in names if getattr(rules, name) is not None]


def _share(twice: Twice, metric: str, points: float, alphas: tuple[float, float]) -> Row:
    """Judge a share of the images: right answers, or the same ones as the reference."""
    if metric == "top1" or twice.references is None:
        before, now = twice.before.right, twice.now.right
    else:
        was, is_ = twice.references
        before, now = twice.before.answer == was.answer, twice.now.answer == is_.answer
    pairs, tolerance = Pairs.of(before, now), points / 100
    outcome, needed = Outcome.CANNOT_TELL, None
    low, high = pairs.at_least(alphas[0]), pairs.at_most(alphas[1])
    note = f"{pairs.lost} lost, {pairs.gained} gained"
    if twice.unchanged and not pairs.lost + pairs.gained:
        low = high = 0.0
        outcome, note = Outcome.HELD, UNCHANGED
    elif pairs.p_beyond(tolerance) <= alphas[0]:
        outcome = Outcome.REGRESSED
    elif high <= tolerance:
        outcome = Outcome.HELD
    else:
        needed = _more(pairs.images_needed(tolerance, alphas), pairs.images)
    return Row(
        *(twice.model, metric, outcome, "points", points),
        before=100 * float(before.mean()),
        now=100 * float(now.mean()),
        loss=100 * pairs.loss,
        at_least=100 * low,
        at_most=100 * high,
        p=mcnemar_p(pairs.lost, pairs.gained),
        needed=needed,
        note=note,
    )


def _sqnr(twice: Twice, rules: Rules, alphas: tuple[float, float]) -> Row:
    """Judge the SQNR of the logits against the reference's."""
    tolerance = rules.sqnr or 0.0
    before, now = twice.before.sqnr_db, twice.now.sqnr_db
    if before is None or now is None:
        head = (twice.model, "sqnr", Outcome.NOT_RUN, "dB", tolerance)
        return Row(*head, note=_NO_REFERENCE)
    fall = fall_of_median(before, now)
    outcome, needed = Outcome.CANNOT_TELL, None
    low, high = fall.at_least(alphas[0]), fall.at_most(alphas[1])
    if low > tolerance:
        outcome = Outcome.REGRESSED
    elif high <= tolerance:
        outcome = Outcome.HELD
    else:
        needed = _more(fall.images_needed(tolerance, alphas), fall.images)
    return Row(
        *(twice.model, "sqnr", outcome, "dB", tolerance),
        before=float(np.median(before)),
        now=float(np.median(now)),
        loss=fall.value,
        at_least=low,
        at_most=high,
        needed=needed,
    )


def _more(needed: int | None, images: int) -> int | None:
    """Return a number above the images that did not suffice."""
    return None if needed is None else max(needed, images + 1)


def judge_layers(
    model: str, before: Mapping[str, float], now: Mapping[str, float], tolerance: float
) -> tuple[Row, list[LayerMove]]:
    """Hold each layer's own SQNR against the baseline's, on the same images.

    Args:
        model: The baseline's name of the model.
        before: Tensor → its own SQNR in the baseline, in dB.
        now: The same, now.
        tolerance: By how much one may fall, in dB.

    Returns:
        One row for all of them, and the layers that moved by more, worst first.
    """
    moves = [LayerMove(model, name, db, now.get(name)) for name, db in before.items()]
    falls = {move.tensor: _fall(move.before_db, move.now_db) for move in moves}
    moved = [move for move in moves if not abs(falls[move.tensor]) <= tolerance]
    moved.sort(key=lambda move: (not move.worse, -abs(falls[move.tensor])))
    worse = [move for move in moved if move.worse]
    largest = max(falls.values(), default=0.0)
    better = len(moved) - len(worse)
    note = f"{len(worse)} of {len(moves)} layers fell" + (f", {better} rose" if better else "")
    if worse:
        note += f"; most: {worse[0].tensor}"
    outcome = Outcome.REGRESSED if worse else Outcome.HELD
    row = Row(model, "layers", outcome, "dB", tolerance, loss=largest, note=note)
    return row, moved


def moved_scales(model: str, before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Say which tensors have another scale than in the baseline, in a line or none.

    Args:
        model: The baseline's name of the model.
        before: Quantized tensor → its scale in the baseline.
        now: The same, now.
    """
    moved = {
        name: now[name] / scale - 1
        for name, scale in before.items()
        if name in now and abs(now[name] / scale - 1) > _SAME_SCALE
    }
    if not moved:
        return []
    worst = sorted(moved, key=lambda name: -abs(moved[name]))
    names = ", ".join(f"{name} {100 * moved[name]:+.1f} %" for name in worst[:_LISTED])
    more = ", …" if len(worst) > _LISTED else ""
    return [f"{model}: {len(worst)} of {len(before)} scales are others: {names}{more}"]


def _fall(before: float, now: float | None) -> float:
    """Return by how many dB a layer fell; infinite when it is gone or no number."""
    if now is None or math.isnan(now):
        return math.inf
    return min(before, _EXACT_DB) - min(now, _EXACT_DB)
