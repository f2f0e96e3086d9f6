"""Every scale of a network off by a twentieth, one at a time: does the gate name the layer?

    python -m bench.scales build/resnet18/optimized.onnx build/resnet18/int8.onnx --cases 40

*Failed*: a layer that reads the scale, or the one behind it, fell by more than the tolerance, and
the gate is red. *Noted*: none did, and the gate says whose scale is another. *Missed*: neither.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import onnx
from onnx import numpy_helper

from deploy.gate.baseline import Layers
from deploy.gate.judge import judge_layers, moved_scales
from deploy.gate.layers import LAYER_IMAGES, measure_layers
from deploy.gate.rules import Rules
from deploy.images import ImageRequest

__all__ = ["Case", "cases_of", "outcome_of", "scaled"]

_FACTORS = (1.05, 0.95)
_SUFFIXES = (".shifted", ".equalized")  # the comparison knows tensors without
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Case:
    """A scale that is off.

    Attributes:
        scale: The initializer.
        factor: What it is multiplied by.
        kind: ``"weight"`` or ``"activation"``.
        tensor: Whose scale it is.
        near: The tensors that may be named for it.
    """

    scale: str
    factor: float
    kind: str
    tensor: str
    near: frozenset[str]


def cases_of(model: onnx.ModelProto) -> list[Case]:
    """Return two cases for each scale of a network in graph order."""
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    constants = {weight.name for weight in model.graph.initializer}
    found: dict[str, tuple[str, str, set[str]]] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[1] in constants:
            kind = "weight" if node.input[0] in constants else "activation"
            tensor = _plain(node.input[1].removesuffix(".scale"))
            _, _, near = found.setdefault(node.input[1], (kind, tensor, set()))
            for layer in readers[node.output[0]]:
                near.add(_plain(layer.output[0]))
                near.update(_plain(after.output[0]) for after in readers[layer.output[0]])
            if kind == "activation":
                near.add(tensor)
    return [
        Case(scale, factor, kind, tensor, frozenset(near))
        for scale, (kind, tensor, near) in found.items()
        for factor in _FACTORS
    ]


def scaled(model: onnx.ModelProto, case: Case) -> onnx.ModelProto:
    """Return a copy of a network in which one scale is off."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    (stored,) = (weight for weight in copy.graph.initializer if weight.name == case.scale)
    values = numpy_helper.to_array(stored) * np.float32(case.factor)
    stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), case.scale))
    return copy


def outcome_of(case: Case, before: Layers, now: Layers, tolerance: float) -> tuple[str, bool]:
    """Return ``"failed"``, ``"noted"`` or ``"missed"``, and whether a layer fell elsewhere."""
    _, moves = judge_layers("int8", before.own_db, now.own_db, tolerance)
    fell = {_plain(move.tensor) for move in moves if move.worse}
    told = " ".join(moved_scales("int8", before.scales, now.scales))
    noted = f" {case.tensor} " in told
    return "failed" if fell & case.near else "noted" if noted else "missed", bool(fell - case.near)


def _plain(tensor: str) -> str:
    for suffix in _SUFFIXES:
        tensor = tensor.removesuffix(suffix)
    return tensor


def _outcomes(
    paths: tuple[Path, Path], cases: list[Case], request: ImageRequest
) -> Iterator[tuple[Case, str, bool]]:
    reference, candidate = map(str, paths)
    model, before = onnx.load(candidate), measure_layers(reference, candidate, request)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        for case in cases:
            onnx.save(scaled(model, case), path)
            now = measure_layers(reference, str(path), request)
            yield case, *outcome_of(case, before, now, Rules().layers or 0.0)


@click.command()
@click.argument("reference", type=_FILE)
@click.argument("candidate", type=_FILE)
@click.option("--data", default="fashion-mnist:test", show_default=True)
@click.option("--cases", type=click.IntRange(min=1), help="Only so many.  [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
def main(reference: Path, candidate: Path, data: str, cases: int | None, seed: int) -> None:
    """Put scales off by a twentieth, one at a time."""
    every = cases_of(onnx.load(candidate))
    order = np.argsort(np.random.PCG64(seed).random_raw(len(every)), kind="stable")
    chosen = [every[at] for at in order[:cases]]
    request = ImageRequest(data, LAYER_IMAGES, seed=seed)
    counts: Counter[tuple[str, str]] = Counter()
    elsewhere = 0
    for case, outcome, other in _outcomes((reference, candidate), chosen, request):
        counts[case.kind, outcome] += 1
        elsewhere += other
        if outcome == "missed":
            click.echo(f"missed: {case.scale} × {case.factor}")
    click.echo(f"{len(chosen)} of {len(every)} cases; a layer elsewhere fell in {elsewhere}")
    for kind in ("weight", "activation"):
        told = ", ".join(f"{counts[kind, o]} {o}" for o in ("failed", "noted", "missed"))
        click.echo(f"{kind + 's':12} {told}")


if __name__ == "__main__":
    main()
