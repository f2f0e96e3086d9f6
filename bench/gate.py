"""How often the gate errs: alarms where nothing was lost, silence where something was.

Many gates are run, each on images drawn at random from a set, with models of a known true loss.
The models are made of the answers of a real one: a share of its answers is changed by chance,
as rounding changes them, some for the better and some for the worse. All models of a run are
made apart from each other, as two calibrations of one network are.

    python -m bench.gate                    # of the answers that `make check` holds
    python -m bench.gate PREDICTIONS.npz    # of those that `strata evaluate` saved
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from deploy.evaluation.predictions import ModelAnswers, Predictions
from deploy.evaluation.predictions_file import read_predictions
from deploy.gate.judge import Twice, judge
from deploy.gate.rules import Rules
from deploy.gate.verdict import Outcome, Row

__all__ = ["Course", "alarms_table", "gates"]

_HELD = Path(__file__).parents[1] / "tests" / "accuracy" / "baseline.answers.npz"
_CHANGED = 0.005
_SPREAD_DB = 1.5  # of an image's SQNR between two calibrations
_WIDTHS = (43, 5, 6, 6, 11, 9, 10)
_RULES = Rules()
_TOP1_ONLY = replace(_RULES, agreement=None, sqnr=None)
# Without the bootstrap of the SQNR, which takes nine tenths of the time.
_ANSWERS = replace(_RULES, sqnr=None)


@dataclass(frozen=True, slots=True)
class Course:
    """A series of gates.

    Attributes:
        what: What happened to the model between baseline and check.
        images: How many are drawn for each gate.
        changed: Share of the answers in which the model of the check differs from the
            reference; the baseline's differs in 0.5 %.
        loss: True loss of top-1 from the baseline to the check, a share.
        rules: What is allowed.
        same: The model is the very file of the baseline.
        many: How many times as many gates as usual are run.
    """

    what: str
    images: int
    changed: float = _CHANGED
    loss: float = 0.0
    rules: Rules = _RULES
    same: bool = False
    many: int = 1


def gates(course: Course, predictions: Predictions, runs: int, seed: int) -> Iterator[list[Row]]:
    """Run the gates of a series; yield the rows of each."""
    first, model = predictions.models[:2]
    random = np.random.default_rng(seed)
    labels = predictions.images.labels
    for _ in range(runs):
        rows = random.choice(len(labels), course.images, replace=not course.same)
        reference, real, own = first.take(rows), model.take(rows), labels[rows]
        if course.same:
            before = now = real
        else:
            before = _variant(reference, real, own, (_CHANGED, 0.0), random)
            now = _variant(reference, real, own, (course.changed, course.loss), random)
        yield judge([Twice(model.name, before, now, (reference, reference))], course.rules)


def _variant(
    reference: ModelAnswers,
    real: ModelAnswers,
    labels: npt.NDArray[np.int64],
    rates: tuple[float, float],
    random: np.random.Generator,
) -> ModelAnswers:
    """Make a model that differs from the reference in some answers, and loses by that.

    Args:
        reference: The float network.
        real: A real candidate; its images' SQNR is what the variant's is spread around.
        labels: Of the images.
        rates: Share of the images with another answer, and true loss of top-1.
        random: Where chance comes from.
    """
    changed, loss = rates
    right = reference.right
    lost = (changed + loss) / 2 / max(right.mean(), 1e-9)
    gained = (changed - loss) / 2 / max((~right).mean(), 1e-9)
    moved = random.random(len(labels)) < np.where(right, lost, gained)
    other = (labels + random.integers(1, int(labels.max()) + 1, len(labels))) % (labels.max() + 1)
    answer = np.where(moved, np.where(right, other, labels), reference.answer).astype(np.int32)
    assert real.sqnr_db is not None
    decibels = real.sqnr_db + random.normal(0, _SPREAD_DB, len(labels)).astype(np.float32)
    return replace(
        real,
        sha256=str(random.integers(1 << 62)),
        answer=answer,
        rank=(answer != labels).astype(np.int32),
        sqnr_db=decibels,
        logits=None,
    )


def _courses() -> list[Course]:
    tolerance = (_RULES.top1 or 0.0) / 100
    good = "as good, another file"
    return [
        Course("the same file", 1_000, same=True),
        Course(good, 1_000),
        Course(f"{good}; no SQNR", 1_000, rules=_ANSWERS),
        Course(f"{good}; no SQNR", 10_000, rules=_ANSWERS),
        Course(f"{good}, 2.0% changed; top-1", 10_000, 0.02, rules=_TOP1_ONLY),
        *(
            Course(f"0.25 points lost, {changed:.1%} changed; top-1", n, changed, tolerance, many=5)
            for n, changed in ((1_000, 0.005), (10_000, 0.005), (10_000, 0.02))
        ),
        *(
            Course(f"1 point lost, {changed:.1%} changed; top-1", n, changed, 0.01)
            for changed in (0.01, 0.02, 0.04)
            for n in (1_000, 10_000)
        ),
        Course("1 point lost, 4.0% changed; no SQNR", 10_000, 0.04, 0.01, _ANSWERS),
    ]


def alarms_table(predictions: Predictions, runs: int) -> Iterator[str]:
    """Run every series; yield the table's lines."""
    head = ("what happened since the baseline", "gates", "images")
    yield _line((*head, "held", "cannot tell", "regressed", "would tell"))
    for seed, planned in enumerate(_courses()):
        top1 = planned.what.endswith("top-1")
        course = replace(planned, rules=_TOP1_ONLY) if top1 else planned
        counts: Counter[Outcome] = Counter()
        needed: list[float] = []
        for rows in gates(course, predictions, runs * course.many, seed):
            counts[min((row.outcome for row in rows), key=list(Outcome).index)] += 1
            needed += [row.needed or np.inf for row in rows if row.outcome is Outcome.CANNOT_TELL]
        told = [
            f"{counts[outcome] / counts.total():.1%}"
            for outcome in (Outcome.HELD, Outcome.CANNOT_TELL, Outcome.REGRESSED)
        ]
        middle = float(np.median(needed)) if needed else 0.0
        many = "–" if not needed else "none" if np.isinf(middle) else f"{middle:,.0f}"
        yield _line((course.what, f"{counts.total():,}", f"{course.images:,}", *told, many))


def _line(cells: tuple[str, ...]) -> str:
    first, *others = (
        cell.ljust(width) if at == 0 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=True))
    )
    return "  ".join([first, *others])


@click.command()
@click.argument("path", type=click.Path(path_type=Path), default=_HELD, metavar="[PREDICTIONS]")
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True)
def main(path: Path, runs: int) -> None:
    """Say how often the gate errs."""
    start = time.monotonic()
    predictions = read_predictions(path)
    if len(predictions.models) < 2:
        sys.exit(f"{path}: needs the answers of a reference and of a candidate")
    data = predictions.data
    print(f"images are drawn from the {data.images:,} of {data.name}; {_RULES}\n")
    for line in alarms_table(predictions, runs):
        print(line, flush=True)
    print(f"\n{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()
