"""Hold predictions against a baseline: the whole check, but for running the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from core.errors import InputError
from deploy.evaluation.accuracy import NotRun
from deploy.evaluation.predict import sqnr_db
from deploy.evaluation.predictions import ModelAnswers, Predictions
from deploy.gate.baseline import Baseline
from deploy.gate.drift import Where, align, require_model, require_preprocess
from deploy.gate.judge import Twice, judge
from deploy.gate.verdict import ChangedImage, Outcome, Row, Verdict

__all__ = ["Run", "assign", "hold"]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """What was measured now.

    Attributes:
        predictions: What the models answered.
        entries: Model by model, which entry of the baseline each one is.
        not_run: Entry → why its model could not run.
        where: Number of an image in its source → how a message names it.
        part: A part of the baseline's images is meant.
        other_weights: Other weights are what is tested.
    """

    predictions: Predictions
    entries: tuple[str, ...]
    not_run: Mapping[str, NotRun]
    where: Where
    part: bool = False
    other_weights: bool = False


def assign(baseline: Baseline, names: Sequence[str], said: Mapping[str, str]) -> dict[str, str]:
    """Say which entry of the baseline each model is: the one of its name, or the one left.

    Args:
        baseline: What must hold.
        names: Names of the models at hand.
        said: Name → entry, where the user said it.

    Raises:
        InputError: No such entry, two models for one, or nothing says which.
    """
    entries = [held.model for held in baseline.models]
    found = {name: said.get(name, name) for name in names}
    unknown = [name for name in names if found[name] not in entries]
    left = [entry for entry in entries[1:] if entry not in found.values()]
    if len(unknown) == 1 and len(left) == 1 and unknown[0] not in said:
        found[unknown[0]] = left[0]
    elif unknown:
        raise InputError(
            f"{unknown[0]}: the baseline has no model of this name; it has {', '.join(entries)}",
            hint=f"say which one it is: {entries[-1]}={unknown[0]}",
        )
    if len(set(found.values())) < len(found):
        raise InputError(
            f"{', '.join(names)}: two of them are the same entry of the baseline",
            hint="name each once, as ENTRY=MODEL",
        )
    return found


def hold(name: str, baseline: Baseline, answers: Predictions, run: Run) -> Verdict:
    """Hold a run against a baseline.

    Args:
        name: File name of the baseline.
        baseline: What must hold.
        answers: What its models answered.
        run: What the models at hand answer.

    Raises:
        DriftError: They cannot be held against each other.
        InputError: Other weights without their reference.
    """
    now = dict(zip(run.entries, run.predictions.models, strict=True))
    _require_same(baseline, run, now)
    rows = align(answers.images, run.predictions.images, run.where, part=run.part)
    before = {model.name: model.take(rows) for model in answers.models}
    twice = _pairs(baseline, before, now)
    judged = judge(twice, baseline.rules) + _not_run(baseline, run, now)
    order = {held.model: at for at, held in enumerate(baseline.models)}
    return Verdict(
        baseline=name,
        rules=baseline.rules,
        data=run.predictions.data,
        rows=tuple(sorted(judged, key=lambda row: order[row.model])),
        changed=tuple(changed for pair in twice for changed in _changed(pair, run)),
        notes=_notes(twice),
    )


def _require_same(baseline: Baseline, run: Run, now: Mapping[str, ModelAnswers]) -> None:
    """Refuse other preprocessing and other models."""
    require_preprocess(baseline, run.predictions.data.preprocess)
    for held in baseline.models:
        if held.model in now:
            m = now[held.model]
            given = (m.name, m.sha256, m.weights)
            require_model(baseline, held, given, other_weights=run.other_weights)
    if run.other_weights and baseline.models[0].model not in now:
        raise InputError(
            "--other-weights: nothing says what a model of other weights should answer",
            hint=f"name its float reference, too, as {baseline.models[0].model}=MODEL",
        )


def _pairs(
    baseline: Baseline, before: Mapping[str, ModelAnswers], now: Mapping[str, ModelAnswers]
) -> list[Twice]:
    """Pair each model that ran with itself in the baseline."""
    first = baseline.models[0].model
    live = now.get(first)
    reference = live or before[first]
    pairs = []
    for entry, answers in now.items():
        if entry == first:
            pairs.append(Twice(entry, before[entry], answers, None))
            continue
        decibels = answers.sqnr_db if live is not None else None
        if reference.logits is not None and answers.logits is not None:
            decibels = sqnr_db(reference.logits, answers.logits)
        answers = replace(answers, sqnr_db=decibels)
        pairs.append(Twice(entry, before[entry], answers, (before[first], reference)))
    return pairs


def _not_run(baseline: Baseline, run: Run, now: Mapping[str, ModelAnswers]) -> list[Row]:
    """Return a row for each candidate of the baseline that did not run."""
    missing = [held.model for held in baseline.models[1:] if held.model not in now]
    missing += [name for name in run.not_run if name == baseline.models[0].model]
    return [
        Row(
            *(entry, "run", Outcome.NOT_RUN, "", 0.0),
            note=run.not_run[entry].why if entry in run.not_run else "was not named",
        )
        for entry in missing
    ]


def _changed(pair: Twice, run: Run) -> list[ChangedImage]:
    """Return the images that were answered rightly and are not any more."""
    images = run.predictions.images
    return [
        ChangedImage(
            pair.model,
            run.where(int(images.indices[row])),
            images.name(int(images.labels[row])),
            images.name(int(pair.now.answer[row])),
        )
        for row in map(int, np.flatnonzero(pair.before.right & ~pair.now.right))
    ]


def _notes(pairs: Sequence[Twice]) -> tuple[str, ...]:
    """Say where the same file answers otherwise: it is not the model that changed."""
    return tuple(
        f"{pair.model}: the same file as in the baseline, by another answer for "
        f"{int((pair.before.answer != pair.now.answer).sum())} images: a library or the "
        "processor is another"
        for pair in pairs
        if (pair.before.sha256, pair.before.backend) == (pair.now.sha256, pair.now.backend)
        and not pair.unchanged
    )
