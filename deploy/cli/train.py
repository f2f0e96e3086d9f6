"""``strata train``: the reference network on a labelled set of images."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.artifacts import sha256_file
from core.errors import InputError, MissingBackendError, OutputError
from deploy.cli.model_options import model_options
from deploy.cli.progress import progress_bar
from exporter.models.config import ModelOptions, ResNetConfig
from exporter.models.families import name_of

if TYPE_CHECKING:
    from calib_data.preprocess import PreprocessSpec
    from calib_data.sources import Source
    from exporter.train import TrainOptions

__all__ = ["command"]

_NAMED = "fashion-mnist"


@dataclass(frozen=True, slots=True)
class _Images:
    """What was said of the images."""

    data: str
    test_data: str | None
    preprocess: str | None


@dataclass(frozen=True, slots=True)
class _Course:
    """What was said of the training; None is "as the depth wants it"."""

    passes: int | None
    batch: int | None
    lr: float | None
    seed: int
    flip: bool


@click.command("train")
@model_options(outputs=False)
@click.option(
    "--data",
    default=_NAMED,
    show_default=True,
    help="Labelled images to learn from: fashion-mnist, a folder of folders, an IDX file, an .npz.",
)
@click.option(
    "--test-data",
    help="Labelled images to measure on.  [default: the test set of fashion-mnist]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The .safetensors file to write.",
)
@click.option("--passes", type=click.IntRange(min=1), help="Images to show, repeats counted.")
@click.option("--batch", type=click.IntRange(min=2), help="Images a step.")
@click.option("--lr", type=click.FloatRange(min=0, min_open=True), help="Peak learning rate.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--flip/--no-flip", default=True, show_default=True, help="Mirror half the images.")
@click.option("--preprocess", help="A preset or numbers; needed for other data than fashion-mnist.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(output: Path, as_json: bool, model: ModelOptions, **said: Any) -> None:
    """Train the reference network on a labelled set of images.

    Passes, batch and learning rate have defaults for each depth. A training that was
    stopped carries on where it was when the same command is run again.
    """
    # Beside another job on the same cores, an OpenMP thread that spins while it waits takes
    # the core of the thread it waits for: steps were seen to take 25 times longer.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from exporter.train import train
        from exporter.weights import save_checkpoint
    except ImportError as err:
        raise MissingBackendError(
            f"training needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    images = _Images(*(said.pop(name) for name in ("data", "test_data", "preprocess")))
    _check_output(output)
    learn, test, spec = _open(images)
    config = replace(model.over(ResNetConfig()), classes=_count_classes(learn))
    options = replace(
        _options(config, _Course(**said)),
        preprocess=spec,
        resume=output.with_name(f".{output.name}.resume"),
    )
    start = time.monotonic()
    with progress_bar(f"train {name_of(config)}") as bar:
        checkpoint = train(config, learn, test, options, bar)
    save_checkpoint(checkpoint, output)
    facts = {
        "file": str(output),
        "sha256": sha256_file(output),
        "bytes": output.stat().st_size,
        "network": name_of(config),
        "classes": config.classes,
        "seconds": round(time.monotonic() - start, 1),
        "weights": dict(checkpoint.origin),
    }
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _text(facts))


def _options(config: ResNetConfig, course: _Course) -> TrainOptions:
    """Return the depth's defaults with what was said in their place."""
    from exporter.train import DEFAULTS

    said = {name: getattr(course, name) for name in ("passes", "batch", "lr")}
    options = replace(DEFAULTS[config.depth], seed=course.seed, flip=course.flip)
    return replace(options, **{name: v for name, v in said.items() if v is not None})


def _check_output(output: Path) -> None:
    """Find out before the training, not after it, that its result cannot be written."""
    if output.suffix != ".safetensors":
        raise InputError(
            f"{output}: weights are written as safetensors", hint="end -o in .safetensors"
        )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"{output.parent}: cannot be made ({err.strerror})", hint="name another place with -o"
        ) from err
    if output.is_dir() or not os.access(output.parent, os.W_OK):
        raise OutputError(f"{output}: cannot be written", hint="name another place with -o")


def _open(images: _Images) -> tuple[Source, Source, PreprocessSpec | None]:
    """Open both sets of images, and say how they are prepared."""
    from calib_data.open import open_data
    from calib_data.preprocess import PRESETS, preprocess_option

    name = images.data.partition(":")[0]
    named = name in (_NAMED, f"{_NAMED}-full")
    if images.test_data is None and not named:
        raise InputError(
            f"{images.data}: nothing says what to measure the accuracy on",
            hint="give --test-data, labelled images that are not in --data",
        )
    learn = open_data(images.data)
    test = open_data(images.test_data or f"{name}:test")
    if images.preprocess is not None:
        return learn, test, preprocess_option(images.preprocess)
    if named:
        return learn, test, PRESETS[_NAMED]
    if not learn.preprocessed:
        raise InputError(
            f"{learn.name}: nothing says how to prepare its images",
            hint="give --preprocess, e.g. resize=64,crop=64,mean=0.5,std=0.25",
        )
    return learn, test, None


def _count_classes(source: Source) -> int:
    """Return the number of classes: those that have names, else up to the largest label."""
    from calib_data.sources import require_labels

    return len(source.class_names) or int(require_labels(source).max()) + 1


def _text(facts: dict[str, Any]) -> str:
    """Return the lines that a person reads."""
    weights = facts["weights"]
    minutes, seconds = divmod(round(facts["seconds"]), 60)
    rows = [
        ("network", f"{facts['network']}, {facts['classes']} classes"),
        ("top-1", f"{float(weights['top1']):.2%} of {weights['top1_of']}"),
        ("trained", f"{weights['passes']} image passes, {minutes} min {seconds} s"),
        ("file", f"{facts['file']} ({facts['bytes'] / 1e6:.1f} MB)"),
    ]
    return "\n".join(f"{name:<9} {value}" for name, value in rows)
