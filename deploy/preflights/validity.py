"""TensorRT-RTX's own check of a plan's header, where it and a driver are at hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import StrataError
from deploy.engines.flavour import Flavour, load_flavour
from deploy.engines.log import TensorrtLog
from deploy.preflights.facts import Finding

__all__ = ["validity", "validity_here"]

# Bit of the answer → what it means, and the way out.
# Source: NvInferRuntime.h of TensorRT-RTX 1.7, EngineInvalidityDiagnostics.
_REASONS: tuple[tuple[int, str, str], ...] = (
    (1, "another version of TensorRT-RTX built it", "build it again with the one that is here"),
    (2, "it was not built for this GPU", "build it again with --target"),
    (4, "the CUDA driver is too old", "install a newer driver"),
    (8, "the CUDA runtime is too old", "install TensorRT-RTX again, for the CUDA that is here"),
    (16, "the GPU has too little memory", "run it on a larger GPU, or free memory"),
    (32, "it is no engine, or a broken one", "copy it again, or build it again"),
    (64, "CUDA reported an error", "strata doctor says what this machine has"),
)


def validity_here(engine: Path | bytes) -> Iterator[Finding]:
    """Yield what the TensorRT-RTX of this machine says of a plan; nothing if it cannot start."""
    try:
        yield validity(load_flavour("rtx"), engine)
    except StrataError as err:
        yield Finding("tensorrt", "unknown", f"could not be asked: {err.problem}", err.hint)


def validity(flavour: Flavour, engine: Path | bytes) -> Finding:
    """Ask ``IRuntime.get_engine_validity``, which reads the header and loads nothing.

    Args:
        flavour: TensorRT-RTX.
        engine: The plan, or its bytes.
    """
    trt: Any = flavour.module
    with flavour.logging(TensorrtLog()):
        runtime = trt.Runtime(flavour.logger)
        size = int(getattr(runtime, "engine_header_size", 64))
        state, bits = runtime.get_engine_validity(_head(engine, size))
    name = str(getattr(state, "name", state))
    if name == "VALID":
        return Finding("tensorrt", "yes", f"TensorRT-RTX {flavour.version} calls it valid")
    if name == "SUBOPTIMAL":
        note = f"TensorRT-RTX {flavour.version} calls it valid, but not the best for this GPU"
        return Finding("tensorrt", "yes", note)
    reasons = [(what, how) for bit, what, how in _REASONS if int(bits) & bit]
    if not reasons:
        note = f"TensorRT-RTX {flavour.version} calls it invalid and says no reason"
        return Finding("tensorrt", "no", note, "strata doctor says what this machine has")
    note = "; ".join(what for what, _ in reasons)
    return Finding("tensorrt", "no", f"TensorRT-RTX says: {note}", reasons[0][1])


def _head(engine: Path | bytes, size: int) -> bytes:
    if isinstance(engine, bytes):
        return engine[:size]
    with engine.open("rb") as file:
        return file.read(size)
