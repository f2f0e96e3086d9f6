"""``strata evaluate``: accuracy of one or more models."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.accuracy import Accuracy, accuracy_to_json, write_accuracy
from deploy.cli.data_options import data_options
from deploy.cli.progress import progress_bar
from deploy.comparison.numbers_text import db_text
from deploy.images import ImageRequest
from deploy.inspect.columns import fit

__all__ = ["command"]

_NAME_WIDTH = 36


@click.command("evaluate")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@data_options(images=None, batch=64)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, allow_dash=True),
    help="Write the result to this file; - prints it in place of the table.",
)
@click.option(
    "--fast",
    is_flag=True,
    help="Fast kernels for INT8 and FP16, too: 0.6 of the time, some 0.3 % other answers.",
)
def command(
    models: tuple[str, ...], request: ImageRequest, json_path: Path | None, fast: bool
) -> None:
    """Measure accuracy over a labelled set of images.

    MODEL is FILE.onnx, torch:WEIGHTS, or trt-network:FILE.onnx: what TensorRT's parser makes
    of the file, evaluated on the CPU. With several, the answers of the others are held
    against those of the first.
    """
    from deploy.evaluate import evaluate
    from deploy.runners import open_model

    opened = [open_model(text, fast=fast) for text in models]
    with progress_bar("evaluate") as bar:
        accuracy = evaluate(opened, request, progress=bar)
    if json_path == Path("-"):
        click.echo(json.dumps(accuracy_to_json(accuracy), indent=2, ensure_ascii=False))
        return
    if json_path is not None:
        write_accuracy(accuracy, json_path)
    click.echo(accuracy_text(accuracy))


def accuracy_text(accuracy: Accuracy) -> str:
    """Return an evaluation as a table of at most 100 columns."""
    images = accuracy.data.images
    names = [fit(answers.model, _NAME_WIDTH) for answers in accuracy.models]
    width = max(5, *map(len, names))
    lines = [
        f"{images} images of {accuracy.data.name}",
        "",
        f"{'model':<{width}}   top-1 %   top-5 %     loss          changed   logits dB",
    ]
    for name, a in zip(names, accuracy.models, strict=True):
        changed, decibels = "–", "–"
        if a.changed:
            changed = f"{a.changed.answers} ({a.changed.answers / images:.2%})"
            decibels = db_text(a.changed.sqnr_db)
        lines.append(
            f"{name:<{width}}  {a.top1 / images:8.2%}  {a.top5 / images:8.2%}  {a.loss:7.4f}  "
            f"{changed:>15}  {decibels:>10}"
        )
    return "\n".join(lines)
