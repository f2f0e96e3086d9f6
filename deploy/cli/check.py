"""``strata check``: does it still hold?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.artifacts import write_json, write_text
from core.errors import (
    AccuracyError,
    DriftError,
    InputError,
    MissingBackendError,
    StrataError,
    UndecidedError,
)
from deploy.cli.progress import progress_bar
from deploy.cli.stage import OUTPUT, Stage
from deploy.gate.verdict import Drift, Outcome, Verdict
from deploy.images import ImageRequest

if TYPE_CHECKING:
    from deploy.evaluation.predictions import Predictions
    from deploy.gate.baseline import Baseline

__all__ = ["command"]

_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class _Outputs:
    """Where the result goes, besides the terminal."""

    json: Path | None
    junit: Path | None
    markdown: Path | None


@click.command("check", cls=Stage)
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option(
    "--baseline",
    "path",
    type=_FILE,
    default="baseline.json",
    show_default=True,
    help="What must hold; strata baseline writes it.",
)
@click.option("--predictions", type=_FILE, help="Answers that strata evaluate saved, not MODELs.")
@click.option("--data", help="The images.  [default: the baseline's, where it has a name]")
@click.option("--images", type=click.IntRange(min=1), help="Only so many of them.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Another seed, others.")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True)
@click.option("--preprocess", help="A preset or numbers, in place of what the model says.")
@click.option("--other-weights", is_flag=True, help="New weights are what is to be checked.")
@click.option(
    "--layers",
    "bounds",
    type=_FILE,
    multiple=True,
    help="A layers.json of strata compare: what layers must hold, in place of the baseline's.",
)
@click.option(
    "--measured-layers",
    "measured",
    type=_FILE,
    multiple=True,
    help="A layers.json of these MODELs: their layers are not measured again.",
)
@click.option("--no-layers", is_flag=True, help="Leave the layers out.")
@click.option("--fast", is_flag=True, help="Fast kernels for INT8 and FP16, too.")
@click.option(
    "--allow",
    type=click.Choice(["not-run", "cannot-tell"]),
    multiple=True,
    help="Take this outcome for good.",
)
@click.option("--json", "json_path", type=OUTPUT, help="Write the result; - for stdout.")
@click.option("--junit", type=OUTPUT, help="Write JUnit XML to this file.")
@click.option("--markdown", type=OUTPUT, help="Write GitHub's Markdown to this file.")
def command(path: Path, allow: tuple[str, ...], **said: Any) -> None:
    """Check that models still answer as well as when the baseline was measured.

    MODELs are named like the baseline's, or as ENTRY=MODEL. Exit code 0: all held; 7: regressed;
    9: too few images to tell; 3: something was not run; 11 to 15: these are other images, labels,
    preprocessing or models than the baseline's, or it was edited.
    """
    if said["no_layers"] and (said["bounds"] or said["measured"]):
        raise InputError("both layers and --no-layers are given", hint="leave one of them out")
    outputs = _Outputs(said["json_path"], said["junit"], said["markdown"])
    allowed = {Outcome(value.replace("-", " ")) for value in allow}
    try:
        verdict = _check(path, said)
    except DriftError as err:
        from deploy.gate.rules import Rules

        drift = Drift(err.kind, err.problem, err.hint, err.exit_code)
        _write(Verdict(path.name, Rules(), drift=drift), outputs, allowed)
        raise
    _write(verdict, outputs, allowed)
    for error in _errors(verdict, allowed):
        raise error


def _check(path: Path, said: dict[str, Any]) -> Verdict:
    """Measure, or read what was measured, and judge."""
    from deploy.gate.baseline_file import read_baseline

    baseline, answers = read_baseline(path)
    if said["predictions"] is not None:
        if said["models"]:
            raise InputError(
                "both --predictions and MODELs are given", hint="predictions are of models already"
            )
        return _saved(path.name, (baseline, answers), said)
    from deploy.evaluation.opening import open_models
    from deploy.gate.measure import CheckRequest, check_models

    entries = {held.model for held in baseline.models}
    pairs = [_entry(text, entries) for text in said["models"]]
    if not pairs:
        raise InputError(
            "no MODEL is given", hint=f"the baseline is of {', '.join(sorted(entries))}"
        )
    request = CheckRequest(
        name=path.name,
        said={text: entry for entry, text in pairs if entry},
        images=_images(baseline, said),
        part=said["images"],
        seed=said["seed"],
        other_weights=said["other_weights"],
        layers=not said["no_layers"],
        bounds=said["bounds"],
        measured=said["measured"],
    )
    opened = open_models([text for _, text in pairs], fast=said["fast"])
    with progress_bar("check") as bar:
        return check_models(baseline, answers, opened, request, bar)


def _saved(name: str, held: tuple[Baseline, Predictions], said: dict[str, Any]) -> Verdict:
    """Judge saved predictions."""
    from deploy.evaluation.predictions_file import read_predictions
    from deploy.gate.hold import Run, assign, hold
    from deploy.gate.layer_files import plan_layers, require_same_models
    from deploy.gate.layer_rows import add_layers

    predictions = read_predictions(said["predictions"])
    names = [model.name for model in predictions.models]
    found = assign(held[0], names, {})
    run = Run(
        predictions,
        tuple(found[model] for model in names),
        {},
        lambda index: f"{predictions.data.name}: image {index}",
        part=said["images"] is not None,
        other_weights=said["other_weights"],
    )
    if said["no_layers"]:
        return hold(name, *held, run)
    plan = plan_layers(held[0], found, said["bounds"], said["measured"])
    digests = {found[model.name]: model.sha256 for model in predictions.models}
    require_same_models(plan, digests, held[0])
    why = "saved predictions hold no layers: give --measured-layers, or --no-layers"
    return add_layers(hold(name, *held, run), held[0], plan, {}, why)


def _entry(text: str, entries: set[str]) -> tuple[str, str]:
    """Split ENTRY=MODEL; no entry when it is not said."""
    entry, equals, model = text.partition("=")
    return (entry, model) if equals and entry in entries else ("", text)


def _images(baseline: Baseline, said: dict[str, Any]) -> ImageRequest:
    """Return the baseline's images."""
    from calib_data.fashion_mnist import IMAGES

    name, _, split = baseline.data.name.partition(":")
    if said["data"] is None and not (name.startswith("fashion-mnist") and split in IMAGES):
        raise InputError(
            f"the baseline's images are called {baseline.data.name}, which does not say where "
            "they are",
            hint="give --data",
        )
    selection = baseline.selection
    return ImageRequest(
        said["data"] or baseline.data.name,
        selection.images,
        said["batch"],
        selection.seed,
        said["preprocess"],
    )


