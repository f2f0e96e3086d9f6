"""Which way a bundle runs on a machine: a plan that it brings, one built here, or the CPU.

A machine with a GPU uses it, or is told why it cannot; only one without a GPU, or where the
user asks for it, falls back on ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Literal

from core.errors import BuildError, MissingBackendError
from deploy.bundle.contents import BundledPlan, Contents
from deploy.bundle.reader import Bundle
from deploy.engines.flavour_kinds import FLAVOURS
from deploy.engines.target import NOT_FOR_RTX
from deploy.preflights.described_host import DescribedHost, HostGpu
from deploy.preflights.preflight import Preflight, preflight_bytes

__all__ = ["On", "Way", "choose", "plan_preflights"]

On = Literal["auto", "gpu", "cpu"]
_ON_CPU = "--on cpu runs it by ONNX Runtime"


@dataclass(frozen=True, slots=True)
class Way:
    """How to run a bundle.

    Attributes:
        kind: By a plan of the bundle, by one to be built here, or by ONNX Runtime.
        plan: The plan, for the first of these.
        flavour: The TensorRT to build with, for the second.
        gpu: Number of the GPU in CUDA's order.
        notes: Why not otherwise.
    """

    kind: Literal["plan", "build", "onnxruntime"]
    plan: BundledPlan | None = None
    flavour: str = ""
    gpu: int = 0
    notes: tuple[str, ...] = ()


def plan_preflights(
    bundle: Bundle, contents: Contents, host: DescribedHost
) -> tuple[tuple[BundledPlan, Preflight], ...]:
    """Look at each plan of a bundle, its bytes checked.

    Raises:
        InputError: A plan is damaged.
    """
    return tuple(
        (plan, preflight_bytes(bundle.read(plan.file), plan.manifest, host))
        for plan in contents.plans
    )


def choose(bundle: Bundle, contents: Contents, host: DescribedHost, on: On = "auto") -> Way:
    """Say how a machine runs a bundle.

    Args:
        bundle: The open bundle.
        contents: What it says of its network.
        host: The machine.
        on: ``auto``: the GPU where there is one, else the CPU; or only one of them.

    Raises:
        InputError: A plan is damaged.
        MissingBackendError: There is a GPU and no TensorRT that serves it; or none, and it
            was asked for; or nothing at all.
    """
    if on == "cpu":
        return _on_cpu(bundle, host, "the CPU was asked for")
    if not host.gpus:
        note = f"no GPU here ({host.no_gpu or 'none is named'})"
        if on == "gpu":
            raise MissingBackendError(f"{bundle.path}: {note}", hint=_ON_CPU)
        return _on_cpu(bundle, host, note)
    notes = []
    for plan, found in plan_preflights(bundle, contents, host):
        if found.verdict == "fits":
            return Way("plan", plan=plan, gpu=_number(plan, host.gpus))
        error = found.error()
        notes.append(f"{plan.file}: {error.problem.partition(': ')[2] if error else found.verdict}")
    flavour = _builder(host, host.gpus[0])
    if flavour:
        return Way("build", flavour=flavour, notes=tuple(notes))
    return _nothing_serves(bundle, host, notes)


def _on_cpu(bundle: Bundle, host: DescribedHost, why: str) -> Way:
    if host.here and importlib.util.find_spec("onnxruntime") is None:
        raise MissingBackendError(
            f"{bundle.path}: nothing here runs it: {why}, and ONNX Runtime is not installed",
            hint="pip install onnxruntime; strata doctor says what this machine has",
        )
    return Way("onnxruntime", notes=(f"{why}: ONNX Runtime runs the graph on the CPU",))


def _number(plan: BundledPlan, gpus: tuple[HostGpu, ...]) -> int:
    """Return the first GPU that a plan names, or the first of all."""
    targets = set(plan.manifest.targets)
    return next((at for at, gpu in enumerate(gpus) if str(gpu.capability) in targets), 0)


def _builder(host: DescribedHost, gpu: HostGpu) -> str:
    """Return the flavour to build with for a GPU; empty when none is there."""
    flavours = host.flavours or {}
    here = host.architecture in {"", "x86_64"} and gpu.capability not in NOT_FOR_RTX
    if "rtx" in flavours and here:
        return "rtx"
    return "tensorrt" if "tensorrt" in flavours else ""


def _nothing_serves(bundle: Bundle, host: DescribedHost, notes: list[str]) -> Way:
    gpu = (host.gpus or ())[0]
    flavour = "tensorrt" if gpu.capability in NOT_FOR_RTX else "rtx"
    get = FLAVOURS[flavour].hint
    if host.jetson:
        get = "install the TensorRT that JetPack brings"
    why = "; ".join(notes) or "it holds no plan"
    kind = BuildError if host.flavours else MissingBackendError
    raise kind(
        f"{bundle.path}: no TensorRT that is installed serves {gpu.name} ({gpu.capability}): {why}",
        hint=f"{get}; {_ON_CPU}",
    )
