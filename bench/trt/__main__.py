"""Building engines without a GPU, and TensorRT's networks on the CPU against ONNX Runtime.

    make bench-trt
    python -m bench.trt -o build/bench/trt --parts layers,answers --trained build/resnet50

Every figure is of a process of its own: CPU seconds (one core or many, the sum is the same)
and the most memory it held. What a process takes to import the libraries is measured, too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from bench.measure import Usage, measure
from bench.tools import strata_command
from bench.trt.nets import PRECISIONS, Net, foreign_nets, random_nets, trained_net
from core.artifacts import write_json

_FILE = click.Path(path_type=Path)
_PARTS = ("build", "layers", "speed", "answers")
_IMPORTS = (
    "import deploy.cli, deploy.cli.build, deploy.engines.build; "
    "from deploy.engines.flavour import load_flavour; "
    "from deploy.cli.progress import progress_bar; load_flavour('rtx').config_loader((), (), {})"
)
Row = dict[str, Any]


@click.command()
@click.option("-o", "--output", type=_FILE, required=True, help="Folder for what is made.")
@click.option("--parts", default=",".join(_PARTS), show_default=True)
@click.option("--depths", default="18,34,50,101,152", show_default=True)
@click.option("--trained", type=_FILE, multiple=True, help="Output folder of make export.")
@click.option("--data", default="fashion-mnist:test", show_default=True, help="For the trained.")
@click.option("--images", type=click.IntRange(min=1), default=10_000, help="To answer.")
@click.option("--batches", type=click.IntRange(min=1), default=3, help="To time, of 8 images.")
def main(
    output: Path,
    parts: str,
    depths: str,
    trained: tuple[Path, ...],
    data: str,
    images: int,
    batches: int,
) -> None:
    """Measure; print a table a part, and keep them in OUTPUT/result.json."""
    asked = parts.split(",")
    if unknown := set(asked) - set(_PARTS):
        raise click.ClickException(f"--parts: {unknown.pop()!r} is none of {', '.join(_PARTS)}")
    numbers = tuple(int(depth) for depth in depths.split(",") if depth)
    output.mkdir(parents=True, exist_ok=True)
    own = [trained_net(path, output, data) for path in trained]
    result: dict[str, list[Row]] = {}
    if "build" in asked:
        result["build"] = _table(_BUILD, _builds(random_nets(output, numbers, variants=False)))
    if "layers" in asked:
        some = tuple(depth for depth in numbers if depth in {18, 50, 152})
        nets = (*random_nets(output, some, variants=True), *foreign_nets(output), *own)
        result["layers"] = _table(_LAYERS, _layers(nets))
    if "speed" in asked:
        (net,) = random_nets(output, (50,), variants=False)
        result["speed"] = _table(_SPEED, _speeds(net, batches))
    if "answers" in asked:
        result["answers"] = _table(_ANSWERS, _answers(own, images))
    write_json(output / "result.json", result)


# ── the parts: each yields rows as they are measured ─────────────────────────────────────


def _builds(nets: Iterable[Net]) -> Iterator[Row]:
    """Build each network in each precision, for batches of 1 to 32."""
    bare: Usage | None = None
    for net in nets:
        log = net.folder / "build.log"
        bare = bare or _done(measure([sys.executable, "-c", _IMPORTS], log), log)
        for precision in PRECISIONS:
            engine = net.folder / f"{precision}.engine"
            words = ["build", net.file(precision), "--flavour", "rtx", "-o", engine]
            used = _done(measure(strata_command([*words, "--batch", "1,8,32"]), log), log)
            yield {
                "network": net.name,
                "precision": precision,
                "cpu_s": used.cpu_s - bare.cpu_s,
                "imports_s": bare.cpu_s,
                "peak_mb": used.peak_bytes / 1e6,
                "plan_mb": engine.stat().st_size / 1e6,
            }
            engine.unlink()


def _layers(nets: Iterable[Net]) -> Iterator[Row]:
    """Hold each network, in each precision, against ONNX Runtime, tensor by tensor."""
    for net in nets:
        for precision in PRECISIONS:
            data = [net.data] if net.data else []
            count = 64 if data else 4
            found, used = _worker(net, "layers", net.file(precision), count, *data)
            row = {"network": net.name, "precision": precision, **found}
            yield row | {"cpu_s": used.cpu_s, "peak_mb": used.peak_bytes / 1e6}


def _speeds(net: Net, batches: int) -> Iterator[Row]:
    """Time the evaluation of a network beside ONNX Runtime's fastest of its float form."""
    plain = None
    for kind, precision in (
        ("onnxruntime", "fp32"),
        *(("network", precision) for precision in PRECISIONS),
    ):
        found, used = _worker(net, kind, net.file(precision), batches)
        plain = plain or found["cpu_s"]
        yield {
            "run by": kind,
            "precision": precision,
            "cpu_s": found["cpu_s"],
            "ratio": found["cpu_s"] / plain,
            "peak_mb": used.peak_bytes / 1e6,
        }


