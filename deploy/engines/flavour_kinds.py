"""What is known of each flavour of TensorRT before it is imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["FLAVOURS", "FlavourKind", "installed_flavours"]


@dataclass(frozen=True, slots=True)
class FlavourKind:
    """What is known of a flavour before it is imported."""

    name: str
    module: str
    distributions: tuple[str, ...]  # that may have brought it
    builds_without_gpu: bool

    @property
    def hint(self) -> str:
        """How to get it."""
        return f"pip install 'strata[{self.name}]'"


FLAVOURS: Mapping[str, FlavourKind] = {
    "rtx": FlavourKind("rtx", "tensorrt_rtx", ("tensorrt-rtx",), builds_without_gpu=True),
    "tensorrt": FlavourKind(
        "tensorrt",
        "tensorrt",
        ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
        builds_without_gpu=False,
    ),
}


def installed_flavours() -> dict[str, str]:
    """Return name → version of the flavours that are installed, without importing them."""
    found = {}
    for kind in FLAVOURS.values():
        if importlib.util.find_spec(kind.module) is not None:
            found[kind.name] = _version(kind)
    return found


def _version(kind: FlavourKind) -> str:
    for distribution in kind.distributions:
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"  # installed without pip, as JetPack does
