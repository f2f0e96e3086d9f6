"""Find the compiled graphs that a TensorRT-RTX plan holds as plain text.

A plan of TensorRT-RTX 1.4 to 1.7 has one such text for each optimization profile, in their
order (numbers are little-endian)::

    4 bytes   "NLYM", for Myelin, the compiler
    4 bytes   its version, u32: 2017095 in plans of 1.4.0, 2018086 of 1.5.0, 2020048 of
              1.6.1, 2022049 (2.22.49) of 1.7.1
    8 bytes   length of the text, u64
    text      header { version = 5 … }  descriptors { … }  main { … }  shape_main { … }

The smaller texts behind it, of version 4, are the insides of kernels that are compiled on
the machine that loads the plan; they are left alone.

None of this is documented, so it is read only in plans of releases it was seen in; for any
other the answer is "unknown".
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError
from deploy.engines.plan_header import PlanHeader

__all__ = ["CompiledText", "compiled_text"]

_KNOWN_RELEASES = frozenset({(1, 4), (1, 5), (1, 6), (1, 7)})
_MAGIC = b"NLYM"
_MYELIN_MAJOR = 2
_GRAPH_START = re.compile(rb"header \{\s+version = 5\s")
_LONGEST_TEXT = 64 << 20  # a ResNet-152 has 0.7 MB; more is no text of a compiler


@dataclass(frozen=True, slots=True)
class CompiledText:
    """The texts of a plan.

    Attributes:
        graphs: One for each optimization profile, in their order.
        unknown: Why there are none; empty when there are.
    """

    graphs: tuple[str, ...] = ()
    unknown: str = ""


def compiled_text(plan: Path, header: PlanHeader) -> CompiledText:
    """Return the compiled graphs in a plan.

    Args:
        plan: The file; any bytes will do.
        header: What its first bytes say.

    Raises:
        InputError: The file cannot be read.
    """
    if header.flavour != "rtx":
        what = "of the flavour tensorrt" if header.flavour else "not a TensorRT plan"
        return CompiledText(unknown=f"{what}: it holds no compiled graph as text")
    if header.version is None:
        return CompiledText(unknown="its header has a layout that was not seen before")
    release = tuple(map(int, header.version.split(".")[:2]))
    if release not in _KNOWN_RELEASES:
        known = ", ".join(f"{major}.{minor}" for major, minor in sorted(_KNOWN_RELEASES))
        return CompiledText(
            unknown=f"the plans of TensorRT-RTX {header.version} were not studied (known: {known})"
        )
    try:
        with plan.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            graphs = tuple(_graphs(data))
    except (OSError, ValueError) as err:  # ValueError: an empty file cannot be mapped
        raise InputError(f"{plan}: cannot be read ({err})", hint="name an engine") from err
    if not graphs:
        return CompiledText(unknown="no compiled graph was found in it; it may be truncated")
    return CompiledText(graphs)


def _graphs(data: mmap.mmap) -> Iterator[str]:
    at = data.find(_MAGIC)
    while at >= 0:
        start = at + len(_MAGIC) + 12
        length = _length_at(data, at)
        if length:
            yield data[start : start + length].decode("utf-8", errors="replace")
        at = data.find(_MAGIC, start + length if length else at + len(_MAGIC))


def _length_at(data: mmap.mmap, at: int) -> int:
    """Return the length of the graph's text behind ``at``; 0 when there is none."""
    start = at + len(_MAGIC) + 12
    if start > len(data):
        return 0
    version, length = struct.unpack_from("<IQ", data, at + len(_MAGIC))
    known = version // 1_000_000 == _MYELIN_MAJOR
    fits = length <= min(_LONGEST_TEXT, len(data) - start)
    begins = _GRAPH_START.match(data[start : start + 40])
    return int(length) if known and fits and begins else 0
