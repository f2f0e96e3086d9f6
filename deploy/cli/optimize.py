"""``strata optimize``: the graph passes, each saying what it did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.artifacts import sha256_file
from core.errors import MissingBackendError
from core.outputs import require_outputs
from deploy.cli.onnx_facts import check_facts, graph_facts, open_images, prepared, result_text
from deploy.cli.progress import progress_bar
from deploy.cli.stage import OUTPUT, Stage
from deploy.cli.warnings import shown

if TYPE_CHECKING:
    import onnx


__all__ = ["command"]

_IMAGES = 2
_RANDOM = "random numbers"


@click.command("optimize", cls=Stage)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    help="The ONNX file to write.  [default: optimized.onnx beside MODEL]",
)
@click.option(
    "--data",
    help="Images to check with.  [default: fashion-mnist:test where MODEL says how images are "
    "prepared, else random numbers]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(model: Path, output: Path | None, data: str | None, as_json: bool) -> None:
    """Run the graph passes over an exported ONNX file.

    Works on any ONNX file of opset 13 or newer. Each tensor that survives must reach
    100 dB against MODEL, or no file is written.
    """
    try:
        from exporter.optimize import optimize
    except ImportError as err:
        raise MissingBackendError(
            f"the graph passes need a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    from exporter.onnx_file import load, save
    from exporter.passes.base import NOTHING

    target = output or model.with_name("optimized.onnx")
    require_outputs([target], [model])
    before = load(model)
    with progress_bar("passes") as bar:
        after, results = optimize(before, progress=bar)
    checked = _check(before, after, data)
    _set_card(after, model)
    save(after, target)
    passes = [{"pass": r.name, "changed": r.changed, "reason": r.reason} for r in results]
    facts = {
        "file": str(target),
        "sha256": sha256_file(target),
        **graph_facts(after, target),
        "nodes_before": len(before.graph.node),
        "passes": passes,
        "check": {"against": model.name, **checked},
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    idle = [result.name for result in results if result.reason.endswith(NOTHING)]
    for result in results:
        if result.name not in idle:
            click.echo(shown(f"{result.name:<15} {result.reason}"))
    click.echo(f"{NOTHING:<15} {', '.join(idle)}")
    click.echo(shown(result_text(facts)))


def _check(before: onnx.ModelProto, after: onnx.ModelProto, data: str | None) -> dict[str, Any]:
    """Run both on the same images, or on random numbers where none can be prepared."""
    from exporter.onnx_file import card_of
    from exporter.optimize import check_optimized
    from exporter.session import open_session
    from exporter.tensor_check import random_feed

    inputs = open_session(after).inputs
    spec = card_of(before).preprocess
    if data is None and (spec is None or len(inputs) != 1):
        data, feed = _RANDOM, random_feed(inputs, batch=_IMAGES)
    else:
        data = data or "fashion-mnist:test"
        batch = inputs[0].shape[0] if inputs[0].shape else _IMAGES
        count = batch if isinstance(batch, int) else _IMAGES
        feed = {inputs[0].name: prepared(open_images(data, count), spec)}
    with progress_bar("check") as bar:
        check = check_optimized(before, after, [feed], progress=bar)
    images = max((len(array) for array in feed.values() if array.ndim), default=1)
    return {"data": data, "images": images, **check_facts(check)}


def _set_card(after: onnx.ModelProto, model: Path) -> None:
    """Say what the optimized file was made from; the rest of the card is the model's."""
    from exporter.onnx_file import card_of, set_card

    card = card_of(after, where=str(model))
    parents = {"model": sha256_file(model)}
    set_card(after, replace(card, parents=parents, stage="optimized"))
