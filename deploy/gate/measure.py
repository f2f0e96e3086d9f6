"""Run models for a baseline or a check: answers to the images, then layer by layer."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.errors import InputError
from core.progress import Progress, silent
from deploy.evaluation.opening import Opened
from deploy.evaluation.predict import open_part, predict, table_of, weights_of
from deploy.evaluation.predictions import Predictions
from deploy.gate.baseline import Baseline, Selection, make_baseline
from deploy.gate.drift import align, require_model, require_preprocess
from deploy.gate.hold import Run, assign, hold
from deploy.gate.layer_files import LayerPlan, plan_layers, require_same_models
from deploy.gate.layer_rows import add_layers
from deploy.gate.layers import has_layers, layer_request, measure_layers, require_layer_images
from deploy.gate.rules import Rules
from deploy.gate.verdict import Outcome, Row, Verdict
from deploy.images import ImageRequest, Images
from deploy.runners import Model

__all__ = ["CheckRequest", "check_models", "measure_baseline", "versions"]

_LIBRARIES = ("strata", "numpy", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx")


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """What a user asked of a check.

    Attributes:
        name: File name of the baseline.
        said: What the user named a model → the baseline's entry that it is said to be.
        images: All of the baseline's images.
        part: How many of them to run; None for all.
        seed: Another seed picks another part.
        other_weights: Other weights are what is tested.
        layers: Also measure the layers, where the baseline has them.
        bounds: Comparisons whose layers must hold, in place of the baseline's.
        measured: Comparisons of these very models: their layers are not measured again.
    """

    name: str
    said: Mapping[str, str]
    images: ImageRequest
    part: int | None = None
    seed: int = 0
    other_weights: bool = False
    layers: bool = True
    bounds: tuple[Path, ...] = ()
    measured: tuple[Path, ...] = ()


def _noted(progress: Progress, name: str) -> Progress:
    """Return a progress that says whose layers it is about."""

    def tell(done: int, total: int, note: str = "") -> None:
        progress(done, total, f"layers of {name} {note}".rstrip())

    return tell


def versions() -> dict[str, str]:
    """Return the versions of what takes part in an answer, of what is installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def measure_baseline(
    opened: Opened, request: ImageRequest, rules: Rules, progress: Progress = silent
) -> tuple[Baseline, Predictions]:
    """Measure what must hold: the first model is the reference.

    Args:
        opened: The models; all of them can run.
        request: Which images.
        rules: What is to be allowed.
        progress: Told the images done, and of whose layers.

    Raises:
        InputError: Two models of one name, or as ``predict``.
        StrataError: A model cannot be run.
    """
    models = list(opened.models.values())
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise InputError(
            f"{', '.join(names)}: two models of one name; a baseline tells them apart by it",
            hint="rename one of the files",
        )
    predictions = predict(models, open_part(models, request), progress=progress)
    reference, *candidates = opened.models
    layers = {}
    for text in candidates:
        if rules.layers is not None and has_layers(reference) and has_layers(text):
            chosen = layer_request(request, predictions.data.images)
            name = opened.models[text].name
            layers[name] = measure_layers(reference, text, chosen, _noted(progress, name))
    selection = Selection(request.images, request.seed)
    baseline = make_baseline(predictions, selection, layers, versions(), rules)
    # Of the logits only the reference's are needed: a candidate's are measured again.
    first, *others = predictions.models
    kept = (first, *(replace(model, logits=None) for model in others))
    return baseline, replace(predictions, models=kept)


@dataclass(frozen=True, slots=True)
class _Task:
    """A check while it runs: what must hold, what was asked, who is told how far it is."""

    baseline: Baseline
    answers: Predictions
    request: CheckRequest
    progress: Progress


