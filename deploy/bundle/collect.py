"""What goes into a bundle: the network of an output folder, and all that belongs to it.

Every file is held against the digests of those it was made from, as ``strata summary`` does:
what is stale or of another network is an error, not a part of the bundle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from calib_data.fashion_mnist import FOLDER
from calib_data.preprocess import PreprocessSpec
from core.artifacts import regular, sha256_bytes
from core.errors import InputError
from deploy.bundle.contents import (
    ACCURACY,
    CALIBRATION,
    LABELS,
    LAYERS,
    LICENCES,
    MODEL,
    PLANS,
    PREPROCESS,
    REPORT,
)
from deploy.bundle.writer import Part
from deploy.engines.build_options import shows_tensors
from deploy.engines.manifest import Manifest, manifest_path, verify_plan
from deploy.onnx_files.reader import read_graph
from deploy.onnx_files.weight_files import weight_names
from deploy.summaries.summary import read_summary
from exporter.card import Card

__all__ = ["Collected", "Request", "collect"]

_GRAPHS = ("int8.onnx", "fp16.onnx", "optimized.onnx")  # the first that is there
_REPORTS = (LAYERS, ACCURACY, REPORT)


@dataclass(frozen=True, slots=True)
class Request:
    """What a user asked for besides the folder.

    Attributes:
        model: The graph to bundle; None for the folder's most quantized one.
        plans: Plans that lie elsewhere, built on other machines.
        licences: Files to add.
        preprocess: For a network that does not say how its images are prepared.
    """

    model: Path | None = None
    plans: tuple[Path, ...] = ()
    licences: tuple[Path, ...] = ()
    preprocess: PreprocessSpec | None = None


@dataclass(frozen=True, slots=True)
class Collected:
    """What goes into a bundle.

    Attributes:
        parts: Name in the bundle → its bytes, or where they lie.
        model: The graph.
        plans: Name in the bundle → manifest.
        left_out: Plans of the folder that are not in it → how they were built.
    """

    parts: dict[str, Part]
    model: Path
    plans: dict[str, Manifest]
    left_out: dict[Path, str]


def collect(folder: Path, request: Request) -> Collected:
    """Gather what belongs to one network.

    Args:
        folder: Where ``make export`` put everything.
        request: What else was asked for.

    Raises:
        InputError: No network; something stale, damaged, or of another network.
    """
    read_summary(folder)
    model = request.model or _graph(folder)
    data = _read(model)
    card = Card.from_metadata(read_graph(data, where=str(model)).metadata, where=str(model))
    if weight_names(data, str(model)):
        raise InputError(
            f"{model}: its weights lie in a file beside it; a bundle holds one file for a graph",
            hint="save it with its weights inside (a graph under 2 GB can)",
        )
    card = replace(card, preprocess=request.preprocess or card.preprocess)
    digest = sha256_bytes(data)
    plans, left_out = _plans(folder, request.plans, model.name, digest)
    parts: dict[str, Part] = {MODEL: data, **_facts(card), **_licences(card, request.licences)}
    calibration = card.parents.get("calibration")
    table = folder / CALIBRATION
    if calibration and table.is_file() and sha256_bytes(_read(table)) == calibration:
        parts[CALIBRATION] = table
    parts |= {name: folder / name for name in _REPORTS if _names(folder / name, digest)}
    for name, (plan, _) in plans.items():
        parts |= {name: plan, f"{name}.json": manifest_path(plan)}
    return Collected(parts, model, {name: m for name, (_, m) in plans.items()}, left_out)


def _graph(folder: Path) -> Path:
    for name in _GRAPHS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder}: holds no graph to bundle ({', '.join(_GRAPHS)})",
        hint="make export DEPTH=50 makes one, or name it with --model",
    )


def _read(path: Path) -> bytes:
    try:
        return regular(path).read_bytes()
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})", hint="check the path and its permissions"
        ) from err


def _facts(card: Card) -> dict[str, Part]:
    """Return what the graph says of itself, as files that anybody reads."""
    found: dict[str, Part] = {}
    if card.preprocess is not None:
        found[PREPROCESS] = (card.preprocess.to_json() + "\n").encode()
    if card.labels:
        labels = json.dumps(card.labels, indent=0, ensure_ascii=False)
        found[LABELS] = (labels + "\n").encode()
    return found


def _licences(card: Card, named: Sequence[Path]) -> dict[str, Part]:
    """Return the licence of the embedded data, where it was trained on it, and those named."""
    found: dict[str, Part] = {}
    if card.weights.get("data", "").startswith("fashion-mnist"):
        found[f"{LICENCES}fashion-mnist.txt"] = FOLDER / "LICENSE"
    for path in named:
        if f"{LICENCES}{path.name}" in found:
            raise InputError(f"{path}: a second licence of that name", hint="rename one of them")
        found[f"{LICENCES}{path.name}"] = path
    return found


def _names(report: Path, digest: str) -> bool:
    """Tell whether a report is there and tells of this graph."""
    return report.is_file() and digest.encode() in _read(report)


def _plans(
    folder: Path, named: Sequence[Path], name: str, digest: str
) -> tuple[dict[str, tuple[Path, Manifest]], dict[Path, str]]:
    """Return the plans of a graph by their name in the bundle; and why the others are none."""
    plans: dict[str, tuple[Path, Manifest]] = {}
    left_out: dict[Path, str] = {}
    for plan in (*sorted(folder.glob("*.engine")), *named):
        manifest = verify_plan(plan)
        foreign = manifest.parents["onnx"] != digest
        if not foreign and not shows_tensors(manifest.options):
            plans.setdefault(manifest.plan_sha256, (plan, manifest))
        elif plan not in named:
            left_out[plan] = (
                f"from another graph than {name}" if foreign else "with --debug-tensors"
            )
        elif foreign:
            raise InputError(
                f"{plan}: was built from another ONNX file than the one that is bundled",
                hint="build it again from that file, or name its own with --model",
            )
        else:
            raise InputError(
                f"{plan}: was built with --debug-tensors, to compare and not to ship",
                hint="build it without",
            )
    stems = [_stem(manifest) for _, manifest in plans.values()]
    found = {}
    for stem, (sha256, pair) in zip(stems, plans.items(), strict=True):
        unique = stem if stems.count(stem) == 1 else f"{stem}-{sha256[:8]}"
        found[f"{PLANS}{unique}.engine"] = pair
    return found, left_out


def _stem(manifest: Manifest) -> str:
    """Return ``rtx-1.7.1.116-linux-x86_64-sm80-sm86``."""
    return "-".join((manifest.flavour, manifest.version, manifest.platform, *manifest.targets))
