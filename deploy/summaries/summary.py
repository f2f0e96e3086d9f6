"""What an output folder holds, once its chain of digests has been checked.

Every artifact says what it was made from. Here each is held against the file that lies
beside it: a stale or foreign one is an error, so that no figure of the summary is of
another network than the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import require_parent, sha256_bytes, sha256_file
from core.errors import InputError
from deploy.comparison.output.layers_json import read_report
from deploy.comparison.values.report import Report
from deploy.engines.manifest import Manifest, manifest_path, verify_plan
from deploy.evaluation.accuracy import Accuracy, read_accuracy
from deploy.onnx_files.reader import read_graph
from exporter.card import Card
from exporter.quantization.table import CalibrationTable

__all__ = ["Stage", "Summary", "read_summary"]

# stage → what it makes, in the order of the pipeline
_STAGES: dict[str, tuple[str, ...]] = {
    "train": (),
    "export": ("model.onnx",),
    "optimize": ("optimized.onnx",),
    "calibrate": ("statistics.npz",),
    "quantize": ("calibration.json", "int8.onnx", "fp16.onnx"),
    "build": ("int8.engine", "fp16.engine", "fp32.engine"),
    "compare": ("layers.json", "report.html"),
    "evaluate": ("accuracy.json",),
}
# ONNX file → role → the file beside it that it was made from
_PARENTS: dict[str, dict[str, str]] = {
    "model.onnx": {},
    "optimized.onnx": {"model": "model.onnx"},
    "int8.onnx": {
        "model": "optimized.onnx",
        "statistics": "statistics.npz",
        "calibration": "calibration.json",
    },
    "fp16.onnx": {"model": "optimized.onnx"},
}
_ENGINES = {"int8.engine": "int8.onnx", "fp16.engine": "fp16.onnx", "fp32.engine": "optimized.onnx"}
_TIMES = ".times"  # the Makefile's: one file a stage, which holds seconds


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of the pipeline.

    Attributes:
        name: Its command.
        files: What it made that is there: name → bytes.
        seconds: How long it took when it was last run; None when nobody noted it.
    """

    name: str
    files: Mapping[str, int]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What an output folder holds; None or empty for what was not made.

    Attributes:
        folder: The folder.
        cards: ONNX file → what it says of itself.
        calibration: The chosen amaxes.
        engines: Plan file → its manifest.
        layers: The comparison.
        accuracy: The evaluation.
        stages: All stages, in order.
    """

    folder: Path
    cards: Mapping[str, Card]
    calibration: CalibrationTable | None
    engines: Mapping[str, Manifest]
    layers: Report | None
    accuracy: Accuracy | None
    stages: tuple[Stage, ...]

    @property
    def weights(self) -> Mapping[str, str]:
        """Where the weights come from, as the ONNX files say."""
        return next((card.weights for card in self.cards.values() if card.weights), {})

    @property
    def synthetic(self) -> str:
        """The name of the noise that it was calibrated with; empty for real images."""
        return next((card.synthetic for card in self._all_cards() if card.synthetic), "")

    @property
    def caveats(self) -> tuple[str, ...]:
        """What is wrong with the images it was calibrated with, each once."""
        return tuple(dict.fromkeys(text for card in self._all_cards() for text in card.caveats))

    def _all_cards(self) -> Iterator[Card]:
        yield from self.cards.values()
        yield from (manifest.card for manifest in self.engines.values())


class _Folder:
    """The files of a folder, and the digest of each, taken once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[str, str] = {}

    def has(self, name: str) -> bool:
        return (self.folder / name).is_file()

    def read(self, name: str) -> bytes:
        """Read a file whole, and take its digest on the way."""
        try:
            data = (self.folder / name).read_bytes()
        except OSError as err:
            raise InputError(
                f"{self.folder / name}: cannot be read ({err.strerror})",
                hint="check its permissions",
            ) from err
        self._digests[name] = sha256_bytes(data)
        return data

    def require(self, child: str, role: str, recorded: str | None, parent: str) -> None:
        """Refuse a child of another parent than the one here; a parent may be gone."""
        if not self.has(parent):
            return
        if parent not in self._digests:
            self._digests[parent] = sha256_file(self.folder / parent)
        if recorded != self._digests[parent]:
            require_parent(self.folder / child, role, recorded, self.folder / parent)


def read_summary(folder: Path) -> Summary:
    """Read what a folder holds, and check that it belongs together.

    Raises:
        InputError: No such folder, nothing of ours in it, a file that cannot be read, or
            one that was made from another file than the one beside it.
    """
    files = _Folder(folder)
    stages = tuple(_stage(files, name, made) for name, made in _STAGES.items())
    if not any(stage.files for stage in stages):
        what = "nothing that Strata makes" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}", hint="make export DEPTH=50 makes build/resnet50")
    cards = {name: _card(files, name) for name in _PARENTS if files.has(name)}
    calibration = _calibration(files)
    for name, card in cards.items():
        for role, parent in _PARENTS[name].items():
            files.require(name, role, card.parents.get(role), parent)
    return Summary(
        folder=folder,
        cards=cards,
        calibration=calibration,
        engines=_engines(files),
        layers=_layers(files),
        accuracy=_accuracy(files),
        stages=stages,
    )


def _stage(files: _Folder, name: str, made: tuple[str, ...]) -> Stage:
    there = {file: (files.folder / file).stat().st_size for file in made if files.has(file)}
    return Stage(name, there, _seconds(files.folder / _TIMES / name))


def _seconds(path: Path) -> float | None:
    """Return what a stage's file of seconds holds; None when there is none to read."""
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _card(files: _Folder, name: str) -> Card:
    where = str(files.folder / name)
    graph = read_graph(files.read(name), where=where)
    return Card.from_metadata(graph.metadata, where=where)


def _calibration(files: _Folder) -> CalibrationTable | None:
    name = "calibration.json"
    if not files.has(name):
        return None
    table = CalibrationTable.read(files.folder / name)
    files.require(name, "model", table.model, "optimized.onnx")
    files.require(name, "statistics", table.statistics, "statistics.npz")
    return table


def _engines(files: _Folder) -> dict[str, Manifest]:
    """Return the manifests of the plans, each plan checked against its own."""
    found: dict[str, Manifest] = {}
    for name, parent in _ENGINES.items():
        if files.has(name):
            found[name] = verify_plan(files.folder / name)
            manifest = manifest_path(Path(name)).name
            files.require(manifest, "ONNX file", found[name].parents.get("onnx"), parent)
    return found


def _layers(files: _Folder) -> Report | None:
    name = "layers.json"
    if not files.has(name):
        return None
    report = read_report(files.folder / name)
    for at, subject in enumerate(report.models):
        if subject.name.startswith("torch:"):  # its weights lie elsewhere
            continue
        _require_here(files, name, subject.file)
        role = "candidate" if at else "reference"
        files.require(name, role, subject.sha256, subject.file)
    return report


def _accuracy(files: _Folder) -> Accuracy | None:
    name = "accuracy.json"
    if not files.has(name):
        return None
    accuracy = read_accuracy(files.folder / name)
    for answers in accuracy.models:
        kind, _, file = answers.model.rpartition(":")
        if kind != "torch":  # its weights lie elsewhere
            _require_here(files, name, file)
            files.require(name, file, answers.sha256, file)
    return accuracy


def _require_here(files: _Folder, name: str, file: str) -> None:
    """Refuse a result of a file that is not in the folder."""
    if not files.has(Path(file).name) or Path(file).name != file:
        raise InputError(
            f"{files.folder / name}: is of {file}, which is not in {files.folder}",
            hint=f"make {name} again from the files that are there",
        )
