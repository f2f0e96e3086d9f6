"""This machine in facts: Python, system, processor, memory, disk, libraries, GPUs.

Nothing heavy is imported: versions come from package metadata, the rest from /proc, so
that ``strata doctor`` answers at once and also where a library is broken.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.memory import memory_bytes
from deploy.engines.flavour_kinds import installed_flavours
from deploy.machines.host import Gpus, find_gpus, jetson_release

__all__ = ["LIBRARIES", "Cpu", "Machine", "examine"]

# Library → the distributions that bring it. The flavours of TensorRT are asked for apart.
LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "numpy": ("numpy",),
    "pillow": ("pillow",),
    "polygraphy": ("polygraphy",),
    "torch": ("torch",),
    "onnx": ("onnx",),
    "onnx-ir": ("onnx-ir",),
    "onnxscript": ("onnxscript",),
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "safetensors": ("safetensors",),
}
# What a reader calls a feature → the names that Linux has for it, x86 and Arm.
_FEATURES: Mapping[str, frozenset[str]] = {
    "AVX2": frozenset({"avx2"}),
    "AVX-512": frozenset({"avx512f"}),
    "VNNI": frozenset({"avx512_vnni", "avx_vnni"}),
    "AMX": frozenset({"amx_int8", "amx_bf16"}),
    "BF16": frozenset({"avx512_bf16", "amx_bf16", "bf16"}),
    "Neon": frozenset({"asimd"}),
    "dot product": frozenset({"asimddp"}),
    "I8MM": frozenset({"i8mm"}),
}


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processor, as far as this process may use it."""

    model: str
    cores: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that decides what works here.

    Attributes:
        memory_bytes: (free, whole), within this container's limit.
        disk_bytes: (free, whole) of the disk that ``build/`` lies on.
        libraries: Name → version; None when it is not installed.
        flavours: Name → version of each TensorRT that is installed.
        jetson: L4T release of a Jetson; empty on other machines.
    """

    python: str
    system: str
    architecture: str
    cpu: Cpu
    memory_bytes: tuple[int, int]
    disk_bytes: tuple[int, int]
    libraries: Mapping[str, str | None]
    flavours: Mapping[str, str]
    gpus: Gpus
    jetson: str


def examine(folder: Path) -> Machine:
    """Look at this machine.

    Args:
        folder: Where artifacts will lie; it need not exist yet.
    """
    return Machine(
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()}",
        architecture=platform.machine(),
        cpu=_cpu(),
        memory_bytes=memory_bytes(),
        disk_bytes=_disk(folder),
        libraries={name: _version(found) for name, found in LIBRARIES.items()},
        flavours=installed_flavours(),
        gpus=find_gpus(),
        jetson=jetson_release(),
    )


def _version(distributions: tuple[str, ...]) -> str | None:
    for name in distributions:
        with suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return None


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _cpu() -> Cpu:
    text = _read("/proc/cpuinfo")
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    known = set(flags[1].split()) if flags else set()
    return Cpu(
        model=model[1].strip() if model else platform.processor() or platform.machine(),
        cores=_cores(),
        features=tuple(name for name, names in _FEATURES.items() if names & known),
    )


def _cores() -> int:
    """Return the cores of this process: by its affinity, and its container's share."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):
        return max(1, min(cores or 1, round(int(quota[0]) / int(quota[1]))))
    return cores or 1


def _disk(folder: Path) -> tuple[int, int]:
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir())
    usage = shutil.disk_usage(there)
    return usage.free, usage.total
