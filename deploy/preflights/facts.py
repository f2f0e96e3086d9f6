"""What a preflight looks at, and what it says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from deploy.engines.manifest import Manifest
from deploy.engines.plan_header import PlanHeader
from deploy.engines.target import ComputeCapability

__all__ = ["FLAVOUR_NAMES", "Finding", "PlanFacts", "State"]

State = Literal["yes", "no", "unknown", "not run", "not said"]
FLAVOUR_NAMES: Mapping[str, str] = {"rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason for or against.

    Attributes:
        check: What was looked at.
        state: ``not said``: a described machine's description leaves it open; ``not run``:
            there is no GPU to tell; ``unknown``: nobody here knows.
        hint: The way out, where one is needed.
    """

    check: str
    state: State
    note: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What header and manifest say of a plan; the header is believed first.

    Attributes:
        capabilities: GPUs it was built for; None when nothing tells.
        more: Whether it was also built for GPUs that have no name here.
        floats: Precisions, of those asked for, other than FP16.
    """

    flavour: str
    version: str
    bytes: int
    platform: str
    capabilities: tuple[ComputeCapability, ...] | None
    more: bool
    floats: tuple[str, ...]
    options: Mapping[str, bool | int | str | None]

    @classmethod
    def of(cls, header: PlanHeader, manifest: Manifest | None, size: int) -> PlanFacts:
        """Bring together what both say."""
        capabilities = header.capabilities
        kinds: set[str] = set()
        if manifest is not None:
            kinds = {kind for by in manifest.layers.values() for kind in by}
            named = [_capability(text) for text in manifest.targets]
            if capabilities is None and named and None not in named:
                capabilities = tuple(c for c in named if c is not None)
        return cls(
            flavour=header.flavour or (manifest.flavour if manifest else ""),
            version=header.version or (manifest.version if manifest else ""),
            bytes=size,
            platform=manifest.platform if manifest else "",
            capabilities=capabilities,
            more=bool(header.unnamed_bits),
            floats=tuple(sorted(kinds - {"float16"})),
            options=manifest.options if manifest else {},
        )

    @property
    def name(self) -> str:
        """``TensorRT-RTX 1.7.1.116``."""
        return f"{FLAVOUR_NAMES[self.flavour]} {self.version or 'of an unknown version'}"


def _capability(text: str) -> ComputeCapability | None:
    digits = text.removeprefix("sm")
    fits = digits.isascii() and digits.isdecimal() and 2 <= len(digits) <= 3
    return ComputeCapability.from_digits(digits) if fits else None
