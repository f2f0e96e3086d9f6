"""``strata triton``: a bundle into a Triton model repository, or a repository checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from core.errors import GraphError, InputError

if TYPE_CHECKING:
    from deploy.triton.check import CheckedModel
    from deploy.triton.repository import Written

__all__ = ["command"]

_PATH = click.Path(path_type=Path)
_POSITIVE = click.IntRange(min=1)
_SERVER = "26.07-py3"


@click.command("triton")
@click.argument("bundle", type=_PATH, required=False)
@click.option("-o", "--output", type=_PATH, help="The model repository; it may hold other models.")
@click.option("--check", type=_PATH, metavar="DIR", help="Check a repository in place of writing.")
@click.option("--name", help="Of the model.  [default: the bundle's]")
@click.option(
    "--backend",
    type=click.Choice(["tensorrt", "onnxruntime"]),
    help="Triton's.  [default: tensorrt where the bundle holds a plan of it]",
)
@click.option("--max-batch", type=_POSITIVE, help="Images in a batch.  [default: the plan's]")
@click.option(
    "--delay-us",
    type=click.IntRange(min=0),
    default=500,
    show_default=True,
    help="How long a request may wait for others to share its batch.",
)
@click.option("--instances", type=_POSITIVE, default=1, show_default=True, help="On each GPU.")
@click.option(
    "--kind", type=click.Choice(["gpu", "cpu"]), default="gpu", show_default=True, help="Where."
)
@click.option("--accelerate", is_flag=True, help="ONNX Runtime builds a TensorRT plan there.")
@click.option("--server", default=_SERVER, show_default=True, help="Tag of Triton's image.")
@click.option("--storage", help="Where the cluster finds it.  [default: pvc://models/DIR]")
@click.option("--json", "as_json", is_flag=True, help="Print what was found or written as JSON.")
def command(bundle: Path | None, output: Path | None, check: Path | None, **said: Any) -> None:
    """Write a bundle into a Triton model repository, or check one.

    Beside the repository come MODEL.kserve.yaml, an InferenceService, and MODEL.kubernetes.yaml, a
    Deployment with its Service and autoscaler. Plans of TensorRT-RTX are refused: Triton has no
    backend for them, and --backend onnxruntime serves the graph.
    """
    if check is not None:
        if bundle is not None or output is not None:
            raise InputError("--check with a bundle", hint="check a repository, or write one")
        _check(check, as_json=said["as_json"])
        return
    if bundle is None or output is None:
        raise InputError(
            "no bundle, or no -o", hint="strata triton BUNDLE -o REPOSITORY, or --check REPOSITORY"
        )
    _write(bundle, output, said)


def _write(bundle: Path, output: Path, said: dict[str, Any]) -> None:
    from dataclasses import replace

    from core.artifacts import write_text
    from deploy.triton.cluster import Cluster, kserve_text
    from deploy.triton.config import Serving
    from deploy.triton.kubernetes import kubernetes_text
    from deploy.triton.repository import write_model

    serving = Serving(
        name=said["name"] or bundle.name.removesuffix(".zip").removesuffix(".strata"),
        max_batch=said["max_batch"],
        delay_us=said["delay_us"],
        instances=said["instances"],
        kind=said["kind"],
        accelerate=said["accelerate"],
    )
    cluster = Cluster(
        model=serving.name,
        server=said["server"],
        storage=said["storage"] or f"pvc://models/{output.resolve().name}",
        kind=serving.kind,
        delay_us=serving.delay_us,
    )
    written = write_model(bundle, output, serving, backend=said["backend"])
    cluster = replace(
        cluster,
        in_flight=max(1, written.max_batch * serving.instances),
        version=written.choice.version,
        brings_runtime=written.choice.brings_runtime,
    )
    texts = {"kserve": kserve_text(cluster), "kubernetes": kubernetes_text(cluster)}
    beside = [output.resolve().parent / f"{serving.name}.{kind}.yaml" for kind in texts]
    for path, text in zip(beside, texts.values(), strict=True):
        write_text(path, text)
    for note in _notes(written, said["server"]):
        click.echo(f"note: {note}", err=True)
    click.echo(_json(written, beside) if said["as_json"] else _text(written, beside))


def _notes(written: Written, server: str) -> list[str]:
    notes = list(written.choice.notes)
    if written.choice.version:
        notes.append(
            f"the server needs TensorRT {written.choice.version}: NVIDIA's Frameworks Support "
            f"Matrix says which tag has it (--server is {server})"
        )
    if written.choice.brings_runtime:
        notes.append("the plans bring a runtime of their own: start Triton as the YAML files do")
    return notes


def _text(written: Written, beside: list[Path]) -> str:
    choice = written.choice
    gpus = ", ".join(file.capability for file in choice.files if file.capability)
    by = f"TensorRT {choice.version} for {gpus}" if gpus else "ONNX Runtime"
    batch = f"batches of up to {written.max_batch}" if written.max_batch else "no batching"
    lines = [f"{written.folder}: by {by}, {batch}"]
    lines += [f"  {name}" for name in written.files]
    return "\n".join([*lines, *(f"{path.name}, beside it" for path in beside)])


def _json(written: Written, beside: list[Path]) -> str:
    choice = written.choice
    facts = {
        "schema": "strata.triton/1",
        "model": written.folder.name,
        "folder": str(written.folder),
        "backend": choice.backend,
        "tensorrt": choice.version or None,
        "capabilities": [file.capability for file in choice.files if file.capability],
        "max_batch_size": written.max_batch,
        "files": list(written.files),
        "beside": [str(path) for path in beside],
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _check(repository: Path, *, as_json: bool) -> None:
    from deploy.triton.check import check_repository

    models = check_repository(repository)
    problems = [problem for model in models for problem in model.problems]
    if as_json:
        click.echo(json.dumps(_checked_json(models), indent=2, ensure_ascii=False))
    else:
        click.echo("\n".join(line for model in models for line in _lines(model)))
    if problems:
        raise GraphError(
            f"{repository}: {len(problems)} problem{'s' if len(problems) > 1 else ''}; the first: "
            f"{problems[0]}",
            hint=problems[0].hint,
        )


def _lines(model: CheckedModel) -> list[str]:
    versions = ", ".join(model.versions) or "none"
    state = f"{len(model.problems)} problems" if model.problems else "no problems"
    lines = [f"{model.name}: {model.backend or 'no backend'}, versions {versions}: {state}"]
    for problem in model.problems:
        lines += [f"  {problem.where or '.'}: {problem.what}", f"    way out: {problem.hint}"]
    return [*lines, *(f"  note: {note}" for note in model.notes)]


def _checked_json(models: tuple[CheckedModel, ...]) -> dict[str, Any]:
    return {
        "schema": "strata.triton_check/1",
        "models": [
            {
                "name": model.name,
                "backend": model.backend,
                "versions": list(model.versions),
                "problems": [
                    {"where": p.where, "problem": p.what, "way_out": p.hint} for p in model.problems
                ],
                "notes": list(model.notes),
            }
            for model in models
        ],
    }
