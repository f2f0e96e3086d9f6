"""``strata run``: a bundle's answers for images, videos and cameras."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import StrataError
from deploy.cli.warnings import shown

if TYPE_CHECKING:
    from deploy.classifier import Prediction

__all__ = ["command"]


@click.command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Classes.")
@click.option(
    "--on",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="auto: the GPU; ONNX Runtime on the CPU where there is none.",
)
@click.option("--batch", type=click.IntRange(min=1), help="Images that travel together.")
@click.option("--preprocess", help="A preset or numbers, in place of what the bundle says.")
@click.option("--fast", is_flag=True, help="On the CPU: fast kernels, some 0.3 % other answers.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON an image.")
def command(
    bundle: Path,
    images: tuple[str, ...],
    top: int,
    on: Any,
    batch: int | None,
    preprocess: str | None,
    fast: bool,
    as_json: bool,
) -> None:
    """Print what a bundle's network sees in images.

    IMAGE is a JPEG, PNG or WebP file, a folder of them, a video, or camera:0 (both through
    OpenCV). On a GPU a plan of the bundle runs if one fits; else one is built from its graph,
    once. A broken image is reported and the others are answered; the exit code is then 2.
    """
    from deploy.bundle.opening import Opening, open_classifier
    from deploy.cli.progress import progress_bar
    from deploy.frames import is_live, named_frames

    if batch is None and any(map(is_live, images)):
        batch = 1  # a camera's picture is answered before the next one is taken
    opening = Opening(on=on, batch=batch, preprocess=preprocess, fast=fast)
    with progress_bar("building the plan, once") as bar:
        model = open_classifier(bundle, opening, progress=bar)
    with model:
        for note in (*model.notes, f"runs by {model.model.backend}"):
            click.echo(shown(note), err=True)
        _print(model.stream(named_frames(images), top=top), as_json=as_json)


def _print(answers: Iterable[Prediction], *, as_json: bool) -> None:
    """Print answers as they come; raise what was wrong once all are out."""
    first: StrataError | None = None
    count = failed = 0
    for answer in answers:
        count += 1
        if answer.error is not None:
            failed += 1
            first = first or answer.error
            click.echo(f"error: {shown(answer.error.problem)}", err=True)
        if as_json:
            click.echo(_json(answer))
        elif answer.error is None:
            click.echo(_text(answer))
    if first is not None:
        raise type(first)(
            f"{failed} of {count} images have no answer; the first: {first.problem}",
            hint=first.hint,
        )


def _text(answer: Prediction) -> str:
    """Return a table of the likeliest classes; one line where only one is asked for."""
    from deploy.inspect.columns import plain

    rows = [f"{rank.score:7.2%}  {plain(rank.label)}" for rank in answer.top]
    if len(rows) == 1:
        return f"{rows[0]}  {plain(answer.image)}"
    return "\n".join([plain(answer.image), *(f"  {row}" for row in rows)])


def _json(answer: Prediction) -> str:
    facts: dict[str, Any] = {"image": answer.image}
    if answer.error is not None:
        facts["error"] = answer.error.problem
    else:
        facts["top"] = [
            {"class": rank.index, "label": rank.label, "score": round(rank.score, 6)}
            for rank in answer.top
        ]
    return json.dumps(facts, ensure_ascii=True)
