"""``strata merge``: the shards of a calibration become one file."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from core.artifacts import sha256_file
from deploy.cli.stage import OUTPUT, Stage
from deploy.cli.warnings import warn_of

__all__ = ["command"]


@click.command("merge", cls=Stage)
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=OUTPUT,
    default="statistics.npz",
    show_default=True,
    help="The file to write.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(parts: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Add up shards of activation statistics.

    PARTS, in any order, are what strata calibrate --shard 1/N … N/N wrote; all of them
    together give the file of one run over all images, byte for byte.
    """
    from exporter.calibration.input_look import look_at_input
    from exporter.calibration.merging import merge
    from exporter.calibration.statistics import read_statistics

    whole = merge([read_statistics(part) for part in parts], [str(part) for part in parts])
    whole.write(output)
    look = look_at_input(whole)
    warn_of(look.warnings)
    facts = {
        "file": str(output),
        "sha256": sha256_file(output),
        "parts": [str(part) for part in parts],
        "input": asdict(look),
        "images": len(whole.images),
        "images_sha256": whole.images_sha256,
    }
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        click.echo(f"{output}  {len(whole.images)} images from {len(parts)} parts")