def check_models(
    baseline: Baseline,
    answers: Predictions,
    opened: Opened,
    request: CheckRequest,
    progress: Progress = silent,
) -> Verdict:
    """Run the models, and hold them against a baseline.

    Raises:
        DriftError: They cannot be held against each other; nothing was run then.
        InputError: Nothing says which entry a model is.
        StrataError: A model cannot be run.
    """
    task = _Task(baseline, answers, request, progress)
    entries = _entries(baseline, opened, request.said)
    order = [held.model for held in baseline.models]
    texts = {entries[text]: text for text in opened.models}
    texts = {entry: texts[entry] for entry in sorted(texts, key=order.index)}
    models = {entry: opened.models[text] for entry, text in texts.items()}
    missing = {entries[text]: not_run for text, not_run in opened.not_run.items()}
    if not models:
        rows = [Row(e, "run", Outcome.NOT_RUN, "", 0.0, note=m.why) for e, m in missing.items()]
        return Verdict(request.name, baseline.rules, rows=tuple(rows))
    images = _part(open_part(list(models.values()), request.images), request)
    _require_same(task, models, images)
    plan = _planned(task, models)
    predictions = predict(list(models.values()), images, progress=progress)
    run = Run(
        predictions,
        tuple(models),
        missing,
        images.source.where,
        request.part is not None,
        request.other_weights,
    )
    verdict = hold(request.name, baseline, answers, run)
    notes = (*_cautions(models), *_versions_changed(baseline), *verdict.notes)
    verdict = replace(verdict, notes=notes)
    return _with_layers(verdict, task, texts, plan)


def _cautions(models: Mapping[str, Model]) -> list[str]:
    """Say what models say of themselves that a reader must know, each sentence once."""
    first: dict[str, str] = {}
    for entry, model in models.items():
        for sentence in model.card.cautions:
            first.setdefault(sentence, entry)
    return [f"{entry}: {sentence}" for sentence, entry in first.items()]


def _entries(baseline: Baseline, opened: Opened, said: Mapping[str, str]) -> dict[str, str]:
    """Say for each model, as the user named it, which entry of the baseline it is."""
    names = {text: model.name for text, model in opened.models.items()}
    names |= {text: not_run.model for text, not_run in opened.not_run.items()}
    by_name = {names[text]: entry for text, entry in said.items()}
    found = assign(baseline, list(names.values()), by_name)
    return {text: found[name] for text, name in names.items()}


def _part(images: Images, request: CheckRequest) -> Images:
    """Return the part of the baseline's images that was asked for."""
    if request.part is None:
        return images
    if request.part > len(images):
        raise InputError(
            f"{request.part} images asked of the baseline's {len(images)}",
            hint=f"ask for 1 to {len(images)} images",
        )
    order = np.argsort(np.random.PCG64(request.seed).random_raw(len(images)), kind="stable")
    return replace(images, indices=images.indices[order[: request.part]])


def _require_same(task: _Task, models: Mapping[str, Model], images: Images) -> None:
    """Refuse drift before anything runs, which may take an hour."""
    request = task.request
    held = {held.model: held for held in task.baseline.models}
    for entry, model in models.items():
        given = (model.name, model.sha256, weights_of(model))
        require_model(task.baseline, held[entry], given, other_weights=request.other_weights)
    require_preprocess(task.baseline, images.spec.to_json() if images.spec else None)
    align(task.answers.images, table_of(images), images.source.where, part=request.part is not None)


def _planned(task: _Task, models: Mapping[str, Model]) -> LayerPlan:
    """Say which layers are to be held to what, before anything runs."""
    request = task.request
    if not request.layers:
        return LayerPlan({}, {})
    names = {model.name: entry for entry, model in models.items()}
    plan = plan_layers(task.baseline, names, request.bounds, request.measured)
    require_same_models(plan, {e: model.sha256 for e, model in models.items()}, task.baseline)
    for entry, layers in plan.held.items():
        if entry not in plan.measured:
            require_layer_images(task.baseline, layers, request.images)
    return plan


def _with_layers(
    verdict: Verdict, task: _Task, texts: Mapping[str, str], plan: LayerPlan
) -> Verdict:
    """Add what became of the layers."""
    first = task.baseline.models[0].model
    reference = texts.get(first, "")
    now = {}
    for entry, layers in plan.held.items():
        if entry in plan.measured or not (has_layers(reference) and has_layers(texts[entry])):
            continue
        request = layer_request(task.request.images, layers.images)
        request = replace(request, images=layers.images, seed=task.baseline.selection.seed)
        now[entry] = measure_layers(reference, texts[entry], request, _noted(task.progress, entry))
    why = f"needs both as files or weights, no engine: name the reference, {first}, too"
    return add_layers(verdict, task.baseline, plan, now, why)


def _versions_changed(baseline: Baseline) -> list[str]:
    """Say which libraries are not those of the baseline."""
    here = versions()
    return [
        f"{name} is {here.get(name, 'not installed')} here, {was} when the baseline was measured"
        for name, was in baseline.versions.items()
        if here.get(name) != was and name in ("onnxruntime", "torch", "tensorrt", "tensorrt_rtx")
    ]
