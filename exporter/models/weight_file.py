"""A file of weights: ours, which says all of itself, or another's, which says what it can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from calib_data.preprocess import PRESETS, PreprocessSpec
from core.artifacts import sha256_file
from core.errors import InputError
from core.json_text import parse_json
from exporter.imagenet import Official, official_by_file
from exporter.models.checkpoint import Checkpoint, read_safetensors
from exporter.models.config import ModelOptions, ResNetConfig
from exporter.models.families import name_of
from exporter.models.pickled import read_pickle
from exporter.models.state_dict import fit, infer_config

__all__ = ["SUFFIXES", "read_weights"]

_AGAIN = "make the file again"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def read_weights(
    path: Path, options: ModelOptions, preprocess: PreprocessSpec | None = None
) -> Checkpoint:
    """Read a file of weights and check it against its network.

    Args:
        path: ``.safetensors`` (ours or any), or what ``torch.save`` wrote.
        options: The network, as far as the user said; the file says the rest.
        preprocess: What the user said of the images; None when nothing.

    Raises:
        InputError: The file cannot be used, or is of another network.
    """
    if path.suffix.lower() == ".safetensors":
        tensors, metadata = read_safetensors(path)
        if "strata.config" in metadata:
            return _ours(path, tensors, metadata, options)
        notes: tuple[str, ...] = ()
    else:
        tensors, notes = read_pickle(path)
    checkpoint = _foreign(path, tensors, options)
    checkpoint = replace(checkpoint, notes=(*notes, *checkpoint.notes))
    if preprocess is not None:
        return replace(checkpoint, preprocess=preprocess)
    return _with_preprocess(path, checkpoint, tensors)


def _ours(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], options: ModelOptions
) -> Checkpoint:
    """Read what :func:`~exporter.models.checkpoint.save_checkpoint` wrote."""
    held = ResNetConfig.from_json(metadata["strata.config"], where=str(path))
    config = _agreed(path, held, options)
    spec = metadata.get("strata.preprocess", "null")
    labels = _json(metadata, "strata.labels", path)
    facts = _json(metadata, "strata.origin", path)
    if (
        not isinstance(labels, list)
        or len(labels) not in (0, held.classes)
        or not all(isinstance(text, str) for text in labels)
        or not isinstance(facts, dict)
        or not all(isinstance(text, str) for text in facts.values())
    ):
        raise InputError(f"{path}: its labels or its origin are damaged", hint=_AGAIN)
    return Checkpoint(
        config=config,
        state_dict=fit(tensors, config, where=str(path)),
        preprocess=None if spec == "null" else PreprocessSpec.from_json(spec, where=str(path)),
        labels=tuple(labels),
        origin={"name": path.name, **facts, "sha256": sha256_file(path)},
    )


def _agreed(path: Path, held: ResNetConfig, options: ModelOptions) -> ResNetConfig:
    """Return the file's network, with features if they were asked for.

    Raises:
        InputError: The user said something else than the file.
    """
    try:
        asked = options.over(held)
    except InputError:
        asked = None  # groups of a file with bottlenecks and a depth of basic blocks, say
    if asked is None or replace(asked, features=held.features) != held:
        raise InputError(
            f"{path}: holds {name_of(held)} with {held.classes} classes, not {options.said()}",
            hint="leave those options out, or name another file",
        )
    return asked


def _json(metadata: Mapping[str, str], key: str, path: Path) -> Any:
    try:
        return parse_json(metadata.get(key, "null"))
    except (ValueError, RecursionError) as err:
        raise InputError(f"{path}: its {key} is not JSON ({err})", hint=_AGAIN) from err


def _foreign(path: Path, tensors: Mapping[str, Tensor], options: ModelOptions) -> Checkpoint:
    """Fit the tensors of others to the network they look like, or the user said.

    The preprocess spec is None where the name of the file does not tell it.
    """
    sha256 = sha256_file(path)
    official = official_by_file(path.name)
    if official is not None and not sha256.startswith(official.sha256_begins):
        official = None
    seen = infer_config(tensors) or ResNetConfig()
    if options.depth not in (None, seen.depth) or (options.depth and seen.blocks):
        seen = ResNetConfig(options.depth or seen.depth, classes=seen.classes)
    config = options.over(seen)
    origin = {"name": path.name, "sha256": sha256}
    if official is not None:
        origin |= official.facts
    return Checkpoint(
        config=config,
        state_dict=fit(tensors, config, where=str(path)),
        preprocess=official.preprocess if official else None,
        origin=origin,
        notes=_assumptions(tensors, config, options, official),
    )


def _assumptions(
    tensors: Mapping[str, Tensor],
    config: ResNetConfig,
    options: ModelOptions,
    official: Official | None,
) -> tuple[str, ...]:
    """Say what the tensors alone cannot tell, and what was taken instead."""
    notes = []
    others = {str(t.dtype) for t in tensors.values() if t.is_floating_point()} - {"torch.float32"}
    if others:
        notes.append(f"converted {', '.join(sorted(others))} to float32")
    if official is None and options.version is None and config.bottleneck and config.version != "2":
        notes.append("took the 3×3 to be the one that strides (--version 1.5)")
    if options.shortcut is None and config.shortcut == "none":
        notes.append("found no projections and took it for a plain network (--shortcut none)")
    return tuple(notes)


def _with_preprocess(
    path: Path, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]
) -> Checkpoint:
    """Take ImageNet's older preset for 1000 classes, and say so; guess nothing else.

    Raises:
        InputError: Nobody said how images become the input.
    """
    if checkpoint.preprocess is not None:
        return checkpoint
    if "fc.weight" not in tensors or checkpoint.config.classes != 1000:
        raise InputError(
            f"{path}: nothing says how to prepare images for it",
            hint=f"give --preprocess: {', '.join(PRESETS)}, or numbers",
        )
    note = "took ImageNet's older preset for its 1000 classes (--preprocess imagenet-v1)"
    return replace(checkpoint, preprocess=PRESETS["imagenet-v1"], notes=(*checkpoint.notes, note))