def _write(verdict: Verdict, outputs: _Outputs, allowed: set[Outcome]) -> None:
    """Print the result, and write it wherever it was asked for."""
    from deploy.gate.to_json import verdict_to_json
    from deploy.gate.to_junit import verdict_to_junit
    from deploy.gate.to_markdown import verdict_to_markdown
    from deploy.gate.to_text import verdict_text

    value = verdict_to_json(verdict)
    if outputs.json == Path("-"):
        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        click.echo(verdict_text(verdict))
        if outputs.json is not None:
            write_json(outputs.json, value)
    if outputs.junit is not None:
        write_text(outputs.junit, verdict_to_junit(verdict, allowed))
    if outputs.markdown is not None:
        write_text(outputs.markdown, verdict_to_markdown(verdict))


def _errors(verdict: Verdict, allowed: set[Outcome]) -> Iterator[StrataError]:
    """Yield what must fail the command, worst first."""
    from deploy.gate.words import METRICS

    def named(outcome: Outcome) -> str:
        rows = [row for row in verdict.rows if row.outcome is outcome]
        return ", ".join(f"{row.model} {METRICS[row.metric]}" for row in rows)

    worse = [move.tensor for move in verdict.layers if move.worse]
    if Outcome.REGRESSED in verdict.counts:
        layers = f"; layers: {', '.join(worse[:5])}{', …' if len(worse) > 5 else ''}"
        yield AccuracyError(
            f"{verdict.baseline}: regressed: {named(Outcome.REGRESSED)}{layers if worse else ''}",
            hint="strata compare says more of a layer; a change that is meant: "
            "strata baseline --update",
        )
    if Outcome.NOT_RUN in verdict.counts and Outcome.NOT_RUN not in allowed:
        yield MissingBackendError(
            f"{verdict.baseline}: not run: {named(Outcome.NOT_RUN)}",
            hint="run it where it can run, or take it for good: --allow not-run",
        )
    if Outcome.CANNOT_TELL in verdict.counts and Outcome.CANNOT_TELL not in allowed:
        yield UndecidedError(
            f"{verdict.baseline}: cannot tell: {named(Outcome.CANNOT_TELL)}",
            hint="check with more images, widen the tolerance, or --allow cannot-tell",
        )
