"""Read what ``torch.save`` wrote, tensors only: nothing in the file is ever run."""

from __future__ import annotations

import pickletools
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.errors import InputError
from exporter.models.state_dict import strip_prefix

__all__ = ["read_pickle"]

_WRAPPERS = ("state_dict", "model", "model_state_dict")  # where training scripts put it
_PREFIX = "module."  # DataParallel's
_SAVE = "save its weights alone: torch.save(model.state_dict(), FILE)"


def read_pickle(path: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Read a state dict, by itself or under a usual name in a checkpoint.

    Returns:
        Name → tensor, and notes on what was unwrapped or renamed.

    Raises:
        InputError: Missing, truncated, not a pickle of tensors, or one that would run code.
    """
    value = _load(path)
    notes: list[str] = []
    if isinstance(value, Mapping):
        for name in _WRAPPERS:
            if isinstance(value.get(name), Mapping):
                notes.append(f"took {name!r} of the checkpoint")
                value = value[name]
                break
    tensors = _tensors(value, path)
    if (stripped := strip_prefix(tensors, _PREFIX)) is not None:
        notes.append(f"dropped the prefix {_PREFIX!r} of every key")
        tensors = stripped
    return tensors, tuple(notes)


def _load(path: Path) -> Any:
    """Unpickle under torch's allow list."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on formats that are refused below anyway
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror or err})",
            hint="check the path and its permissions",
        ) from err
    # A damaged pickle can raise whatever its bytes spell.
    except Exception as err:
        raise _refused(path, str(err)) from err


def _refused(path: Path, text: str) -> InputError:
    """Say why torch's restricted unpickler stopped."""
    if path.stat().st_size == 0:
        return InputError(f"{path}: is empty", hint="fetch or make the file again")
    if "TorchScript" in text:
        return InputError(f"{path}: a TorchScript archive, no state dict", hint=_SAVE)
    found = re.search(r"GLOBAL ([\w.]+\w)|Trying to (?:call|access) ([\w.]+\w)", text)
    name = (found[1] or found[2]) if found else _first_global(path)
    if name:
        return InputError(
            f"{path}: the pickle asks to run code ({name}); strata reads tensors only",
            hint=f"if you trust the file, load it yourself and {_SAVE}",
        )
    inner = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    reason = (inner[1] if inner else re.split(r"\. |\n", text)[0])[:120]
    return InputError(
        f"{path}: truncated, or not a file of torch.save ({reason})",
        hint="fetch or make the file again",
    )


def _first_global(path: Path) -> str:
    """Return the first function or class that a bare pickle names, read and not run."""
    strings: list[str] = []
    try:
        with path.open("rb") as file:
            for operation, argument, _ in pickletools.genops(file):
                if operation.name == "GLOBAL":
                    return str(argument).replace(" ", ".")
                if operation.name == "STACK_GLOBAL" and len(strings) > 1:
                    return ".".join(strings[-2:])
                if isinstance(argument, str):
                    strings.append(argument)
    except (ValueError, EOFError, UnicodeDecodeError, OverflowError, MemoryError):
        pass  # no pickle, or the end of it is missing
    return ""


def _tensors(value: object, path: Path) -> dict[str, Tensor]:
    """Require a mapping of names to tensors."""
    if not isinstance(value, Mapping):
        raise InputError(f"{path}: holds a {type(value).__name__}, no state dict", hint=_SAVE)
    for key, entry in value.items():
        if not isinstance(key, str) or not isinstance(entry, Tensor):
            raise InputError(
                f"{path}: no state dict: its entry {str(key)[:60]!r} is a {type(entry).__name__}, "
                "not a tensor",
                hint=_SAVE,
            )
        if entry.layout != torch.strided or entry.is_complex() or entry.is_quantized:
            raise InputError(f"{path}: {key} is a {entry.layout} {entry.dtype} tensor", hint=_SAVE)
    return dict(value)
