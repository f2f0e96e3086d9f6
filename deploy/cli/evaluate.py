"""``strata evaluate``: accuracy of one or more models."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calib_data.classes import doubts
from calib_data.open import absolute
from core.errors import InputError, MissingBackendError
from deploy.cli.data_options import data_options
from deploy.cli.progress import progress_bar
from deploy.cli.spread_options import ray_option, shard_option
from deploy.cli.stage import OUTPUT, Stage
from deploy.cli.warnings import warn_of
from deploy.evaluation.accuracy import Accuracy, NotRun, accuracy_to_json, write_accuracy
from deploy.evaluation.to_text import accuracy_text, classes_text
from deploy.images import ImageRequest

if TYPE_CHECKING:
    from deploy.evaluation.predictions import Predictions

__all__ = ["command"]


@click.command("evaluate", cls=Stage)
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@data_options(images=None, batch=64)
@click.option(
    "--json",
    "json_path",
    type=OUTPUT,
    help="Write the result to this file; - prints it in place of the table.",
)
@click.option(
    "--predictions",
    type=OUTPUT,
    help="Also write what was answered to each image, an .npz.",
)
@shard_option("give --predictions to put them together")
@ray_option("MODELs")
@click.option("--per-class", is_flag=True, help="Also tell each class, and what it is taken for.")
@click.option(
    "--fast",
    is_flag=True,
    help="Fast kernels for INT8 and FP16, too: 0.6 of the time, some 0.3 % other answers.",
)
@click.option("--allow-not-run", is_flag=True, help="An engine that cannot run here is no failure.")
def command(
    models: tuple[str, ...],
    request: ImageRequest,
    shard: tuple[int, int],
    address: str | None,
    **said: Any,
) -> None:
    """Measure accuracy over a labelled set of images.

    MODEL is FILE.onnx, torch:WEIGHTS, FILE.engine on a GPU, or trt-network:FILE.onnx: what
    TensorRT's parser makes of the file, evaluated on the CPU. With several, the answers of the
    others are held against those of the first. Files that --predictions wrote are put together.
    """
    from dataclasses import replace

    from deploy.evaluation.measures import accuracy_of
    from deploy.evaluation.predictions_file import write_predictions

    where = _Where(shard, address, said["fast"])
    predictions, not_run = _predictions(models, request, where)
    accuracy = replace(accuracy_of(predictions), not_run=not_run)
    if said["predictions"] is not None:
        write_predictions(predictions, said["predictions"])
    _write(accuracy, said["json_path"], per_class=said["per_class"])
    if not_run and not said["allow_not_run"]:
        _fail(not_run)


@dataclass(frozen=True, slots=True)
class _Where:
    """Which part of the images is to run, on which cluster, by which kernels."""

    shard: tuple[int, int]
    address: str | None
    fast: bool


def _predictions(
    models: tuple[str, ...], request: ImageRequest, where: _Where
) -> tuple[Predictions, tuple[NotRun, ...]]:
    """Run the models, or put together what runs of theirs wrote; also say what did not run."""
    from deploy.evaluation.opening import open_models
    from deploy.evaluation.predict import open_part, predict

    saved = [text for text in models if text.endswith(".npz")]
    if saved:
        if len(saved) < len(models):
            raise InputError(
                f"{saved[0]}: predictions beside models",
                hint="name models, or files of predictions",
            )
        return _merged(saved, where), ()
    opened = open_models(models, fast=where.fast)
    not_run = tuple(opened.not_run.values())
    found = list(opened.models.values())
    if not found:
        _fail(not_run)
    images = open_part(found, request, where.shard)
    warn_of(doubts(images.source))
    with progress_bar("evaluate") as bar:
        if where.address is None:
            return predict(found, images, progress=bar), not_run
        from deploy.evaluation.on_cluster import predict_on_cluster
        from exporter.calibration.work import Cluster

        cluster = Cluster(absolute(request.data), where.address)
        spread = predict_on_cluster(opened.models, images, cluster, fast=where.fast, progress=bar)
        return spread, not_run


def _merged(saved: list[str], where: _Where) -> Predictions:
    """Put together what runs wrote."""
    from deploy.evaluation.predictions import merge
    from deploy.evaluation.predictions_file import read_predictions

    if where.address is not None or where.shard != (1, 1):
        raise InputError(
            f"{saved[0]}: saved predictions run nowhere, in no shards",
            hint="leave out --ray and --shard, or name models",
        )
    return merge([read_predictions(Path(text)) for text in saved], saved)


def _write(accuracy: Accuracy, path: Path | None, *, per_class: bool) -> None:
    """Print the result, or write it, or both."""
    if path == Path("-"):
        click.echo(json.dumps(accuracy_to_json(accuracy), indent=2, ensure_ascii=False))
        return
    if path is not None:
        write_accuracy(accuracy, path)
    click.echo(accuracy_text(accuracy))
    if per_class:
        click.echo("\n" + classes_text(accuracy))


def _fail(not_run: tuple[NotRun, ...]) -> None:
    """Say that what was asked for did not run: that is never a success by default."""
    raise MissingBackendError(
        "; ".join(f"{missing.model} was not run: {missing.why}" for missing in not_run),
        hint="run it on a machine with its GPU, or take it for good: --allow-not-run",
    )
