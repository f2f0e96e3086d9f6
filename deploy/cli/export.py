"""``strata export``: PyTorch to ONNX, every tensor checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.artifacts import sha256_file
from core.errors import MissingBackendError
from deploy.cli.model_options import model_options
from deploy.cli.onnx_facts import check_facts, graph_facts, open_images, prepared, result_text
from deploy.cli.progress import progress_bar
from deploy.cli.stage import OUTPUT, Stage
from exporter.models.config import ModelOptions
from exporter.models.families import name_of

if TYPE_CHECKING:
    from exporter.export import ExportOptions
    from exporter.models.checkpoint import Checkpoint

__all__ = ["command"]

_FEWEST_IMAGES = 3  # one alone and two together: two batch sizes


@dataclass(frozen=True, slots=True)
class _Weights:
    """What was said of the weights: their name or file, and how images are prepared."""

    text: str
    preprocess: str | None


@dataclass(frozen=True, slots=True)
class _Images:
    """What the check runs on."""

    data: str
    count: int


def _size(
    _ctx: click.Context, _param: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    """Read 224 or 1024x2048."""
    if value is None:
        return None
    sides = value.lower().replace("×", "x").split("x")
    if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise click.BadParameter(f"{value!r} is not a size such as 224 or 1024x2048")
    return int(sides[0]), int(sides[-1])


@click.command("export", cls=Stage)
@model_options(outputs=True)
@click.option(
    "--weights",
    default="fashion-mnist",
    show_default=True,
    help="fashion-mnist, imagenet, imagenet-v1, random:SEED, a .safetensors or .pth file.",
)
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    default="model.onnx",
    show_default=True,
    help="The ONNX file to write.",
)
@click.option("--opset", type=int, default=19, show_default=True, help="ONNX opset, 19 to 23.")
@click.option(
    "--size",
    callback=_size,
    metavar="HxW",
    help="Input size; images are resized to it.  [default: what the preprocess spec makes]",
)
@click.option("--dynamic-size", is_flag=True, help="Leave height and width free.")
@click.option("--preprocess", help="A preset or numbers, in place of what the weights say.")
@click.option(
    "--data",
    default="fashion-mnist:test",
    show_default=True,
    help="Images to check with, of any kind: the check compares, it does not classify.",
)
@click.option(
    "--images",
    type=click.IntRange(min=_FEWEST_IMAGES),
    default=_FEWEST_IMAGES,
    show_default=True,
    help="How many of them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    model: ModelOptions,
    weights: str,
    output: Path,
    opset: int,
    size: tuple[int, int] | None,
    dynamic_size: bool,
    preprocess: str | None,
    data: str,
    images: int,
    as_json: bool,
) -> None:
    """Export the PyTorch network to ONNX, checked against PyTorch.

    Every module's output is a tensor of the module's name. Each must reach 100 dB against
    PyTorch on real images, in two batch sizes, or no file is written.
    """
    try:
        from exporter.export import ExportOptions
    except ImportError as err:
        raise MissingBackendError(
            f"exporting needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    checkpoint = _load(_Weights(weights, preprocess), model)
    for note in checkpoint.notes:
        click.echo(f"note: {note}", err=True)
    options = ExportOptions(size=size, free_size=dynamic_size, opset=opset)
    facts = _export(checkpoint, options, _Images(data, images), output)
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else result_text(facts))


def _load(weights: _Weights, model: ModelOptions) -> Checkpoint:
    from calib_data.preprocess import preprocess_option
    from exporter.weights import load_weights

    spec = None if weights.preprocess is None else preprocess_option(weights.preprocess)
    with progress_bar("weights") as bar:
        return load_weights(weights.text, model, preprocess=spec, progress=bar)


def _export(
    checkpoint: Checkpoint, options: ExportOptions, images: _Images, output: Path
) -> dict[str, Any]:
    """Export, check and write; return what there is to say."""
    from exporter.export import check_export, export
    from exporter.onnx_file import card_of, save

    source = open_images(images.data, images.count)  # first: what is wrong with it is said at once
    with progress_bar("export") as bar:
        onnx = export(checkpoint, options, progress=bar)
    pixels = prepared(source, card_of(onnx).preprocess)
    with progress_bar("check") as bar:
        check = check_export(onnx, checkpoint, pixels, progress=bar)
    save(onnx, output)
    return {
        "file": str(output),
        "sha256": sha256_file(output),
        **graph_facts(onnx, output),
        "network": name_of(checkpoint.config),
        "weights": dict(checkpoint.origin),
        "check": {
            "against": "PyTorch",
            "data": images.data,
            "images": images.count,
            **check_facts(check),
        },
    }
