"""What works on a machine, stage by stage, and how to get the rest.

Facts in, verdicts out: :func:`diagnose` is a table that tests can run over any machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from deploy.engines.flavour_kinds import FLAVOURS
from deploy.engines.target import NOT_FOR_RTX
from deploy.machines.machine import Machine

__all__ = ["Verdict", "diagnose", "trains_in_bfloat16"]

_EXPORT = "pip install 'strata[export]'"
_GPU = "needs an NVIDIA GPU with its driver"


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a stage works here.

    Attributes:
        stage: The command, or what is done with an engine.
        state: ``yes``; ``needs`` something that can be installed; ``no``, not on this machine.
        note: The way out, or how the stage runs here.
    """

    stage: str
    state: Literal["yes", "needs", "no"]
    note: str = ""


def diagnose(machine: Machine) -> tuple[Verdict, ...]:
    """Return a verdict for each stage, in the order of the pipeline."""
    numbers = "bfloat16" if trains_in_bfloat16(machine) else "float32, for want of fast bfloat16"
    return (
        _with(machine, "train", ("torch", "safetensors"), f"in {numbers}"),
        _with(machine, "export", ("torch", "onnx", "onnxscript", "safetensors", "onnxruntime")),
        _with(machine, "optimize", ("onnx", "onnx-ir")),
        _with(machine, "calibrate", ("onnx", "onnxruntime")),
        _with(machine, "quantize", ("onnx", "onnx-ir")),
        _with(machine, "compare, evaluate", ("onnx", "onnxruntime"), _int8_note(machine)),
        _rtx_build(machine),
        _tensorrt_build(machine),
        _run(machine),
        _run_bundle(machine),
    )


def trains_in_bfloat16(machine: Machine) -> bool:
    """Tell whether the processor computes in bfloat16; where it does not, it is 50× slower."""
    return "BF16" in machine.cpu.features


def _int8_note(machine: Machine) -> str:
    fast = {"VNNI", "AMX", "dot product", "I8MM"} & set(machine.cpu.features)
    return "" if fast else "INT8 models run no faster than float ones on this CPU (no VNNI)"


def _with(machine: Machine, stage: str, libraries: Iterable[str], note: str = "") -> Verdict:
    missing = [name for name in libraries if not machine.libraries.get(name)]
    if missing:
        return Verdict(stage, "needs", f"{', '.join(missing)}: {_EXPORT}")
    return Verdict(stage, "yes", note)


def _rtx_build(machine: Machine) -> Verdict:
    stage = "build --flavour rtx"
    if machine.jetson:
        return Verdict(stage, "no", "TensorRT-RTX is not for Jetson; use --flavour tensorrt")
    if machine.architecture.lower() not in {"x86_64", "amd64"}:
        return Verdict(stage, "no", f"TensorRT-RTX has no package for {machine.architecture}")
    if "rtx" not in machine.flavours:
        return Verdict(stage, "needs", FLAVOURS["rtx"].hint)
    return Verdict(stage, "yes", f"TensorRT-RTX {machine.flavours['rtx']}, for any RTX GPU")


def _tensorrt_build(machine: Machine) -> Verdict:
    stage = "build --flavour tensorrt"
    if not machine.gpus.devices:
        return Verdict(stage, "no", f"{_GPU}; here: {machine.gpus.problem}")
    if "tensorrt" not in machine.flavours:
        how = "the tensorrt that JetPack brings" if machine.jetson else FLAVOURS["tensorrt"].hint
        return Verdict(stage, "needs", how)
    gpu = machine.gpus.devices[0]
    return Verdict(stage, "yes", f"TensorRT {machine.flavours['tensorrt']}, for {gpu.name}")


def _run(machine: Machine) -> Verdict:
    stage = "run an engine"
    if not machine.gpus.devices:
        return Verdict(stage, "no", f"{_GPU}; here: {machine.gpus.problem}")
    gpu = machine.gpus.devices[0]
    served = {name for name in machine.flavours if name != "rtx"}
    if gpu.capability not in NOT_FOR_RTX and "rtx" in machine.flavours:
        served.add("rtx")
    if not served:
        name = "tensorrt" if gpu.capability in NOT_FOR_RTX else "rtx"
        return Verdict(stage, "needs", FLAVOURS[name].hint)
    return Verdict(stage, "yes", f"{' and '.join(sorted(served))} plans, on {gpu.name}")


def _run_bundle(machine: Machine) -> Verdict:
    stage = "run a bundle"
    if _run(machine).state == "yes":
        return Verdict(stage, "yes", f"on {machine.gpus.devices[0].name}")
    if machine.libraries.get("onnxruntime"):
        how = " (--on cpu)" if machine.gpus.devices else ""
        return Verdict(stage, "yes", f"on the CPU, by ONNX Runtime{how}")
    return Verdict(stage, "needs", "a GPU with TensorRT, or pip install onnxruntime")
