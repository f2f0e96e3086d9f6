"""``strata refit``: a plan gets the weights of an ONNX file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.cli.stage import OUTPUT, Stage

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("refit", cls=Stage)
@click.argument("engine", type=_PATH)
@click.argument("onnx", type=_PATH)
@click.option("-o", "--output", type=OUTPUT, required=True, help="The plan to write.")
@click.option("--json", "as_json", is_flag=True, help="Print the new manifest as JSON.")
def command(engine: Path, onnx: Path, output: Path, as_json: bool) -> None:
    """Give an engine the weights of an ONNX file.

    ENGINE was built with --strip-weights, and ONNX is the file it was built from; or with
    --refit, and ONNX is the same network, trained otherwise. Needs the GPU it is for.
    """
    from deploy.engines.refit import refit

    made = refit(engine, onnx, output)
    if as_json:
        click.echo(json.dumps(made.to_json(), indent=2, ensure_ascii=False))
    else:
        click.echo(f"{output}  {made.plan_bytes / 1e6:.1f} MB, its manifest beside it")
