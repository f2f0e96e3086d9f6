"""``strata bench``: how long a model takes, and whether another one is faster."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from core.errors import InputError
from deploy.cli.stage import OUTPUT, Stage

__all__ = ["command"]


def _batches(_ctx: click.Context, _param: click.Parameter, text: str | None) -> Any:
    """Read 1,8,32."""
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4})*", text):
        raise click.BadParameter(f"{text!r} is not a list of batch sizes, such as 1,8,32")
    return tuple(dict.fromkeys(map(int, text.split(","))))


@click.command("bench", cls=Stage)
@click.argument("models", metavar="MODEL [MODEL]", nargs=-1, required=True)
@click.option("--batch", callback=_batches, help="Batch sizes.  [default: 1,8,32]")
@click.option("--size", help="Of the images, for a model that leaves it free: 224, or 1024x2048.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, max=3600),
    default=5.0,
    show_default=True,
    help="Of timing at each batch size; up to six times as long where two are hard to tell apart.",
)
@click.option(
    "--warm-up",
    type=click.FloatRange(min=0, max=600),
    default=0.5,
    show_default=True,
    help="Seconds for each model at each batch size, before.",
)
@click.option(
    "--on",
    type=click.Choice(["auto", "gpu", "cpu"]),
    default="auto",
    show_default=True,
    help="Where a bundle runs.",
)
@click.option("--fast", is_flag=True, help="ONNX Runtime's fast kernels for INT8 and FP16, too.")
@click.option(
    "--json",
    "json_path",
    type=OUTPUT,
    help="Write the result to this file; - prints it in place of the table.",
)
@click.option("--svg", type=OUTPUT, help="Also draw the times, turn by turn.")
def command(models: tuple[str, ...], **said: Any) -> None:
    """Time a model, or two in turns: latency, throughput, which is faster.

    MODEL is FILE.onnx, FILE.engine on a GPU, torch:WEIGHTS, trt-network:FILE.onnx, or a bundle.
    Two models take turns in rounds, so that a machine that slows down slows both; the verdict
    is the median of the rounds' ratios, with its interval, and takes up to 3 % for no difference.
    """
    from core.artifacts import write_json, write_text
    from deploy.bench.plot import bench_svg
    from deploy.bench.run import choose_batches, measure
    from deploy.bench.subject import How, open_subject, with_labels
    from deploy.bench.to_json import bench_json
    from deploy.bench.to_text import bench_text
    from deploy.bench.turns import Effort
    from deploy.cli.progress import progress_bar
    from deploy.engines.target import parse_size

    if len(models) > 2:
        raise InputError(
            f"{len(models)} models; two at most take turns", hint="time them two by two"
        )
    how = How(said["on"], said["fast"], parse_size(said["size"]) if said["size"] else None)
    with ExitStack() as stack:
        subjects = []
        for text in models:
            subjects.append(open_subject(text, how))
            stack.callback(subjects[-1].close)
        subjects = list(with_labels(subjects))
        batches = choose_batches(subjects, said["batch"])
        with progress_bar("bench") as bar:
            effort = Effort(said["seconds"], said["warm_up"])
            found = measure(subjects, batches, effort, progress=bar)
    # First what took the time; a file that cannot be written is an error of its own.
    on_stdout = said["json_path"] == Path("-")
    as_json = bench_json(found)
    click.echo(json.dumps(as_json, indent=2) if on_stdout else bench_text(found))
    if said["json_path"] is not None and not on_stdout:
        write_json(said["json_path"], as_json)
    if said["svg"] is not None:
        write_text(said["svg"], bench_svg(found))
