"""Read what a plan says of itself in its first bytes, with no TensorRT and no GPU.

A TensorRT-RTX plan begins with a header of 64 bytes (little-endian), the same in plans
that 1.4.0, 1.5.0, 1.6.1 and 1.7.1 built for each of their targets::

     0  "vtrt"
     8  layout of the header, u32: 2
    16  length of the whole plan in bytes, u64
    24  version: major, minor, patch, build, one byte each (01 07 01 74 is 1.7.1.116)
    28  "vtrt"
    32  GPUs it was built for, u32, one bit each (see _BITS)

It is not documented, so everything is guarded: another layout, or bytes that contradict
each other, give "unknown", never a guess.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from core.artifacts import regular
from core.errors import InputError
from deploy.engines.target import ComputeCapability

__all__ = ["HEADER_BYTES", "PlanHeader", "parse_header", "read_header"]

HEADER_BYTES = 64
_RTX_MAGIC = b"vtrt"
_TENSORRT_MAGIC = b"ftrt"  # plans of TensorRT 8 and newer; nothing more is known of them here
_LAYOUT = 2
# Release → how many capability bits could be seen one by one, by building for each target.
_NAMED_BITS: dict[tuple[int, int], int] = {(1, 4): 5, (1, 5): 6, (1, 6): 6, (1, 7): 6}
_BITS: tuple[ComputeCapability, ...] = (
    ComputeCapability(7, 5),
    ComputeCapability(8, 0),
    ComputeCapability(8, 6),
    ComputeCapability(8, 9),
    ComputeCapability(12, 0),
    ComputeCapability(12, 1),
)


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What the header says; None wherever it is not known how to read it.

    Attributes:
        flavour: ``"rtx"`` or ``"tensorrt"``.
        version: Of the TensorRT that wrote the plan, e.g. ``"1.7.1.116"``.
        plan_bytes: Length of the whole plan; a shorter file is truncated.
        capabilities: GPUs it was built for.
        unnamed_bits: Capability bits of the header that have no name here, as a mask. The
            default set has one, past the newest named target (0x40 in 1.7.1).
    """

    flavour: str | None = None
    version: str | None = None
    plan_bytes: int | None = None
    capabilities: tuple[ComputeCapability, ...] | None = None
    unnamed_bits: int = 0


def read_header(path: Path) -> PlanHeader:
    """Read the header of a plan.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        with regular(path).open("rb") as file:
            return parse_header(file.read(HEADER_BYTES))
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})", hint="name an engine; strata build makes it"
        ) from err


def parse_header(data: bytes) -> PlanHeader:
    """Interpret the first bytes of a plan; every field is None for bytes that are none."""
    if data.startswith(_TENSORRT_MAGIC):
        return PlanHeader(flavour="tensorrt")
    if len(data) < HEADER_BYTES or not data.startswith(_RTX_MAGIC):
        return PlanHeader()
    layout, plan_bytes, version, magic, mask = struct.unpack_from("<8xI4xQ4s4sI", data)
    if layout != _LAYOUT or magic != _RTX_MAGIC or version[0] == 0:
        return PlanHeader(flavour="rtx")
    named = _NAMED_BITS.get((version[0], version[1]))
    seen = _BITS[:named] if named else ()
    return PlanHeader(
        flavour="rtx",
        version=".".join(map(str, version)),
        plan_bytes=plan_bytes,
        capabilities=tuple(c for bit, c in enumerate(seen) if mask >> bit & 1) if named else None,
        unnamed_bits=mask & ~((1 << named) - 1) if named else 0,
    )
