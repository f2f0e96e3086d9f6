"""``strata baseline``: what must hold from now on."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import InputError, MissingBackendError
from core.outputs import require_outputs
from deploy.cli.data_options import data_options
from deploy.cli.progress import progress_bar
from deploy.cli.stage import OUTPUT, Stage
from deploy.images import ImageRequest

if TYPE_CHECKING:
    from deploy.gate.baseline import Baseline
    from deploy.gate.rules import Rules

__all__ = ["command", "is_somebody_there"]


@click.command("baseline", cls=Stage)
@click.argument("models", metavar="REFERENCE [CANDIDATE...]", nargs=-1, required=True)
@data_options(images=None, batch=64)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    default="baseline.json",
    show_default=True,
    help="The file to write; the answers go beside it.",
)
@click.option(
    "--tolerance",
    "tolerances",
    multiple=True,
    metavar="NAME=VALUE",
    help="What may be lost: top1 and agreement in points, sqnr and layers in dB; or off.",
)
@click.option("--confidence", type=float, help="How sure a verdict must be.  [default: 0.95]")
@click.option("--update", is_flag=True, help="Replace a baseline that is there.")
@click.option("--yes", is_flag=True, help="Replace it without asking.")
@click.option("--fast", is_flag=True, help="Fast kernels for INT8 and FP16, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the baseline as JSON.")
def command(
    models: tuple[str, ...], request: ImageRequest, output: Path, update: bool, **said: Any
) -> None:
    """Measure what must hold from now on, and write it to a file to commit.

    REFERENCE is right by definition, and the CANDIDATEs are held to it: models as strata
    evaluate takes them. Rules in the file may be edited; everything else is sealed.
    """
    from deploy.evaluation.opening import open_models
    from deploy.gate.baseline_file import answers_path, read_baseline, write_baseline
    from deploy.gate.difference import differences
    from deploy.gate.measure import measure_baseline
    from deploy.gate.rules import Rules

    if output.exists() and not update:
        raise InputError(
            f"{output}: is there already", hint="--update replaces it, once you saw the difference"
        )
    require_outputs([answers_path(output)])
    before = read_baseline(output)[0] if output.exists() else None
    rules = _rules(before.rules if before else Rules(), said)
    opened = open_models(models, fast=said["fast"])
    for missing in opened.not_run.values():
        raise MissingBackendError(
            f"{missing.model}: cannot be measured here: {missing.why}",
            hint="make the baseline on a machine that runs it, or leave it out",
        )
    with progress_bar("baseline") as bar:
        baseline, predictions = measure_baseline(opened, request, rules, bar)
    if before is not None:
        lines = differences(before, baseline)
        if not lines:
            click.echo(f"{output}: nothing changed")
            return
        click.echo("\n".join([f"{output} would change:", *(f"  {line}" for line in lines)]))
        _ask(output, yes=said["yes"])
    write_baseline(baseline, predictions, output)
    if said["as_json"]:
        click.echo(json.dumps(json.loads(output.read_text("utf-8")), indent=2, ensure_ascii=False))
    else:
        click.echo(_text(baseline, output, answers_path(output)))


def _rules(rules: Rules, said: dict[str, Any]) -> Rules:
    from dataclasses import replace

    if said["confidence"] is not None:
        rules = replace(rules, confidence=said["confidence"])
    return rules.with_tolerances(said["tolerances"])


def is_somebody_there() -> bool:
    """Tell whether there is a terminal to ask on."""
    return sys.stdin.isatty()


def _ask(output: Path, *, yes: bool) -> None:
    """Write over a baseline only when somebody says so."""
    if yes:
        return
    if not is_somebody_there():
        raise InputError(
            f"{output}: was not changed: there is nobody to ask",
            hint="look at the difference, then give --yes",
        )
    if not click.confirm("Is this meant?", err=True):
        raise InputError(f"{output}: was not changed", hint="find out what changed it")


def _text(baseline: Baseline, output: Path, answers: Path) -> str:
    size = answers.stat().st_size / 1e6
    lines = [
        f"{output}, and {answers.name} ({size:.1f} MB): commit both",
        f"  {baseline.data.images:,} images of {baseline.data.name}",
    ]
    for held in baseline.models:
        m = held.metrics
        text = f"  {held.model}: top-1 {_share(m['top1'])}"
        if "agreement" in m:
            text += f", same answers {_share(m['agreement'])}, logits {m['sqnr_db'].value:.1f} dB"
        lines.append(text + (f", {len(held.layers.own_db)} layers" if held.layers else ""))
    return "\n".join(lines)


def _share(interval: Any) -> str:
    return f"{interval.value:.2%} ({interval.low:.2%} to {interval.high:.2%})"
