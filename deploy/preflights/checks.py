"""Whether a machine has the TensorRT, the system and the driver that a plan needs.

Source: TensorRT-RTX support matrix 1.0 to 1.7; TensorRT documentation 11.4, "Support
Matrix" and "Prerequisites" (drivers).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from core.errors import InputError
from deploy.engines.build_options import brings_runtime, is_stripped
from deploy.engines.flavour_kinds import FLAVOURS
from deploy.engines.manifest import Manifest
from deploy.engines.plan_weights import weights_beside
from deploy.engines.target import NOT_FOR_RTX, ComputeCapability
from deploy.engines.versions import loads, numbers
from deploy.preflights.described_host import DescribedHost
from deploy.preflights.facts import FLAVOUR_NAMES, Finding, PlanFacts, State

__all__ = [
    "driver_finding",
    "flavour_finding",
    "system_finding",
    "version_finding",
    "weights_finding",
]

_GB10 = ComputeCapability(12, 1)
# Oldest driver that any package of a flavour and its major version works with, and the
# oldest for CUDA 13, for which pip's packages are built (TensorRT 10's are for CUDA 12).
_DRIVERS: Mapping[tuple[str, int], tuple[int, int]] = {
    ("rtx", 1): (525, 580),
    ("tensorrt", 10): (535, 535),
    ("tensorrt", 11): (535, 580),
}


def flavour_finding(plan: PlanFacts, host: DescribedHost) -> Finding:
    """Is its flavour of TensorRT there?"""
    name = FLAVOUR_NAMES[plan.flavour]
    if host.flavours is None:
        return Finding("flavour", "not said", f"needs {name}")
    if plan.flavour in host.flavours:
        return Finding("flavour", "yes", f"{name} {host.flavours[plan.flavour]} is there")
    others = [f"{FLAVOUR_NAMES.get(k, k)} {version}" for k, version in host.flavours.items()]
    there = f"; there: {', '.join(others)}" if others else ""
    release = f" ({plan.version})" if plan.version else ""
    if plan.flavour == "tensorrt" and host.jetson:
        hint = f"install the TensorRT that JetPack brings{release}"
    elif plan.flavour == "rtx" and any(gpu.capability in NOT_FOR_RTX for gpu in host.gpus or ()):
        hint = "build for that machine with --flavour tensorrt: TensorRT-RTX does not serve its GPU"
    else:
        hint = f"{FLAVOURS[plan.flavour].hint}{release}"
    return Finding("flavour", "no", f"needs {name}, which is not there{there}", hint)


def weights_finding(engine: Path, manifest: Manifest, host: DescribedHost) -> tuple[Finding, ...]:
    """Where are the weights of a plan that was built without them?"""
    if not is_stripped(manifest.options):
        return ()
    try:
        beside = weights_beside(engine, manifest)
    except InputError as err:
        note = err.problem.removeprefix(f"{engine}: ")
        return (Finding("weights", "no" if host.here else "not said", note, err.hint),)
    return (Finding("weights", "yes", f"they are in {beside.path.name} beside it"),)


def version_finding(plan: PlanFacts, host: DescribedHost) -> Finding:
    """Does that version load it?"""
    here = (host.flavours or {}).get(plan.flavour)
    if here is None:
        return Finding("version", "not said", f"built by {plan.name}")
    compatible = brings_runtime(plan.options)
    state = loads(plan.flavour, plan.version, here, compatible=compatible)
    name = FLAVOUR_NAMES[plan.flavour]
    if state == "yes":
        return Finding("version", "yes", f"built by {plan.version}, loaded by {here}")
    rebuild = f"build it again with {name} {here}, or install {plan.version or 'its version'} there"
    if state == "no":
        rule = "a plan loads in its own release only"
        if plan.flavour == "tensorrt":
            rule = "a plan loads in its own version only, unless it was built version-compatible"
        note = f"built by {plan.name}, there is {here}: {rule}"
        return Finding("version", "no", note, rebuild)
    note = f"built by {plan.name}, there is {here}: whether that loads it is not known here"
    return Finding("version", "unknown", note, f"try it there, or {rebuild}")


def system_finding(plan: PlanFacts, host: DescribedHost) -> Finding:
    """Is it for that operating system and processor?"""
    there = " ".join(filter(None, (host.system, host.architecture)))
    if plan.flavour == "rtx":
        if host.architecture not in {"", "x86_64"}:
            note = f"TensorRT-RTX is for x86_64; there is {host.architecture}"
            if host.gpus and all(gpu.capability == _GB10 for gpu in host.gpus):
                hint = "try it there; for GB10 on Arm nothing is known here"
                return Finding("system", "unknown", note, hint)
            return Finding("system", "no", note, "build with --flavour tensorrt on that machine")
        if host.system not in {"", "linux", "windows"}:
            note = f"TensorRT-RTX is for Linux and Windows; there is {host.system}"
            return Finding("system", "no", note, "run it on Linux or Windows")
        if not there:
            return Finding("system", "not said", "runs on Linux and Windows, x86_64")
        return Finding("system", "yes", f"runs on Linux and Windows, x86_64; there is {there}")
    system, _, architecture = plan.platform.partition("-")
    if not there:
        return Finding("system", "not said", f"built on {plan.platform or 'an unknown system'}")
    if not plan.platform:
        hint = "build it again, with a manifest"
        return Finding("system", "unknown", "on which system it was built is not known", hint)
    same = host.system in {"", system} and host.architecture in {"", architecture}
    if same:
        return Finding("system", "yes", f"built on {plan.platform}; there is {there}")
    note = f"built on {plan.platform}, and a plan does not move to {there}"
    return Finding("system", "no", note, "build it on that machine")


def driver_finding(plan: PlanFacts, host: DescribedHost) -> Finding:
    """Is the driver new enough, as far as is known?"""
    driver, major = numbers(host.driver), numbers(plan.version)[:1]
    known = _DRIVERS.get((plan.flavour, major[0])) if major else None
    if host.jetson:
        return Finding("driver", "yes", "JetPack brings driver and TensorRT together")
    if known is None:
        state: State = "unknown" if driver else "not said"
        note = f"which driver {plan.name} needs is not known here"
        return Finding("driver", state, note, "try it there")
    oldest, for_cuda13 = known
    if not driver:
        return Finding("driver", "not said", f"needs {oldest} or newer; {for_cuda13} for CUDA 13")
    if driver[0] >= for_cuda13:
        return Finding("driver", "yes", f"{host.driver}, needs {for_cuda13} or newer")
    if driver[0] < oldest:
        note = f"{host.driver} is too old: {plan.name} needs {oldest} or newer"
        return Finding("driver", "no", note, f"install driver {for_cuda13} or newer")
    note = (
        f"{host.driver}: enough for a package built for CUDA 12, not for pip's, which are for "
        f"CUDA 13 and need {for_cuda13}"
    )
    return Finding("driver", "unknown", note, f"install driver {for_cuda13} or newer")
