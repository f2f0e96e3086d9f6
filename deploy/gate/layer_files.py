"""Layers from comparisons that were made before: ``layers.json`` files of ``strata compare``.

One may say what must hold, in place of the baseline's layers; another what was measured of
the models at hand, so that a check need not measure it again, or cannot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import ImageDriftError, InputError
from deploy.gate.baseline import Baseline, Layers
from deploy.gate.layers import layers_of

__all__ = ["LayerFile", "LayerPlan", "plan_layers", "require_same_models"]


@dataclass(frozen=True, slots=True)
class LayerFile:
    """One step of a comparison.

    Attributes:
        name: The file, as the user named it.
        layers: Of the candidate, on the reference's tensors.
        reference: Digest of the reference.
        candidate: Digest of the candidate.
    """

    name: str
    layers: Layers
    reference: str
    candidate: str


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """What layers are held to, and which of them need not be measured.

    Attributes:
        held: Entry → what its layers must hold.
        measured: Entry → its layers as a file has them.
        notes: What there is to know of the files.
    """

    held: Mapping[str, Layers]
    measured: Mapping[str, LayerFile]
    notes: tuple[str, ...] = ()


def plan_layers(
    baseline: Baseline,
    names: Mapping[str, str],
    bounds: Sequence[Path] = (),
    measured: Sequence[Path] = (),
) -> LayerPlan:
    """Say what the layers of some models are held to.

    Args:
        baseline: What must hold.
        names: Name of a model at hand → its entry in the baseline.
        bounds: Comparisons whose layers must hold, in place of the baseline's.
        measured: Comparisons of the models at hand.

    Raises:
        InputError: No such file, not a comparison, or of none of these models; or nothing that
            its layers could be held to.
        ImageDriftError: Measured on other images than what must hold.
    """
    if baseline.rules.layers is None:
        for path in (*bounds, *measured):
            raise InputError(
                f"{path}: the baseline's rules hold no layers to anything",
                hint="set rules.layers in it, in dB; 0.3 is usual",
            )
        return LayerPlan({}, {})
    held = {m.model: m.layers for m in baseline.models if m.layers and m.model in names.values()}
    notes = []
    own = {m.model: m.sha256 for m in baseline.models}
    for entry, file in _read(baseline, names, bounds).items():
        held[entry] = file.layers
        other = "" if file.candidate == own[entry] else ", another file than the baseline's"
        notes.append(
            f"{entry}: its layers are held to {Path(file.name).name}, "
            f"of {file.candidate[:12]}…{other}"
        )
    found = _read(baseline, names, measured)
    for entry, file in found.items():
        _require_comparable(entry, file, held.get(entry), baseline)
    return LayerPlan(held, found, tuple(notes))


def require_same_models(plan: LayerPlan, digests: Mapping[str, str], baseline: Baseline) -> None:
    """Refuse what was measured of other models than those at hand.

    Args:
        plan: With the files.
        digests: Entry → digest of the model at hand; the baseline's where there is none.
        baseline: What must hold.

    Raises:
        InputError: A file is of other models.
    """
    known = {m.model: m.sha256 for m in baseline.models} | dict(digests)
    first = baseline.models[0].model
    for entry, file in plan.measured.items():
        for what, digest in ((entry, file.candidate), (first, file.reference)):
            if digest != known[what]:
                raise InputError(
                    f"{file.name}: measured of another {what} (sha256 {digest[:12]}…) than is "
                    f"checked ({known[what][:12]}…)",
                    hint="compare these very models again: strata compare … --json",
                )


def _require_comparable(
    entry: str, file: LayerFile, held: Layers | None, baseline: Baseline
) -> None:
    """Refuse a measurement that there is nothing to hold it against."""
    if held is None:
        raise InputError(
            f"{file.name}: the baseline holds no layers of {entry}",
            hint="give --layers, a comparison whose layers must hold",
        )
    if file.layers.sha256 != held.sha256:
        raise ImageDriftError(
            f"{file.name}: the layers of {entry} were measured on other images "
            f"({file.layers.images}) than what they are held to ({held.images})",
            hint=f"strata compare … --data {baseline.data.name} --images {held.images} "
            f"--seed {baseline.selection.seed}",
        )


def _read(
    baseline: Baseline, names: Mapping[str, str], paths: Sequence[Path]
) -> dict[str, LayerFile]:
    """Read files; return the step of each entry that they are of."""
    from deploy.comparison.output.layers_json import read_report

    found: dict[str, LayerFile] = {}
    first = baseline.models[0]
    for path in paths:
        report = read_report(path)
        known = {subject.name: subject for subject in report.models}
        before = len(found)
        for step, candidate in enumerate(report.models[1:]):
            reference = report.models[step]
            entry = names.get(candidate.name) or names.get(candidate.file) or candidate.file
            right = first.sha256 == reference.sha256 or first.model in (
                *(reference.name, reference.file, names.get(reference.name)),
            )
            if right and entry in names.values() and entry != first.model:
                layers = layers_of(report, step)
                file = LayerFile(str(path), layers, reference.sha256, candidate.sha256)
                found[entry] = file
        if len(found) == before:
            entries = ", ".join(sorted(set(names.values()) - {first.model})) or "none"
            raise InputError(
                f"{path}: compares {', '.join(known)}; none of them is a model that is checked "
                f"({entries}) against {first.model}",
                hint="make it from these models: strata compare REFERENCE CANDIDATE --json FILE",
            )
    return found
