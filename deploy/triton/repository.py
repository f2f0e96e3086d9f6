"""Write a bundle's network into a Triton model repository: the whole model or nothing of it."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from core.artifacts import write_bytes, write_text
from core.errors import InputError, OutputError
from deploy.bundle.contents import Contents, read_contents
from deploy.bundle.reader import Bundle, open_bundle
from deploy.triton.check import CheckedModel, check_model
from deploy.triton.choose import Backend, Choice, choose_files
from deploy.triton.config import LABELS_FILE, Serving, config_text, max_batch
from deploy.triton.model_folder import CONFIG

__all__ = ["Written", "write_model"]

_VERSION = "1"


@dataclass(frozen=True, slots=True)
class Written:
    """A model that was written.

    Attributes:
        folder: Its folder.
        files: What is in it, relative to the folder.
        choice: What is served.
        max_batch: Triton's ``max_batch_size``.
        checked: What the rules say of it: no problems.
    """

    folder: Path
    files: tuple[str, ...]
    choice: Choice
    max_batch: int
    checked: CheckedModel


def write_model(
    bundle_path: Path, repository: Path, serving: Serving, *, backend: Backend | None = None
) -> Written:
    """Write a model into a repository, which may hold others.

    Args:
        bundle_path: The bundle.
        repository: The folder that Triton is given; it is made where it is not there.
        serving: How it is to be served; labels and facts are added from the bundle.
        backend: Triton's; None for TensorRT where there is a plan of it.

    Raises:
        BuildError: The bundle's plans are none that Triton runs.
        InputError: What was asked for does not go together, or the bundle is damaged.
        OutputError: The model is there already, or cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", serving.name):
        raise InputError(
            f"{serving.name!r} is no name for a model", hint="use letters, digits, _, - and ."
        )
    with open_bundle(bundle_path) as bundle:
        contents = read_contents(bundle)
        choice = choose_files(bundle, contents, backend)
        serving = replace(serving, labels=contents.labels, facts=_facts(bundle, contents, choice))
        config = config_text(choice, serving)
        folder = repository / serving.name
        if folder.exists():
            raise OutputError(
                f"{folder}: is there already", hint="remove it, or name the model with --name"
            )
        with _hidden(repository) as beside:
            model = beside / serving.name
            _write(bundle, choice, model, (config, contents.labels))
            checked = _checked(model, bundle_path)
            paths = [p.relative_to(model) for p in model.rglob("*") if p.is_file()]
            model.replace(folder)
    files = tuple(sorted(map(str, paths)))
    return Written(folder, files, choice, max_batch(choice, serving), checked)


@contextmanager
def _hidden(repository: Path) -> Iterator[Path]:
    """Yield a folder in the repository that Triton does not look into, and remove it again."""
    beside = repository / f".strata.{os.getpid()}.tmp"
    was_there = repository.exists()
    try:
        beside.mkdir(parents=True)
        yield beside
    except OSError as err:
        raise OutputError(
            f"{repository}: cannot be written ({err.strerror or err})",
            hint="free some space, or name another place with -o",
        ) from err
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if not was_there:
            with suppress(OSError):  # it holds the model by now, unless something went wrong
                repository.rmdir()


def _checked(model: Path, bundle_path: Path) -> CheckedModel:
    """Hold what was written against the rules for what others write."""
    checked = check_model(model)
    if checked.problems:
        first = checked.problems[0]
        raise InputError(f"{bundle_path}: cannot be served: {first}", hint=first.hint)
    return checked


def _write(bundle: Bundle, choice: Choice, model: Path, texts: tuple[str, tuple[str, ...]]) -> None:
    config, labels = texts
    write_text(model / CONFIG, config)
    if LABELS_FILE in config:
        write_text(model / LABELS_FILE, "".join(f"{_line(label)}\n" for label in labels))
    for file in choice.files:
        path = model / _VERSION / file.name
        write_bytes(path, bundle.read(file.source))
        if file.manifest:
            write_bytes(path.with_name(f"{file.name}.json"), bundle.read(file.manifest))


def _line(label: str) -> str:
    """Return a label as one line that is not empty."""
    return " ".join(label.split()) or "-"


def _facts(bundle: Bundle, contents: Contents, choice: Choice) -> dict[str, str]:
    """Return what clients can ask the server for."""
    found = {"strata.bundle": bundle.sha256, "strata.onnx": contents.model_sha256}
    if contents.preprocess is not None:
        found["strata.preprocess"] = contents.preprocess.to_json()
    if choice.version:
        found["strata.tensorrt"] = choice.version
    return found
