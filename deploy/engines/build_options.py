"""How an engine is built, besides what it is built for: TensorRT's options, each with a word.

All of them are written into the manifest, since what a plan needs to be loaded follows from
some of them: its weights, its own runtime, the GPUs that it moves to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import InputError

__all__ = [
    "HARDWARE",
    "BuildOptions",
    "Hardware",
    "brings_runtime",
    "is_refittable",
    "is_stripped",
    "shows_tensors",
]

Hardware = Literal["ampere_plus", "same_compute_capability"]
HARDWARE: tuple[Hardware, ...] = ("ampere_plus", "same_compute_capability")
_MB = 1 << 20
_STRIPPED = "stripped"


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """TensorRT's options for one build.

    Attributes:
        optimization_level: TensorRT's builder optimization level, 0 to 5; None for its default.
        workspace_bytes: Most scratch memory a kernel may take on the GPU; None for its default.
        timing_cache: File of how long kernels took, read before the build and written after
            it; flavour tensorrt.
        version_compatible: A plan for newer versions too: it brings the runtime that loads it;
            flavour tensorrt.
        hardware: A plan for other GPUs too; flavour tensorrt.
        strip_weights: A plan without its weights, which come from the ONNX file when it is
            loaded.
        refit: A plan that takes the weights of another training of the same network.
        debug_tensors: A plan that shows the tensors within it, to compare them.
    """

    optimization_level: int | None = None
    workspace_bytes: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: Hardware | None = None
    strip_weights: bool = False
    refit: bool = False
    debug_tensors: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that TensorRT has no meaning for."""
        if self.optimization_level is not None and not 0 <= self.optimization_level <= 5:
            raise InputError(
                f"--level {self.optimization_level} is not 0 to 5", hint="TensorRT's default is 3"
            )
        if self.workspace_bytes is not None and self.workspace_bytes < _MB:
            raise InputError(
                f"--workspace of {self.workspace_bytes} bytes is under 1 MB",
                hint="leave it out for TensorRT's default",
            )

    def to_manifest(self) -> dict[str, bool | int | str | None]:
        """Return what a manifest says of them; the timing cache is for the builder to add."""
        return {
            "optimization_level": self.optimization_level,
            "workspace_bytes": self.workspace_bytes,
            "version_compatible": self.version_compatible,
            "hardware_compatibility": self.hardware,
            "weights": _STRIPPED if self.strip_weights else "in the plan",
            "refit": self.refit,
            "debug_tensors": self.debug_tensors,
        }


Recorded = Mapping[str, bool | int | str | None]


def is_stripped(options: Recorded) -> bool:
    """Tell from a manifest's options whether the plan lacks its weights."""
    return options.get("weights") == _STRIPPED


def is_refittable(options: Recorded) -> bool:
    """Tell from a manifest's options whether the plan takes other weights."""
    return bool(options.get("refit"))


def brings_runtime(options: Recorded) -> bool:
    """Tell from a manifest's options whether the plan brings a runtime of its own."""
    return bool(options.get("version_compatible"))


def shows_tensors(options: Recorded) -> bool:
    """Tell from a manifest's options whether the plan shows the tensors within it."""
    return bool(options.get("debug_tensors"))
