"""Measure ``strata evaluate`` against a process that only runs the network over the same batches.

    python -m bench.evaluate build/resnet18/optimized.onnx -o build/bench/evaluate

Both read prepared images from one file, in batches of 8; the other one drops its answers. The
rounds take turns, each with both in it; the peaks are at a tenth of the images and at all.
"""

from __future__ import annotations

import statistics
import sys
import zipfile
from pathlib import Path

import click
import numpy as np

from bench.images import prepared, write_images
from bench.measure import Usage, measure
from bench.peers.feed import BATCH
from bench.tools import strata_command
from core.errors import InputError
from deploy.images import ImageRequest

_FILE = click.Path(path_type=Path)


def _write(model: Path, request: ImageRequest, path: Path) -> None:
    """Write images and labels, prepared as the model wants them."""
    labels = write_images(prepared(model, request), path)
    if labels is None:
        raise InputError(f"{request.data}: no labels", hint="name labelled images")
    with zipfile.ZipFile(path, "a") as archive, archive.open("labels.npy", "w") as file:
        np.lib.format.write_array(file, labels)


def _run(command: list[str], log: Path) -> Usage:
    used = measure(command, log)
    if used.problem:
        raise click.ClickException(used.problem)
    return used


@click.command()
@click.argument("model", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="Folder for what is made.")
@click.option("--data", default="fashion-mnist:test", show_default=True)
@click.option("--images", type=click.IntRange(min=10 * BATCH), default=10_000, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
def main(model: Path, output: Path, data: str, images: int, rounds: int) -> None:
    """Measure evaluation against a bare loop."""
    output.mkdir(parents=True, exist_ok=True)
    log = output / "log"
    few = images // 10 // BATCH * BATCH
    files = {count: output / f"images-{count}.npz" for count in (few, images // BATCH * BATCH)}
    for count, path in files.items():
        _write(model, ImageRequest(data, count), path)
    commands = {
        count: {
            "bare": [sys.executable, "-m", "bench.peers.plain", str(model), str(path)],
            "evaluate": strata_command(["evaluate", model, "--data", path, "--batch", BATCH]),
        }
        for count, path in files.items()
    }
    ratios: list[float] = []
    for at in range(rounds):
        used = {name: _run(command, log) for name, command in commands[max(files)].items()}
        ratios.append(used["bare"].wall_s / used["evaluate"].wall_s)
        print(
            f"round {at + 1}: bare {used['bare'].wall_s:.2f} s, evaluate "
            f"{used['evaluate'].wall_s:.2f} s wall; CPU {used['bare'].cpu_s:.2f} and "
            f"{used['evaluate'].cpu_s:.2f} s: {ratios[-1]:.3f} ×",
            flush=True,
        )
    print(f"speed of a bare loop: {statistics.median(ratios):.3f} × (median)")
    for count in files:
        peaks = {n: _run(c, log).peak_bytes / 2**20 for n, c in commands[count].items()}
        print(f"{count:,} images: {peaks['evaluate']:.0f} MiB; bare {peaks['bare']:.0f} MiB")


if __name__ == "__main__":
    main()
