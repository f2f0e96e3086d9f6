"""Whether a plan was built for a machine's GPU.

Source: TensorRT-RTX support matrix 1.0 to 1.7; TensorRT documentation, "Hardware
Compatibility".
"""

from __future__ import annotations

from deploy.engines.target import NOT_FOR_RTX, ComputeCapability, describe
from deploy.preflights.described_host import DescribedHost, HostGpu
from deploy.preflights.facts import Finding, PlanFacts

__all__ = ["gpu_finding", "memory_finding"]

_TURING = ComputeCapability(7, 5)
_RUN_THERE = "run this on the machine that has the GPU, or describe it with --host"


def gpu_finding(plan: PlanFacts, host: DescribedHost) -> Finding:
    """Was it built for a GPU of that machine?"""
    if host.gpus is None:
        built = describe(plan.capabilities) if plan.capabilities else "GPUs that are not known"
        return Finding("gpu", "not said", f"built for {built}")
    if not host.gpus:
        return Finding("gpu", "not run", f"no GPU to run it on: {host.no_gpu}", _RUN_THERE)
    found = [_one_gpu(plan, gpu) for gpu in host.gpus]
    for state in ("yes", "unknown", "no"):
        for finding in found:
            if finding.state == state:
                return finding
    return found[0]


def _one_gpu(plan: PlanFacts, gpu: HostGpu) -> Finding:
    capability = gpu.capability
    what = str(capability) if gpu.name == str(capability) else f"{gpu.name} ({capability})"
    if plan.flavour == "rtx" and capability in NOT_FOR_RTX:
        note = f"TensorRT-RTX does not serve {what}: {NOT_FOR_RTX[capability]}"
        return Finding("gpu", "no", note, _not_for_rtx(capability))
    built = plan.capabilities
    if built is None:
        note = f"for which GPUs it was built is not known; {what} may be one"
        return Finding("gpu", "unknown", note, f"build it again with --target {capability}")
    if capability in built:
        return Finding("gpu", "yes", f"built for {what}" + _tuned(plan))
    if plan.flavour == "tensorrt":
        return _other_gpu(plan, capability, what)
    note = f"built for {describe(built)}, not for {what}"
    if plan.more and capability > max(built, default=capability):
        note = f"built for {describe(built)} and newer ones without a name here; {what} may be one"
        return Finding("gpu", "unknown", note, f"build it again with --target {capability}")
    return Finding("gpu", "no", note, _target_hint(plan, capability))


def _not_for_rtx(capability: ComputeCapability) -> str:
    if NOT_FOR_RTX[capability].startswith("Jetson"):
        return "build on the Jetson itself with --flavour tensorrt, which JetPack brings"
    return "build with --flavour tensorrt on a machine that has that GPU"


def _target_hint(plan: PlanFacts, capability: ComputeCapability) -> str:
    if capability == _TURING and plan.floats:
        return (
            "SM 7.5 takes FP16 only (what is INT8 computes in FP16 there): make an FP16 model "
            "(strata quantize --precision fp16) and build it with --target sm75"
        )
    return f"build it again with --target {capability}"


def _tuned(plan: PlanFacts) -> str:
    if plan.flavour == "rtx":
        return ""
    if plan.options.get("hardware_compatibility") == "same_compute_capability":
        return " and for every other model of that capability"
    return "; another model of the same capability runs it too, perhaps slower"


def _other_gpu(plan: PlanFacts, capability: ComputeCapability, what: str) -> Finding:
    """A plan of the flavour tensorrt is for one GPU, unless it was built for more."""
    built = describe(plan.capabilities or ())
    level = plan.options.get("hardware_compatibility")
    if level == "ampere_plus" and capability.major >= 8:
        if NOT_FOR_RTX.get(capability, "").startswith("Jetson"):
            note = f"built for {built} and compatible GPUs; Jetson is none that this covers"
            return Finding("gpu", "no", note, "build it on the Jetson itself")
        return Finding("gpu", "yes", f"built for {built}, compatible from Ampere on; {what} is one")
    note = f"built on {built}, not on {what}"
    return Finding("gpu", "no", note, "build it with --flavour tensorrt on a machine with that GPU")


def memory_finding(plan: PlanFacts, host: DescribedHost) -> tuple[Finding, ...]:
    """Is it larger than the memory of every GPU there?"""
    sizes = [gpu.memory_bytes for gpu in host.gpus or () if gpu.memory_bytes]
    if not sizes or plan.bytes <= max(sizes):
        return ()
    note = f"its weights ({plan.bytes / 1e6:.0f} MB) exceed the GPU's memory"
    return (Finding("memory", "no", note, "run it on a larger GPU, or build a smaller network"),)
