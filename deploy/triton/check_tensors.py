"""Rules on tensors: names, types, dimensions and batches are those of the model file."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence

from deploy.engines.manifest import Binding
from deploy.triton.interface import TYPES, Interface
from deploy.triton.model_folder import CONFIG, ModelFile, ModelFolder, Problem
from deploy.triton.section import Section

__all__ = ["batch_problems", "is_number", "profiles_used", "tensor_problems"]

_EXTRA_TYPES = {"TYPE_STRING", "TYPE_INVALID"}
_KINDS = (("input", "ModelInput"), ("output", "ModelOutput"))


def is_number(text: str) -> bool:
    """Tell whether a text is the number of an optimization profile."""
    return re.fullmatch(r"[0-9]{1,4}", text) is not None


def profiles_used(model: ModelFolder) -> tuple[int, ...]:
    """Return the numbers of the optimization profiles that are served; (0,) unless it says."""
    groups = model.config.sections("instance_group", "ModelInstanceGroup")
    named = [text for group in groups for text in group.texts("profile")]
    return tuple(dict.fromkeys(int(text) for text in named if is_number(text))) or (0,)


def batch_problems(model: ModelFolder) -> Iterator[Problem]:
    """Does every profile take the batches that Triton will make?"""
    largest = model.config.integer("max_batch_size")
    if largest < 0:
        yield _config(model, f"max_batch_size: {largest} is below 0", "write 0 for no batching")
    for file, interface in _known(model):
        if largest > 0 and not interface.batched:
            yield _config(
                model,
                f"max_batch_size is {largest}, but the batch of {file.where} is fixed",
                "write 0, and the whole shapes in dims; or export it with a free batch",
            )
            continue
        if largest <= 0 or not interface.profiles:
            continue
        used = [interface.profiles[at] for at in profiles_used(model) if _has(interface, at)]
        if used and largest > max(batches.max for batches in used):
            yield _config(
                model,
                f"max_batch_size is {largest}, but {file.where} takes "
                f"{max(batches.max for batches in used)} images at most",
                "write what the plan takes, or build it with a larger --batch",
            )
        if used and min(batches.min for batches in used) > 1:
            yield _config(
                model,
                f"{file.where} takes {min(batches.min for batches in used)} images or more, and a "
                "server gets single ones",
                "build it with a smallest batch of 1",
            )


def _has(interface: Interface, profile: int) -> bool:
    return profile < len(interface.profiles)


def tensor_problems(model: ModelFolder) -> Iterator[Problem]:
    """Are the tensors those of the file?"""
    largest = model.config.integer("max_batch_size")
    for what, kind in _KINDS:
        sections = list(model.config.sections(what, kind))
        names = [section.text("name") for section in sections]
        for name in sorted({name for name in names if names.count(name) > 1}):
            yield _config(model, f"{what} {name!r} is there twice", "leave one of them out")
        for section in sections:
            yield from _own_problems(model, what, section)
        for file, interface in _known(model):
            there = interface.inputs if what == "input" else interface.outputs
            yield from _missing(model, (what, names), file, there)
            found = {tensor.name: tensor for tensor in there}
            for section in sections:
                if section.text("name") in found:
                    tensor = found[section.text("name")]
                    yield from _differences(model, section, tensor, (file, largest))


def _own_problems(model: ModelFolder, what: str, section: Section) -> Iterator[Problem]:
    name, kind = section.text("name"), section.word("data_type")
    if not name:
        yield _config(model, f"an {what} has no name", "write the name that the file gives it")
    if kind not in {*TYPES.values(), *_EXTRA_TYPES} or kind == "TYPE_INVALID":
        yield _config(model, f"{what} {name!r}: {kind or 'no'} data_type", "write TYPE_FP32, …")
    dims = section.integers("dims")
    if not dims or any(n < -1 or n == 0 for n in dims):
        yield _config(
            model, f"{what} {name!r}: dims {list(dims)}", "write sizes, or -1 where it is free"
        )
    reshape = section.section("reshape")
    shape = reshape.integers("shape") if reshape is not None else dims
    if -1 not in (*dims, *shape) and math.prod(dims) != math.prod(shape):
        yield _config(
            model,
            f"{what} {name!r}: dims {list(dims)} cannot be reshaped to {list(shape)}",
            "name as many values in both",
        )


def _missing(
    model: ModelFolder, said: tuple[str, Sequence[str]], file: ModelFile, there: Sequence[Binding]
) -> Iterator[Problem]:
    what, names = said
    found = [tensor.name for tensor in there]
    for name in names:
        if name and name not in found:
            yield _config(
                model,
                f"{what} {name!r} is not in {file.where}",
                f"its {what}s are {', '.join(found)}",
            )
    if what == "input":  # an output may be left out; an input cannot
        for name in found:
            if name not in names:
                yield _config(
                    model, f"input {name!r} of {file.where} is not there", "write it, too"
                )


def _differences(
    model: ModelFolder, section: Section, tensor: Binding, at: tuple[ModelFile, int]
) -> Iterator[Problem]:
    file, largest = at
    kind, wanted = section.word("data_type"), TYPES.get(tensor.dtype, "")
    if wanted and kind in TYPES.values() and kind != wanted:
        yield _config(
            model,
            f"{tensor.name!r} is {kind}, but {wanted} in {file.where}",
            f"write {wanted}",
        )
    reshape = section.section("reshape")  # then this is what the file sees
    dims = reshape.integers("shape") if reshape is not None else section.integers("dims")
    shape = tensor.shape[1:] if largest > 0 else tensor.shape
    fits = len(dims) == len(shape) and all(
        -1 in (said, own) or said == own for said, own in zip(dims, shape, strict=True)
    )
    if (dims or reshape is not None) and not fits:
        behind = " behind the batch" if largest > 0 else ""
        yield _config(
            model,
            f"{tensor.name!r} has dims {list(dims)}, but {list(shape)}{behind} in {file.where}",
            f"write {list(shape)}",
        )


def _known(model: ModelFolder) -> Iterator[tuple[ModelFile, Interface]]:
    for file in model.files:
        if file.interface is not None:
            yield file, file.interface


def _config(model: ModelFolder, what: str, hint: str) -> Problem:
    return Problem(model.name, CONFIG, what, hint)
