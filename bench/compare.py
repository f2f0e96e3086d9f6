"""Measure ``strata compare`` against running both networks once, and against Polygraphy.

    make bench-compare
    python -m bench.compare optimized.onnx int8.onnx -o build/bench/compare

Every figure is of whole processes, from start to end, in rounds: each round runs both networks
once in ONNX Runtime, its optimizations off, in a process each, and then compares them. Ratios
are taken within a round; the peak is held against the larger of the two. Polygraphy compares one
batch by its own means: all tensors marked as outputs, those of the first network saved, and
those of the second held against them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bench.compare_table import Course, Found, table
from bench.images import prepared, write_images
from bench.measure import Limits, Usage, measure
from bench.peers.feed import BATCH
from bench.rounds import together
from bench.tools import strata_command
from core.artifacts import sha256_file, write_json
from core.errors import StrataError
from deploy.images import ImageRequest
from deploy.machines.machine import examine

__all__ = ["run"]

_FILE = click.Path(path_type=Path)
# Exit code 7 says that a layer is to blame: which ones is not asked here.
_BLAMED = ["sh", "-c", '"$@" || [ $? = 7 ]', "sh"]


def run(course: Course) -> Found:
    """Measure.

    Raises:
        ClickException: A process failed; its log is named.
    """
    plain: list[Usage] = []
    compared: list[Usage] = []
    if course.rounds:  # files come from the disk only once, and loops are compiled once
        _plain(course)
        _strata(course, course.one_batch)
    for number in range(1, course.rounds + 1):
        click.echo(f"round {number} of {course.rounds}", err=True)
        plain.append(_plain(course))
        compared.append(_strata(course, course.all_images))
    if not course.rounds:
        compared.append(_strata(course, course.all_images))
    if not course.peer:
        return Found(tuple(plain), tuple(compared))
    click.echo("one batch: Strata and Polygraphy", err=True)
    batch = _strata(course, course.one_batch), _polygraphy(course)
    return Found(tuple(plain), tuple(compared), batch)


def _plain(course: Course) -> Usage:
    """Run both networks over all images, each in a process of its own."""
    python = [sys.executable, "-m", "bench.peers.plain", "--off", "--batch", str(course.batch)]
    steps = {
        model.stem: _done(course, "plain", [*python, str(model), str(course.all_images)])
        for model in course.models
    }
    return together(steps)


def _strata(course: Course, images: Path) -> Usage:
    words = ["compare", *course.models, "--data", images, "--batch", course.batch]
    count = course.images if images == course.all_images else course.batch
    return _done(course, "compare", [*_BLAMED, *strata_command([*words, "--images", count])])


def _polygraphy(course: Course) -> Usage:
    """Compare one batch: two runs, one after the other."""
    inputs, outputs = course.folder / "inputs.json", course.folder / "outputs.json"
    written = [str(course.one_batch), str(course.batch), _image_of(course.models[0]), str(inputs)]
    write = [sys.executable, "-m", "bench.peers.polygraphy_inputs", *written]
    _done(course, "polygraphy", write)
    program = str(Path(sys.executable).with_name("polygraphy"))
    common = ["--onnxrt", "--providers", "cpu", "--onnx-outputs", "mark", "all"]
    common += ["--load-inputs", str(inputs)]
    first, second = ([program, "run", str(model), *common] for model in course.models)
    # Any difference is within this tolerance: it need not write about those beyond.
    second += ["--load-outputs", str(outputs), "--atol", "1e30"]
    try:
        saved = _done(course, "polygraphy", [*first, "--save-outputs", str(outputs)])
        # Tensors that were shifted or scaled go by other names there: its verdict may be a failure.
        compared = _done(course, "polygraphy", second, verdict="Accuracy Summary")
        return together({"save": saved, "compare": compared})
    finally:
        for path in (inputs, outputs):
            path.unlink(missing_ok=True)  # a GB of JSON


def _image_of(model: Path) -> str:
    """Return the name of a network's input."""
    from exporter.onnx_file import load

    return str(load(model).graph.input[0].name)


def _done(course: Course, name: str, command: Sequence[str], verdict: str = "") -> Usage:
    log = course.folder / f"{name}.log"
    used = measure(command, log, course.limits)
    if used.problem and not (verdict and verdict in log.read_text(errors="replace")):
        raise click.ClickException(f"{name}: {used.problem} ({log})")
    return used


def _setting(course: Course) -> dict[str, Any]:
    machine = examine(course.folder)
    return {
        "models": {path.name: sha256_file(path) for path in course.models},
        "cpu": machine.cpu.model,
        "cpus": machine.cpu.cores,
        "images": course.images,
        "batch": course.batch,
        "rounds": course.rounds,
    }


@click.command(context_settings={"max_content_width": 100, "show_default": True})
@click.argument("reference", type=_FILE)
@click.argument("candidate", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="Folder for what is made.")
@click.option("--data", default="fashion-mnist:test", help="Images to compare on.")
@click.option("--images", type=click.IntRange(min=1), default=32, help="Whole batches of them.")
@click.option("--batch", type=click.IntRange(min=1), default=BATCH)
@click.option("--rounds", type=click.IntRange(min=0), default=3, help="0: only compare, once.")
@click.option("--polygraphy/--no-polygraphy", default=True, help="One batch by Polygraphy, too.")
def main(reference: Path, candidate: Path, output: Path, data: str, **given: Any) -> None:
    """Measure the comparison of REFERENCE and CANDIDATE; print a table and keep it in OUTPUT."""
    images, batch, peer = given["images"], given["batch"], given["polygraphy"]
    if images % batch:
        raise click.ClickException(f"--images {images} is no whole number of batches of {batch}")
    output.mkdir(parents=True, exist_ok=True)
    try:
        memory = examine(output).memory_bytes[0]
        limits = Limits(data_bytes=int(0.9 * memory))
        models = (reference, candidate)
        course = Course(models, output, images, batch, given["rounds"], peer, limits)
        write_images(
            prepared(reference, ImageRequest(data, images, batch=batch)), course.all_images
        )
        write_images(prepared(reference, ImageRequest(data, batch, batch=batch)), course.one_batch)
        found = run(course)
    except StrataError as err:
        raise click.ClickException(str(err)) from err
    write_json(output / "compare.json", {"setting": _setting(course), "found": asdict(found)})
    click.echo(table(found, course))


if __name__ == "__main__":
    main()
