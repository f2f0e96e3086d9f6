"""A machine that an engine is to run on: this one, or one that is described.

A description is a list of facts, in any order, or the JSON of ``strata doctor --json``::

    sm86
    RTX 3090, driver 580, linux, tensorrt-rtx 1.7.1
    Jetson AGX Orin, tensorrt 10.3.0

What it does not say is not checked. A description that names a TensorRT names all there are.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TextIO

from core.artifacts import regular
from core.errors import InputError
from deploy.engines.flavour_kinds import installed_flavours
from deploy.engines.manifest_fields import Fields
from deploy.engines.target import NOT_FOR_RTX, ComputeCapability, capability_of
from deploy.machines.host import find_gpus, jetson_release

__all__ = ["DescribedHost", "HostGpu", "described_host", "this_host"]

_SYSTEMS = {"linux": "linux", "windows": "windows", "win": "windows"}
_ARCHITECTURES = {
    "x86_64": "x86_64",
    "x86-64": "x86_64",
    "amd64": "x86_64",
    "x64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
    "arm": "aarch64",
}
_FLAVOUR = re.compile(r"tensorrt(?:[-_ ]?(?:for )?(rtx))?\s+v?(\d+(?:\.\d+)*)")
_NUMBERED = re.compile(r"(driver|cuda)\s+[rv]?(\d+(?:\.\d+)*)")
_MOST_CHARACTERS = 1 << 20  # doctor writes some thousand


@dataclass(frozen=True, slots=True)
class HostGpu:
    """A GPU; its memory is 0 where it is not known."""

    name: str
    capability: ComputeCapability
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DescribedHost:
    """What is known of a machine; None, or an empty text, is what nobody said.

    Attributes:
        name: What to call it.
        gpus: None when not said; empty when it has none that can be used.
        no_gpu: Why it has none.
        system: ``linux`` or ``windows``.
        architecture: ``x86_64`` or ``aarch64``.
        driver: Version of NVIDIA's driver.
        cuda: Newest CUDA that the driver serves.
        flavours: Name → version of each TensorRT that is installed.
        here: Whether it is this machine.
    """

    name: str
    gpus: tuple[HostGpu, ...] | None = None
    no_gpu: str = ""
    system: str = ""
    architecture: str = ""
    driver: str = ""
    cuda: str = ""
    flavours: Mapping[str, str] | None = None
    jetson: bool = False
    here: bool = False


def this_host() -> DescribedHost:
    """Return what this machine is."""
    gpus = find_gpus()
    return DescribedHost(
        name="this machine",
        gpus=tuple(HostGpu(gpu.name, gpu.capability, gpu.memory_bytes) for gpu in gpus.devices),
        no_gpu=gpus.problem,
        system=platform.system().lower(),
        architecture=_architecture(platform.machine()),
        driver=gpus.driver,
        cuda=gpus.cuda,
        flavours=installed_flavours(),
        jetson=bool(jetson_release()),
        here=True,
    )


def described_host(text: str) -> DescribedHost:
    """Read a description of a machine.

    Args:
        text: Facts, a JSON file of ``strata doctor --json``, or ``-`` for such JSON on stdin.

    Raises:
        InputError: A fact that is none, or JSON that is not doctor's.
    """
    if text == "-":
        return _from_doctor(_object(_read(sys.stdin, Path("stdin")), Path("stdin")), Path("stdin"))
    path = Path(text)
    if text.endswith(".json"):
        try:
            with regular(path).open(encoding="utf-8") as file:
                said = _read(file, path)
        except OSError as err:
            raise InputError(
                f"--host {text}: cannot be read ({err})",
                hint="write it on that machine: strata doctor --json > host.json",
            ) from err
        return _from_doctor(_object(said, path), path)
    host = DescribedHost(name=text)
    for fact in filter(None, (part.strip() for part in text.split(","))):
        host = _with(host, fact)
    if host == DescribedHost(name=text):
        raise InputError(f"--host {text!r} says nothing", hint='for example --host "RTX 3090"')
    return host


def _with(host: DescribedHost, fact: str) -> DescribedHost:
    """Return a host of which one fact more is known."""
    word = fact.lower()
    if word in _SYSTEMS:
        return replace(host, system=_SYSTEMS[word])
    if word in _ARCHITECTURES:
        return replace(host, architecture=_ARCHITECTURES[word])
    if word in {"no gpu", "cpu"}:
        return replace(host, gpus=(), no_gpu="it has no GPU")
    if found := _NUMBERED.fullmatch(word):
        return replace(host, **{found[1]: found[2]})  # type: ignore[arg-type]
    if found := _FLAVOUR.fullmatch(word):
        name = "rtx" if found[1] else "tensorrt"
        return replace(host, flavours={**(host.flavours or {}), name: found[2]})
    try:
        capability = capability_of(fact)
    except InputError as err:
        raise InputError(
            f"--host: {fact!r} is no fact that is known ({err.problem.removeprefix('--target ')})",
            hint="a GPU, linux or windows, x86_64 or aarch64, driver 580, cuda 13.0, "
            f"tensorrt-rtx 1.7.1, tensorrt 10.9; {err.hint}",
        ) from err
    gpu = HostGpu(fact, capability)
    if NOT_FOR_RTX.get(capability, "").startswith("Jetson"):
        host = replace(
            host,
            jetson=True,
            system=host.system or "linux",
            architecture=host.architecture or "aarch64",
        )
    return replace(host, gpus=(*(host.gpus or ()), gpu))


def _architecture(machine: str) -> str:
    return _ARCHITECTURES.get(machine.lower(), machine.lower())


def _read(file: TextIO, path: Path) -> str:
    """Read a description, and of an endless one (a device, a pipe) no more than its beginning."""
    try:
        text = file.read(_MOST_CHARACTERS + 1)
    except UnicodeDecodeError as err:
        raise _not_doctors(path, f"no text: {err}") from err
    if len(text) > _MOST_CHARACTERS:
        raise _not_doctors(path, f"more than {_MOST_CHARACTERS} characters")
    return text


def _object(text: str, path: Path) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise _not_doctors(path, f"not JSON: {err}") from err
    if not isinstance(value, dict) or not isinstance(value.get("machine"), dict):
        raise _not_doctors(path, "no machine is described in it")
    machine: dict[str, Any] = value["machine"]
    return machine


def _not_doctors(path: Path, why: str) -> InputError:
    return InputError(
        f"--host {path}: not what strata doctor writes ({why})",
        hint="write it on that machine: strata doctor --json > host.json",
    )


def _from_doctor(machine: Mapping[str, Any], path: Path) -> DescribedHost:
    fields = Fields(machine, path, "machine.")
    gpus, flavours = fields.child("gpus"), fields.child("flavours")
    devices = []
    for device in gpus.items("devices"):
        capability = device.child("capability")
        number = ComputeCapability(capability.integer("major"), capability.integer("minor"))
        devices.append(HostGpu(device.text("name"), number, device.integer("memory_bytes")))
    return DescribedHost(
        name=path.name,
        gpus=tuple(devices),
        no_gpu=gpus.text("problem"),
        system=fields.text("system").lower().split(" ")[0],
        architecture=_architecture(fields.text("architecture")),
        driver=gpus.text("driver"),
        cuda=gpus.text("cuda"),
        flavours={name: flavours.text(name) for name in flavours},
        jetson=bool(fields.text("jetson")),
    )
