"""``strata build``: an ONNX file becomes a TensorRT engine and its manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.outputs import require_outputs
from deploy.cli.build_choices import build_choices
from deploy.cli.stage import OUTPUT, Stage
from deploy.engines.build_options import brings_runtime, is_refittable, is_stripped, shows_tensors
from deploy.engines.target import BuildTarget, parse_batch, parse_size, parse_targets
from deploy.inspect.columns import plain

if TYPE_CHECKING:
    from core.progress import Progress
    from deploy.engines.build import EngineArtifact
    from deploy.engines.build_options import BuildOptions
    from deploy.engines.log import Listener, Severity
    from deploy.engines.manifest import Binding, Manifest

__all__ = ["command"]


@click.command("build", cls=Stage)
@click.argument("onnx", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=OUTPUT, help="[default: ONNX with .engine]")
@click.option(
    "--flavour",
    type=click.Choice(["auto", "rtx", "tensorrt"]),
    default="auto",
    show_default=True,
    help="rtx builds with or without a GPU; tensorrt for the GPU of this machine. "
    "auto: rtx where installed, unless this machine's GPU is none of its own.",
)
@click.option(
    "--batch",
    multiple=True,
    metavar="MIN,OPT,MAX",
    help="Batch sizes to serve; again for a second profile.  [default: 1,8,32]",
)
@click.option(
    "--size", metavar="HxW", help="Image size, for a network that leaves height and width free."
)
@click.option(
    "--target",
    metavar="GPU,…",
    help='GPUs to build for: sm86, 8.9, "RTX 3090", L4.  [default: the flavour\'s own set]',
)
@build_choices
@click.option("-v", "--verbose", count=True, help="Show TensorRT's log; -vv all of it.")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest and figures as JSON.")
def command(
    onnx: Path,
    output: Path | None,
    flavour: str,
    batch: tuple[str, ...],
    size: str | None,
    target: str | None,
    options: BuildOptions,
    verbose: int,
    as_json: bool,
) -> None:
    """Build a TensorRT engine and its manifest.

    Precision is what the graph of ONNX says: strata quantize makes INT8 and FP16 graphs.
    """
    from deploy.engines.build import build
    from deploy.engines.flavour import load_flavour

    asked = BuildTarget(
        profiles=tuple(map(parse_batch, batch)),
        size=parse_size(size) if size is not None else None,
        capabilities=parse_targets(target) if target is not None else (),
        options=options,
    )
    plan = output or onnx.with_suffix(".engine")
    require_outputs([plan], [onnx])
    with _feedback(verbose) as (progress, listen):
        artifact = build(
            onnx, asked, plan, flavour=load_flavour(flavour), progress=progress, listen=listen
        )
    for warning in artifact.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(_to_json(artifact) if as_json else _summary(artifact))


@contextmanager
def _feedback(verbose: int) -> Iterator[tuple[Progress, Listener | None]]:
    """Yield a bar, or with -v no bar and a listener that prints TensorRT's lines."""
    from core.progress import silent
    from deploy.cli.progress import progress_bar

    if not verbose:
        with progress_bar("building") as bar:
            yield bar, None
        return

    def show(severity: Severity, text: str) -> None:
        if severity != "verbose" or verbose > 1:
            click.echo(f"tensorrt {severity}: {text}", err=True)

    yield silent, show


def _to_json(artifact: EngineArtifact) -> str:
    facts = {
        "engine": str(artifact.plan),
        "seconds": round(artifact.seconds, 3),
        "peak_bytes": artifact.peak_bytes,
        "warnings": list(artifact.warnings),
        "manifest": artifact.manifest.to_json(),
    }
    return json.dumps(facts, indent=2, ensure_ascii=False)


def _summary(artifact: EngineArtifact) -> str:
    manifest = artifact.manifest
    name = "TensorRT-RTX" if manifest.flavour == "rtx" else "TensorRT"
    rows = [
        ("by", f"{name} {manifest.version}"),
        ("for", ", ".join(manifest.targets) or "GPUs that its header does not name"),
        *(("batch", _batches(profile)) for profile in _profiles(manifest)),
        ("takes", ", ".join(_tensor(b, manifest) for b in manifest.inputs)),
        ("gives", ", ".join(_tensor(b, manifest) for b in manifest.outputs)),
        ("layers", _layers(manifest)),
        *(("also", text) for text in _special(manifest)),
        ("took", f"{artifact.seconds:.1f} s, {artifact.peak_bytes / 1e6:.0f} MB of memory"),
    ]
    head = f"{artifact.plan}  {manifest.plan_bytes / 1e6:.1f} MB, its manifest beside it"
    return "\n".join([head, *(f"  {key:<7} {plain(text)}" for key, text in rows)])


def _special(manifest: Manifest) -> list[str]:
    """Say what is special about a plan, in the order of its options."""
    options = manifest.options
    found = []
    if is_stripped(options):
        found.append("without weights: keep its ONNX file beside it, or give them by strata refit")
    if is_refittable(options):
        found.append("takes the weights of another training: strata refit")
    if shows_tensors(options):
        found.append("shows the tensors within it: to compare, not to ship")
    if brings_runtime(options):
        found.append("brings the runtime that newer versions of TensorRT load it with")
    if options.get("hardware_compatibility") == "ampere_plus":
        found.append("for every GPU from Ampere on")
    if options.get("hardware_compatibility") == "same_compute_capability":
        found.append("for every GPU of that capability")
    return found


def _profiles(manifest: Manifest) -> list[tuple[int, int, int]]:
    """Return (min, opt, max) batch of each profile; its inputs share them."""
    first = manifest.inputs[0].name
    return [(p[first].min[0], p[first].opt[0], p[first].max[0]) for p in manifest.profiles]


def _batches(sizes: tuple[int, int, int]) -> str:
    low, best, high = sizes
    return f"{low}" if low == high else f"{low} to {high}, tuned for {best}"


def _tensor(binding: Binding, manifest: Manifest) -> str:
    """Return ``input float32 batch×3×224×224``; free sizes are those of the profile."""
    known = manifest.profiles[0].get(binding.name)
    sizes = ["batch" if n < 0 else str(n) for n in binding.shape[:1]]
    for at, n in enumerate(binding.shape[1:], start=1):
        sizes.append(str(known.max[at] if n < 0 and known else n).replace("-1", "?"))
    return f"{binding.name} {binding.dtype} {'×'.join(sizes)}"


def _layers(manifest: Manifest) -> str:
    """Return ``53 Conv and 1 Gemm in INT8``, the rarest precision last."""
    kinds = sorted(
        {kind for by in manifest.layers.values() for kind in by},
        key=lambda kind: (-manifest.count(kind), kind),
    )
    words = {"int8": "INT8", "float16": "FP16", "float32": "FP32"}
    parts = [
        " and ".join(f"{len(by[kind])} {op}" for op, by in manifest.layers.items() if kind in by)
        + f" in {words.get(kind, kind)}"
        for kind in kinds
    ]
    return "; ".join(parts) or "none with weights"
