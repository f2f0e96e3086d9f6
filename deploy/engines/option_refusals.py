"""Build options that a flavour, a GPU or a graph cannot have, refused before TensorRT is asked.

TensorRT-RTX takes some of them with a shrug and builds the same plan, and ends others by an
assertion of its compiler: a reader would not know that nothing came of what was asked.

Source: tried on tensorrt-rtx 1.7.1 without a driver (hardware compatibility: a warning and
the same plan; version compatibility: the lean runtime is missing; refit and stripped weights:
the compiler's check for CUDA fails); TensorRT documentation, "Engine Compatibility", "Refitting
an Engine", "Working with Quantized Types" (refit and INT8) and "Weight-Stripped Engines".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.errors import BuildError, MissingBackendError, StrataError
from deploy.engines.build_options import BuildOptions
from deploy.engines.target import NOT_FOR_RTX, ComputeCapability
from deploy.machines.host import Gpus

__all__ = ["refuse_int8_refit", "refuse_options", "refuse_unknown_options"]

_OF_TENSORRT = "or build with --flavour tensorrt on the GPU"
# Option → who has it in the bindings.
_HARDWARE = {
    "ampere_plus": "AMPERE_PLUS",
    "same_compute_capability": "SAME_COMPUTE_CAPABILITY",
}


def refuse_options(flavour: str, options: BuildOptions, gpus: Gpus) -> None:
    """Refuse options that a flavour does not have on this machine.

    Args:
        flavour: ``"rtx"`` or ``"tensorrt"``.
        options: What was asked for.
        gpus: The GPUs of this machine.

    Raises:
        BuildError: The flavour, or this GPU, has no such thing.
        MissingBackendError: It needs a GPU and its driver.
    """
    error = _rtx(options, gpus) if flavour == "rtx" else _tensorrt(options, gpus)
    if error is not None:
        raise error


def _rtx(options: BuildOptions, gpus: Gpus) -> StrataError | None:
    if options.timing_cache is not None:
        return BuildError(
            "--timing-cache: TensorRT-RTX times no kernels when it builds",
            hint="leave it out (what is compiled on the GPU is kept from run to run by itself), "
            f"{_OF_TENSORRT}",
        )
    if options.version_compatible:
        return BuildError(
            "--version-compatible: TensorRT-RTX has no lean runtime; a plan loads in its own "
            "release only",
            hint=f"leave it out and build again after an update (it takes seconds), {_OF_TENSORRT}",
        )
    if options.hardware is not None:
        return BuildError(
            "--hardware: TensorRT-RTX ignores it: its plans are for the GPUs that they name",
            hint=f"name them with --target sm86,sm89, {_OF_TENSORRT}",
        )
    if (options.strip_weights or options.refit) and not gpus.devices:
        asked = "--strip-weights" if options.strip_weights else "--refit"
        return MissingBackendError(
            f"{asked}: TensorRT-RTX builds such a plan where CUDA works only; here: {gpus.problem}",
            hint=f"leave {asked} out, or build on a machine with a GPU",
        )
    return None


def _tensorrt(options: BuildOptions, gpus: Gpus) -> StrataError | None:
    here = gpus.devices[0].capability if gpus.devices else None
    if options.hardware is None or here is None:
        return None
    if NOT_FOR_RTX.get(here, "").startswith("Jetson"):
        return BuildError(
            f"--hardware: a plan built on {NOT_FOR_RTX[here]} moves to no other GPU",
            hint="leave it out, and build on each kind of Jetson",
        )
    if options.hardware == "ampere_plus" and here < ComputeCapability(8, 0):
        return BuildError(
            f"--hardware ampere_plus: is built on Ampere (sm80) or newer; the GPU here is {here}",
            hint="build on such a GPU, or with --hardware same_compute_capability",
        )
    return None


def refuse_unknown_options(module: Any, version: str, options: BuildOptions) -> None:
    """Refuse options that the bindings at hand, an older TensorRT's, have no name for.

    Args:
        module: The bindings.
        version: Theirs, for the error text.
        options: What was asked for.

    Raises:
        BuildError: They lack it.
    """
    asked: list[tuple[str, str, str]] = []
    if options.strip_weights:
        asked.append(("--strip-weights", "BuilderFlag", "STRIP_PLAN"))
    if options.refit:
        asked.append(("--refit", "BuilderFlag", "REFIT"))
    if options.version_compatible:
        asked.append(("--version-compatible", "BuilderFlag", "VERSION_COMPATIBLE"))
    if options.hardware is not None:
        level = _HARDWARE[options.hardware]
        asked.append((f"--hardware {options.hardware}", "HardwareCompatibilityLevel", level))
    for option, kind, name in asked:
        if not hasattr(getattr(module, kind, None), name):
            raise BuildError(
                f"{option}: TensorRT {version} does not have it",
                hint="leave it out, or install a newer TensorRT",
            )


def refuse_int8_refit(
    options: BuildOptions, layers: Mapping[str, Mapping[str, Sequence[str]]], where: str
) -> None:
    """Refuse a refittable INT8 plan.

    Args:
        options: What was asked for.
        layers: Operator → precision → names of layers with weights.
        where: The ONNX file, for the error text.

    Raises:
        BuildError: There are INT8 layers, and other weights were to be taken.
    """
    names = [name for by in layers.values() for name in by.get("int8", ())]
    if options.refit and names:
        raise BuildError(
            f"{where}: --refit with INT8 layers ({names[0]}, {len(names)} in all): TensorRT then "
            "leaves out rewrites that join equal scales, and other weights need other scales",
            hint="build again for other weights, or --refit an FP16 or FP32 graph; "
            "--strip-weights is no such case: its weights come back as they were",
        )
