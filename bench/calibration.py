"""Measure Strata's calibration against plain inference and against other tools.

``make bench-peers`` and ``make bench-calibration`` run it; ``--help`` says what it takes.
Everything runs on the same images: N of ``--data`` to calibrate with, ``--test`` to answer.
The table goes to stdout, and into ``-o`` with a Markdown table and every number as JSON.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import click

from bench.answers import Answers, reference
from bench.flat import flat_lines
from bench.images import prepared, write_images
from bench.measure import Limits
from bench.peers.feed import BATCH
from bench.report import Report, Row, setting_of
from bench.rounds import Rounds, cost, run_rounds, together
from bench.tools import STRATA, TOOLS, Job, Tool
from core.errors import InputError, StrataError
from deploy.images import ImageRequest
from deploy.machines.machine import examine

_FILE = click.Path(path_type=Path)


@dataclass(frozen=True, slots=True)
class _Course:
    """What to measure, and how often.

    Attributes:
        tools: Rows of the table, in order.
        rounds: Of measurements.
        environments: Where the peers' environments lie.
        seconds: What one process may take.
        test: Labelled images to answer, and how many; None for none.
        flat: Numbers of images to measure the growth of memory over.
    """

    tools: tuple[Tool, ...]
    rounds: int
    environments: Path
    seconds: int
    test: ImageRequest | None
    flat: tuple[int, ...]


@click.command(context_settings={"max_content_width": 100, "show_default": True})
@click.argument("model", type=_FILE)
@click.option("-o", "--output", type=_FILE, required=True, help="Folder for what is made.")
@click.option("--data", default="fashion-mnist:train", help="Images to calibrate with.")
@click.option("--images", type=click.IntRange(min=BATCH), default=256, help="How many of them.")
@click.option("--test", default="", help="Labelled images to answer.  [default: none]")
@click.option("--test-images", type=click.IntRange(min=1), help="Only so many.  [default: all]")
@click.option("--tools", default="all", help="all, or keys with commas between them.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Each tool runs so often.")
@click.option("--method", default="auto", help="What strata quantize is told.")
@click.option("--held-out", type=click.IntRange(min=0), default=0, help="Images it tries it on.")
@click.option("--flat", default="", help="Numbers of images to compare memory over: 64,1024.")
@click.option("--environments", type=_FILE, default=Path("build/peers"), help="The peers'.")
@click.option("--seconds", type=click.IntRange(min=1), default=3600, help="Limit of a process.")
@click.option("--markdown", is_flag=True, help="Print the table in Markdown.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def main(
    model: Path,
    output: Path,
    data: str,
    images: int,
    test: str,
    test_images: int | None,
    tools: str,
    rounds: int,
    method: str,
    held_out: int,
    flat: str,
    environments: Path,
    seconds: int,
    markdown: bool,
    as_json: bool,
) -> None:
    """Quantize MODEL, a float ONNX file, with Strata and its peers; measure each."""
    os.environ.setdefault("NNCF_CI", "1")  # no telemetry: waiting for it is not quantizing
    try:
        if images % BATCH or held_out >= images:
            raise InputError(
                f"{images} images, {held_out} held out",
                hint=f"give a multiple of {BATCH} images, and hold out fewer",
            )
        answered = ImageRequest(test, test_images) if test else None
        course = _Course(_tools(tools), rounds, environments, seconds, answered, _numbers(flat))
        job = Job(model, output / "images.npz", images, output, method, held_out)
        report = _report(job, data, course)
    except StrataError as err:
        raise click.ClickException(str(err)) from err
    text = json.dumps(report.to_json(), indent=2, ensure_ascii=False)
    kept = {"result.json": text, "table.md": report.to_markdown(), "table.txt": report.to_text()}
    for name, content in kept.items():
        (output / name).write_text(content + "\n", encoding="utf-8")
    click.echo(kept["result.json" if as_json else "table.md" if markdown else "table.txt"])


def _tools(text: str) -> tuple[Tool, ...]:
    """Read a list of tools; InputError where it names none."""
    known = {tool.key: tool for tool in TOOLS}
    keys = list(known) if text == "all" else text.split(",")
    unknown = [key for key in keys if key not in known]
    if unknown:
        raise InputError(f"no tool {unknown[0]!r}", hint=f"there are {', '.join(known)}")
    return tuple(known[key] for key in keys)


def _numbers(text: str) -> tuple[int, ...]:
    """Read a list of numbers, which may be empty."""
    numbers = text.split(",") if text else []
    if not all(number.isdigit() and int(number) for number in numbers):
        raise InputError(f"--flat {text!r} is no list of numbers", hint="give 64,1024")
    return tuple(map(int, numbers))


def _report(job: Job, data: str, course: _Course) -> Report:
    """Make the images, measure, and put everything together."""
    machine = examine(job.folder)
    images = prepared(job.model, ImageRequest(data, job.count))
    write_images(images, job.images)
    limits = Limits(int(0.9 * machine.memory_bytes[0]), course.seconds)
    rounds = run_rounds(
        course.tools, job, course.environments, limits, rounds=course.rounds, say=_say
    )
    answers = reference(job, course.test, course.environments, _say) if course.test else None
    rows = [row for tool in course.tools for row in _rows(tool, rounds, job, answers)]
    plain = cost(rounds.plain, rounds.plain)
    return Report(
        setting=setting_of(machine, job, images, course.tools, course.rounds),
        plain=(plain.wall_s, plain.peak_bytes),
        float_top1=answers.top1 if answers else None,
        rows=rows,
        extra=flat_lines(job, data, course.flat, limits, _say),
        raw={"rounds": rounds, "images": images.record().to_json()},
    )


def _say(text: str) -> None:
    click.echo(text, err=True)


def _rows(tool: Tool, rounds: Rounds, job: Job, answers: Answers | None) -> list[Row]:
    """Return a tool's line; Strata's two stages have one each, too."""
    runs = rounds.tools[tool.key]
    whole = [together(steps) for steps in runs]
    problem = whole[-1].problem
    row = Row(tool.title, note=tool.note, problem=problem)
    if not problem:
        row = replace(row, cost=cost(whole, rounds.plain))
        if answers:
            row = answers.add_to(row, tool, tool.output(job))
    if tool is not STRATA or problem:
        return [row]
    stages = [
        Row(f"  {stage}", cost=cost([steps[stage] for steps in runs], rounds.plain))
        for stage in runs[0]
    ]
    return [row, *stages]


if __name__ == "__main__":
    main()
