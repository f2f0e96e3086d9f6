"""Check a Triton model repository by our own rules, with neither Triton nor a GPU.

Triton says most of this itself, when a server starts, on the machine that has the GPU; here it is
said before anything is uploaded.

Source: Triton's user guide, "Model Repository" and "Model Configuration".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError
from deploy.triton.check_files import file_problems, label_problems, version_problems
from deploy.triton.check_schedule import (
    accelerator_problems,
    batching_problems,
    instance_problems,
    warm_up_problems,
)
from deploy.triton.check_tensors import batch_problems, tensor_problems
from deploy.triton.model_folder import BACKENDS, CONFIG, ModelFolder, Problem
from deploy.triton.section import WrongFieldError

__all__ = ["CheckedModel", "check_model", "check_repository"]

_KNOWN = ("tensorrt", "onnxruntime")
_OTHER_PLATFORMS = ("tensorflow_graphdef", "tensorflow_savedmodel", "pytorch_libtorch", "ensemble")
_RULES: tuple[Callable[[ModelFolder], Iterator[Problem]], ...] = (
    version_problems,
    file_problems,
    label_problems,
    batch_problems,
    tensor_problems,
    batching_problems,
    instance_problems,
    warm_up_problems,
    accelerator_problems,
)


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """What the rules say of a model.

    Attributes:
        name: Of its folder.
        backend: Triton's.
        versions: Names of its version folders.
        problems: What is wrong.
        notes: What could not be checked.
    """

    name: str
    backend: str
    versions: tuple[str, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()


def check_repository(folder: Path) -> tuple[CheckedModel, ...]:
    """Check every model of a repository.

    Raises:
        InputError: It is no folder, or there is no model in it.
    """
    try:
        models = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    except OSError as err:
        raise InputError(
            f"{folder}: cannot be read ({err.strerror})", hint="name a model repository"
        ) from err
    if not models:
        raise InputError(
            f"{folder}: holds no model folder", hint="strata triton BUNDLE -o REPOSITORY makes one"
        )
    if (folder / CONFIG).is_file():
        raise InputError(
            f"{folder}: is the folder of a model, not the repository that holds it",
            hint=f"name {folder.parent}",
        )
    return tuple(map(check_model, models))


def check_model(folder: Path) -> CheckedModel:
    """Check one model's folder; a problem is part of the answer, not an error."""
    try:
        model = ModelFolder(folder)
    except (InputError, WrongFieldError) as err:
        return CheckedModel(folder.name, "", (), (_unreadable(folder.name, err),))
    problems = list(_name_problems(model))
    notes: list[str] = []
    if model.backend in _KNOWN:
        for rule in _RULES:
            try:
                problems += rule(model)
            except WrongFieldError as err:  # once a field is wrong, other rules may still say more
                problems.append(_unreadable(model.name, err))
        notes += [
            f"{model.name}/{file.where}: no manifest beside it; what it takes was not checked"
            for file in model.files
            if not file.problem and file.interface is None
        ]
    elif model.backend:
        notes.append(f"{model.name}: of backend {model.backend}, of which nothing is known here")
    versions = tuple(version.name for version in model.versions)
    unique = tuple(dict.fromkeys(problems))
    return CheckedModel(model.name, model.backend, versions, unique, tuple(notes))


def _unreadable(name: str, err: InputError | WrongFieldError) -> Problem:
    if isinstance(err, InputError):
        return Problem(name, CONFIG, err.problem, err.hint)
    return Problem(name, CONFIG, str(err), "Triton's user guide, Model Configuration, lists them")


def _name_problems(model: ModelFolder) -> Iterator[Problem]:
    named = model.config.text("name")
    if named and named != model.name:
        yield Problem(
            model.name,
            CONFIG,
            f"name: {named!r} is not the folder's",
            f"rename the folder, or write {model.name!r} or nothing",
        )
    platform, backend = model.config.text("platform"), model.config.text("backend")
    known = platform in BACKENDS or backend in BACKENDS.values()
    if platform and backend and known and BACKENDS.get(platform) != backend:
        yield Problem(
            model.name,
            CONFIG,
            f"platform: {platform!r} is not of backend {backend!r}",
            "leave one of them out",
        )
    if platform and not backend and platform not in {*BACKENDS, *_OTHER_PLATFORMS}:
        yield Problem(
            model.name,
            CONFIG,
            f"platform: {platform!r} is none of Triton's",
            'write platform: "tensorrt_plan" or "onnxruntime_onnx", or name a backend',
        )
    if not model.backend:
        yield Problem(
            model.name,
            CONFIG,
            "names neither a platform nor a backend",
            'write platform: "tensorrt_plan" or "onnxruntime_onnx"',
        )
