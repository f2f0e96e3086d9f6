"""``strata bundle``: what an edge machine or a server needs, in one file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.outputs import require_outputs
from deploy.cli.stage import OUTPUT, Stage

if TYPE_CHECKING:
    from deploy.bundle.collect import Collected
    from deploy.bundle.index import Index

__all__ = ["command"]

_PATH = click.Path(path_type=Path)
_SUFFIX = ".strata.zip"


@click.command("bundle", cls=Stage)
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("-o", "--output", type=OUTPUT, help="[default: DIR with its name and .strata.zip]")
@click.option("--model", type=_PATH, help="The graph.  [default: DIR's int8, fp16 or optimized]")
@click.option(
    "--plan",
    "plans",
    type=_PATH,
    multiple=True,
    help="A plan that was built elsewhere from the same graph, its manifest beside it; again "
    "for more. Those in DIR are taken anyway.",
)
@click.option("--licence", "licences", type=_PATH, multiple=True, help="A file to add.")
@click.option("--preprocess", help="A preset or numbers, in place of what the graph says.")
@click.option("--sign", type=_PATH, metavar="KEY", help="Sign it: an SSH or minisign secret key.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    folder: Path,
    output: Path | None,
    model: Path | None,
    plans: tuple[Path, ...],
    licences: tuple[Path, ...],
    preprocess: str | None,
    sign: Path | None,
    as_json: bool,
) -> None:
    """Put what an edge machine or a server needs into one file.

    The graph to build from, its plans, how images are prepared, labels, calibration, reports
    and licences, with a digest of each. The same files give the same bytes. strata run runs
    it with neither torch nor onnx.
    """
    from calib_data.preprocess import preprocess_option
    from deploy.bundle import signature
    from deploy.bundle.collect import Request, collect
    from deploy.bundle.writer import write_bundle
    from deploy.cli.progress import progress_bar

    spec = preprocess_option(preprocess) if preprocess is not None else None
    collected = collect(folder, Request(model, plans, licences, spec))
    path = output or folder / f"{folder.resolve().name}{_SUFFIX}"
    require_outputs([path], [part for part in collected.parts.values() if isinstance(part, Path)])
    if sign is not None:
        signature.signature_path(path, sign)  # a key that cannot be read, before all the work
    with progress_bar("bundle") as bar:
        index = write_bundle(path, collected.parts, progress=bar)
    signed = signature.sign(path, sign) if sign is not None else None
    for note in _notes(collected):
        click.echo(f"note: {note}", err=True)
    click.echo(_json(path, index, signed) if as_json else _text(path, index, collected, signed))


def _notes(collected: Collected) -> list[str]:
    from deploy.bundle.contents import PREPROCESS

    notes = [f"{plan} was built {how}, and is left out" for plan, how in collected.left_out.items()]
    if not collected.plans:
        notes.append("no plan is in it: each device builds its own from the graph")
    if PREPROCESS not in collected.parts:
        notes.append("it does not say how images are prepared; give --preprocess")
    return notes


def _text(path: Path, index: Index, collected: Collected, signed: Path | None) -> str:
    from core.artifacts import sha256_bytes
    from deploy.bundle.text import bundle_text
    from deploy.inspect.columns import size_text

    rest = [("identity", sha256_bytes(index.to_text().encode()))]
    if signed is not None:
        rest.append(("signed", str(signed)))
    head = f"{path}  {size_text(path.stat().st_size)}, its model.onnx is {collected.model}"
    return bundle_text(head, tuple(collected.plans.values()), index.files, rest)


def _json(path: Path, index: Index, signed: Path | None) -> str:
    from core.artifacts import sha256_bytes

    facts = {
        "schema": "strata.bundled/1",
        "bundle": str(path),
        "bytes": path.stat().st_size,
        "identity": sha256_bytes(index.to_text().encode()),
        "signature": str(signed) if signed else None,
        "index": json.loads(index.to_text()),
    }
    return json.dumps(facts, indent=2, ensure_ascii=True)