def _answers(nets: Sequence[Net], images: int) -> Iterator[Row]:
    """Count the images that the parsed INT8 network answers otherwise than ONNX Runtime."""
    for net in (net for net in nets if net.data):
        log, out = net.folder / "answers.log", net.folder / "answers.json"
        models = [net.file("int8"), f"trt-network:{net.file('int8')}"]
        words = ["evaluate", *models, "--data", net.data, "--images", images, "--json", out]
        used = _done(measure(strata_command(words), log), log)
        one, other = json.loads(out.read_text())["models"]
        changed = other["changed"]
        yield {
            "network": net.name,
            "images": images,
            "equal": 1 - changed["answers"] / images,
            "top1": one["top1"] / images,
            "top1_network": other["top1"] / images,
            "logits_db": changed["sqnr_db"],
            "cpu_s": used.cpu_s,
        }


def _worker(net: Net, kind: str, *arguments: object) -> tuple[Row, Usage]:
    log = net.folder / f"{kind}.log"
    command = [sys.executable, "-m", "bench.trt.worker", kind, *map(str, arguments)]
    used = _done(measure(command, log), log)
    found: Row = json.loads(log.read_text().splitlines()[-1])
    return found, used


def _done(used: Usage, log: Path) -> Usage:
    if used.problem:
        raise click.ClickException(f"{used.problem} ({log})")
    return used


# ── tables ───────────────────────────────────────────────────────────────────────────────

# Key → how a value is written.
_BUILD = {"cpu_s": ".2f", "imports_s": ".2f", "peak_mb": ".0f", "plan_mb": ".1f"}
_LAYERS = {
    "tensors": "d",
    "free_db": ".1f",
    "own_db": ".1f",
    "quantizers": "d",
    "own_equal": ".4%",
    "equal": ".4%",
    "apart": "d",
    "cpu_s": ".1f",
    "peak_mb": ".0f",
}
_SPEED = {"cpu_s": ".3f", "ratio": ".2f", "peak_mb": ".0f"}
_ANSWERS = {
    "images": "d",
    "equal": ".3%",
    "top1": ".2%",
    "top1_network": ".2%",
    "logits_db": ".1f",
    "cpu_s": ".0f",
}


def _table(form: dict[str, str], rows: Iterable[Row]) -> list[Row]:
    """Print rows as they come, and return them."""
    found: list[Row] = []
    for row in rows:
        names = [key for key in row if key not in form]
        if not found:
            print("\n" + _line(names, form))
        cells = [format(row[k], f) if row[k] is not None else "–" for k, f in form.items()]
        print(_line([str(row[name]) for name in names], cells), flush=True)
        found.append(row)
    return found


def _line(names: Iterable[str], cells: Iterable[str]) -> str:
    return "".join(f"{name:<24}" for name in names) + "".join(f"{cell:>13}" for cell in cells)


if __name__ == "__main__":
    main()
