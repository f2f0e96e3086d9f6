"""``strata calibrate``: activation statistics of a float network over images."""

from __future__ import annotations

import gc
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from calib_data.open import absolute
from calib_data.preprocess import PRESETS, preprocess_option
from core.artifacts import sha256_file
from core.errors import InputError, MissingBackendError
from core.outputs import require_outputs
from deploy.cli.data_options import data_options
from deploy.cli.layer_options import LayerRequest, layer_options
from deploy.cli.progress import progress_bar
from deploy.cli.spread_options import ray_option, shard_option
from deploy.cli.stage import OUTPUT, Stage
from deploy.cli.warnings import warn_of
from deploy.images import ImageRequest, open_images
from exporter.model_file import ModelFile, read_model_file

if TYPE_CHECKING:
    from exporter.calibration.statistics import Statistics
    from exporter.calibration.work import Taps
    from exporter.card import Card

__all__ = ["command"]

_PRESET = "fashion-mnist"
_DATA = f"{_PRESET}:train"
_DEFAULT_SUITS = (_PRESET, "random:")  # random weights were trained on nothing


@click.command("calibrate", cls=Stage)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    help="The file to write.  [default: statistics.npz beside MODEL]",
)
@data_options(
    images=512,
    batch=8,
    data=_DATA,
    batch_help="Taken, and without effect: images run one by one, so that no result can depend "
    "on what else is in a batch. It is the faster way too.",
    noise=True,
)
@shard_option("strata merge adds the parts up")
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="CPUs to use; with --ray, of each worker.  [default: all that there are; with --ray, 1]",
)
@ray_option("MODEL")
@layer_options
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    model: Path,
    output: Path | None,
    request: ImageRequest,
    shard: tuple[int, int],
    threads: int,
    address: str | None,
    layers: LayerRequest,
    as_json: bool,
) -> None:
    """Collect activation statistics over calibration images.

    The file depends on the model, the preprocessing and the set of images alone. A run that
    is stopped leaves a hidden file beside it, and the next one carries on from there.

    What reaches the network is looked at too: a warning on stderr says what is wrong with it.
    The default --data serves networks for Fashion-MNIST only; others name theirs.
    """
    started = time.monotonic()
    target = output or model.with_name("statistics.npz")
    require_outputs([target], [model])
    with ThreadPoolExecutor(1, "strata-read") as pool:  # the disk does not wait for the libraries
        reading = pool.submit(_read, model)
        try:
            import exporter.quantization.placement  # noqa: F401 - asked for below, said here
            from exporter.calibrate import calibrate
            from exporter.calibration.input_look import look_at_input
            from exporter.calibration.work import CalibrationOptions, Cluster, ImageSet
        except ImportError as err:
            raise MissingBackendError(
                f"calibrating needs a library that is not here ({err})",
                hint="pip install 'strata[export]'",
            ) from err
        file, sha256 = reading.result()
    tensors, card = _plan(file, layers)
    del file, reading  # else its bytes would stay in memory
    _require_data(model, card)
    images = open_images(request, {model.name: card.preprocess})
    given = preprocess_option(request.preprocess) if request.preprocess else card.preprocess
    data = ImageSet(images.source, images.indices, images.spec, images.origin(given))
    partial = target.with_name(f".{target.name}.partial")
    cluster = None if address is None else Cluster(absolute(request.data), address)
    options = CalibrationOptions(threads, shard, partial, cluster)
    with progress_bar("calibrate") as bar:
        statistics = calibrate(model, data, tensors, options, sha256=sha256, progress=bar)
    statistics.write(target)
    partial.unlink(missing_ok=True)
    look = look_at_input(statistics, part=shard != (1, 1), where=images.where)
    warn_of(look.warnings)
    facts = _facts(statistics, target) | {
        "input": asdict(look),
        "data": images.source.name,
        "seconds": round(time.monotonic() - started, 2),
    }
    click.echo(json.dumps(facts, indent=2, ensure_ascii=False) if as_json else _text(facts))


def _read(model: Path) -> tuple[ModelFile, str]:
    """Return the model's file and its SHA-256."""
    file = read_model_file(model)
    return file, file.sha256()


def _plan(file: ModelFile, layers: LayerRequest) -> tuple[Taps, Card]:
    """Return the tensors to count, and what the model says of itself."""
    from exporter.calibration.work import Taps
    from exporter.onnx_file import card_of, parse

    gc.freeze()  # the libraries are no garbage: below, only the graph is looked at
    graph = parse(file)
    plan = layers.plan_for(graph)
    card = card_of(graph, where=str(file.path))
    del graph
    gc.collect()  # nodes and tensors refer to each other; their weights must not stay in memory
    return Taps(tuple(a.tensor for a in plan.activations), plan.passed), card


def _require_data(model: Path, card: Card) -> None:
    """Refuse to guess the data of a network that is not known to be for the default's."""
    source = click.get_current_context().get_parameter_source("data")
    suits = card.weights.get("name", "").startswith(_DEFAULT_SUITS)
    suits |= card.preprocess == PRESETS[_PRESET]
    if source is click.core.ParameterSource.DEFAULT and not suits:
        raise InputError(
            f"{model}: no --data, and nothing says that this network was trained on the default, "
            f"{_DATA}",
            hint="name images of the kind it was trained on: --data FOLDER",
        )


def _facts(statistics: Statistics, path: Path) -> dict[str, Any]:
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": sha256_file(path),
        "model": statistics.model,
        "images": len(statistics.images),
        "images_sha256": statistics.images_sha256,
        "tensors": {
            name: {"min": h.minimum, "max": h.maximum, "values": h.count}
            for name, h in statistics.tensors.items()
        },
    }


def _text(facts: dict[str, Any]) -> str:
    values = sum(tensor["values"] for tensor in facts["tensors"].values())
    return (
        f"{facts['file']}  {facts['bytes'] / 1e6:.1f} MB\n"
        f"  images  {facts['images']} of {facts['data']} (sha256 {facts['images_sha256'][:12]}…)\n"
        f"  input   mean {_list(facts['input']['mean'])}; std {_list(facts['input']['std'])}\n"
        f"  counted {values:,} values of {len(facts['tensors'])} tensors\n"
        f"  took    {facts['seconds']:.1f} s"
    )


def _list(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)
