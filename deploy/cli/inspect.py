"""``strata inspect``: what is in a file, without running it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.errors import InputError
from deploy.cli.stage import OUTPUT, Stage

if TYPE_CHECKING:
    from deploy.inspect.engine_facts import EngineFacts
    from deploy.inspect.model_facts import ModelFacts

__all__ = ["command"]

_PATH = click.Path(path_type=Path)


@click.command("inspect", cls=Stage)
@click.argument("files", metavar="FILE [FILE]", nargs=-1, required=True, type=_PATH)
@click.option("--batch", type=click.IntRange(min=1), help="Images that an engine's sizes are for.")
@click.option("--svg", type=OUTPUT, metavar="SVG", help="Also draw the engine: a picture to open.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(files: tuple[Path, ...], batch: int | None, svg: Path | None, as_json: bool) -> None:
    """Show what is in a model, an engine, or two side by side.

    An engine of TensorRT-RTX shows its kernels without a GPU: which layers are fused in
    each, what it reads and writes, and whether INT8 is passed on as INT8. One of the flavour
    tensorrt shows them on a GPU. Also reads the layer information that trtexec exports, and
    lists what is in a bundle.
    """
    if len(files) == 1 and _is_bundle(files[0]):
        from deploy.cli.inspect_bundle import print_bundle

        print_bundle(files[0], as_json=as_json)
        return
    if len(files) > 2:
        raise InputError(f"{len(files)} files were named", hint="name one, or two to compare")
    facts = [_inspect(file, batch) for file in files]
    if svg is not None:
        _draw(facts, svg)
    if as_json:
        from deploy.inspect.to_json import inspection_to_json

        click.echo(json.dumps(inspection_to_json(facts), indent=2, ensure_ascii=True))
        return
    click.echo(_text(facts))


def _is_bundle(file: Path) -> bool:
    from deploy.bundle.reader import is_bundle

    return is_bundle(file)


def _inspect(file: Path, batch: int | None) -> EngineFacts | ModelFacts:
    from deploy.engines.plan_header import read_header
    from deploy.inspect.engine_facts import inspect_engine, inspect_export
    from deploy.inspect.model_facts import inspect_model

    if read_header(file).flavour or file.suffix in {".engine", ".plan"}:
        return inspect_engine(file, batch=batch)
    if file.suffix == ".json":
        return inspect_export(file, batch=batch)
    return inspect_model(file)


def _text(facts: list[EngineFacts | ModelFacts]) -> str:
    from deploy.inspect.engine_facts import EngineFacts
    from deploy.inspect.engine_text import engine_text
    from deploy.inspect.model_facts import ModelFacts
    from deploy.inspect.model_text import model_pair_text, model_text
    from deploy.inspect.pair_text import pair_text
    from deploy.inspect.side_by_side import side_by_side

    match facts:
        case [EngineFacts() as a, EngineFacts() as b]:
            return pair_text(side_by_side(a, b))
        case [ModelFacts() as a, ModelFacts() as b]:
            return model_pair_text(a, b)
        case [EngineFacts() as engine]:
            return engine_text(engine)
        case [ModelFacts() as model]:
            return model_text(model)
    raise InputError(
        "an engine and an ONNX file cannot be set side by side",
        hint="name two engines, or two ONNX files",
    )


def _draw(facts: list[EngineFacts | ModelFacts], svg: Path) -> None:
    from core.artifacts import write_text
    from deploy.inspect.engine_facts import EngineFacts
    from deploy.inspect.picture import picture

    match facts:
        case [EngineFacts() as engine]:
            write_text(svg, picture(engine))
        case _:
            raise InputError("--svg draws one engine", hint="name one engine with it")
