"""Rules on the files of a model: versions, plans, labels."""

from __future__ import annotations

import re
from collections.abc import Iterator

from deploy.triton.model_folder import CONFIG, ModelFolder, Problem

__all__ = ["file_problems", "label_problems", "version_problems"]


def version_problems(model: ModelFolder) -> Iterator[Problem]:
    """Is there a version, and are all of them such as Triton sees?"""
    for name in model.other_folders:
        yield Problem(
            model.name,
            name,
            "is no version: Triton takes folders named 1, 2, … and leaves out all others",
            "rename it to a number that does not start with 0, or remove it",
        )
    if not model.versions:
        yield Problem(model.name, "", "holds no version", "put the model file into a folder 1")
    policy = model.config.section("version_policy", "ModelVersionPolicy")
    specific = policy.section("specific") if policy is not None else None
    there = {int(version.name) for version in model.versions}
    for number in specific.integers("versions") if specific is not None else ():
        if number not in there:
            yield Problem(
                model.name,
                CONFIG,
                f"version_policy names version {number}, which is not there",
                "name versions that are there",
            )


def file_problems(model: ModelFolder) -> Iterator[Problem]:
    """Is every model file there, whole, and of the backend?"""
    for capability in model.file_names:
        if capability and not re.fullmatch(r"\d{1,2}\.\d", capability):
            yield Problem(
                model.name,
                CONFIG,
                f"cc_model_filenames: {capability!r} is no compute capability",
                'write it as "8.6"',
            )
    if model.backend == "onnxruntime" and set(model.file_names) - {""}:
        yield Problem(
            model.name,
            CONFIG,
            "cc_model_filenames: an ONNX file is for every GPU",
            "write default_model_filename in place of it",
        )
    for name in model.file_names.values():
        if "/" in name:
            yield Problem(
                model.name, CONFIG, f"{name!r} is no file name", "name a file of the version folder"
            )
    for file in model.files:
        if file.problem:
            yield Problem(model.name, file.where, file.problem, file.hint)
    versions = sorted({file.manifest.version for file in model.files if file.manifest is not None})
    if len(versions) > 1:
        yield Problem(
            model.name,
            "",
            f"its plans are of TensorRT {' and '.join(versions)}; a server has one",
            "build them with the TensorRT of the server",
        )
    yield from _wrong_gpus(model)


def _wrong_gpus(model: ModelFolder) -> Iterator[Problem]:
    """Yield plans that are handed to a GPU they were not built for."""
    for capability, name in model.file_names.items():
        for file in model.files:
            if file.path.name != name or file.manifest is None or not file.manifest.targets:
                continue
            target = f"sm{capability.replace('.', '')}"
            if capability and target not in file.manifest.targets:
                yield Problem(
                    model.name,
                    file.where,
                    f"is for {', '.join(file.manifest.targets)}, and cc_model_filenames gives it "
                    f"to {capability}",
                    "give each GPU the plan that was built for it",
                )


def label_problems(model: ModelFolder) -> Iterator[Problem]:
    """Is there a label for each class?"""
    for output in model.config.sections("output", "ModelOutput"):
        name = output.text("label_filename")
        if not name:
            continue
        path = model.path / name
        if "/" in name or not path.is_file():
            yield Problem(
                model.name, name, "is named by label_filename and is not there", "put it there"
            )
            continue
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        dims = output.integers("dims")
        if dims and dims[-1] > 0 and len(lines) != dims[-1]:
            yield Problem(
                model.name,
                name,
                f"{len(lines)} labels for {dims[-1]} classes of {output.text('name')!r}",
                "write one label a line, in the order of the classes",
            )
        if "" in map(str.strip, lines):
            yield Problem(model.name, name, "holds an empty label", "write one label a line")
