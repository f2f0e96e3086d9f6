"""What lies in the folder of a comparison and belongs to it: accuracy and engines.

A file that is of other models, or that cannot be read, is named with the reason and not shown:
no figure on the page is of another network than the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import StrataError
from deploy.comparison.values.report import Report, Subject
from deploy.evaluation.accuracy import Accuracy, Answers, read_accuracy
from deploy.inspect.engine_facts import EngineFacts, inspect_engine

__all__ = ["Beside", "look_beside"]


@dataclass(frozen=True, slots=True)
class Beside:
    """What was found.

    Attributes:
        accuracy: An evaluation of models of the comparison; None when there is none.
        engines: Engines that are among its models, or were built from one of them.
        notes: What was left out, and why.
    """

    accuracy: Accuracy | None = None
    engines: tuple[EngineFacts, ...] = ()
    notes: tuple[str, ...] = ()

    def answers(self, model: Subject) -> Answers | None:
        """Return the evaluation of one model."""
        models = self.accuracy.models if self.accuracy else ()
        return next((found for found in models if found.sha256 == model.sha256), None)


def look_beside(report: Report, folder: Path) -> Beside:
    """Look for what belongs to a comparison in the folder it is of."""
    notes: list[str] = []
    digests = {model.sha256 for model in report.models}
    accuracy = _accuracy(folder / "accuracy.json", digests, notes)
    engines = tuple(_engines(folder, digests, notes))
    return Beside(accuracy, engines, tuple(notes))


def _accuracy(path: Path, digests: set[str], notes: list[str]) -> Accuracy | None:
    if not path.is_file():
        return None
    try:
        accuracy = read_accuracy(path)
    except StrataError as err:
        notes.append(f"{path.name} is left out: it cannot be read ({_bare(err, path)})")
        return None
    if not digests & {model.sha256 for model in accuracy.models}:
        notes.append(f"{path.name} is left out: it is of other models")
        return None
    return accuracy


def _engines(folder: Path, digests: set[str], notes: list[str]) -> Iterator[EngineFacts]:
    for path in sorted(folder.glob("*.engine")):
        try:
            facts = inspect_engine(path)
        except StrataError as err:
            notes.append(f"{path.name} is left out: it cannot be read ({_bare(err, path)})")
            continue
        manifest = facts.manifest
        if manifest is None:
            notes.append(f"{path.name} is left out: no manifest says what it was built from")
        elif digests & {manifest.plan_sha256, manifest.parents.get("onnx")}:
            yield replace(
                facts,
                path=path.name,
                trouble=facts.trouble.replace(str(path), path.name),
                unknown=facts.unknown.replace(str(path), path.name),
            )
        else:
            notes.append(f"{path.name} is left out: it was built from another model")


def _bare(err: StrataError, path: Path) -> str:
    """Return what is wrong without the folder: a page says nothing of the machine."""
    return err.problem.replace(str(path), path.name).removeprefix(f"{path.name}: ")
