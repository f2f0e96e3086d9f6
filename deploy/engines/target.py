"""What an engine is built for: GPUs by compute capability, and batch sizes.

A GPU is named as people name it (``RTX 3090``, ``rtx5090``, ``A10``, the name that
``nvidia-smi`` prints), as ``sm86``, or as ``8.6``.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from core.errors import InputError
from deploy.engines.build_options import BuildOptions

__all__ = [
    "NOT_FOR_RTX",
    "BuildTarget",
    "ComputeCapability",
    "OptimizationProfile",
    "capability_of",
    "describe",
    "parse_batch",
    "parse_size",
    "parse_targets",
]


@dataclass(frozen=True, slots=True, order=True)
class ComputeCapability:
    """CUDA compute capability of a GPU, e.g. 8.6; written ``sm86``."""

    major: int
    minor: int

    def __str__(self) -> str:
        """Return the form that our files and options use: ``sm86``."""
        return f"sm{self.major}{self.minor}"

    @property
    def dotted(self) -> str:
        """The form that NVIDIA's tables and Triton use: ``8.6``."""
        return f"{self.major}.{self.minor}"

    @classmethod
    def from_digits(cls, digits: str) -> ComputeCapability:
        """Read ``86`` or ``120``: the last digit is the minor number."""
        return cls(int(digits[:-1]), int(digits[-1]))


# GPUs that TensorRT-RTX does not serve, and what they are.
# Source: TensorRT-RTX support matrix, 1.0 to 1.7.
NOT_FOR_RTX: Mapping[ComputeCapability, str] = {
    ComputeCapability(7, 0): "Volta",
    ComputeCapability(7, 2): "Jetson Xavier",
    ComputeCapability(8, 7): "Jetson Orin",
    ComputeCapability(9, 0): "Hopper",
    ComputeCapability(10, 0): "data-centre Blackwell",
    ComputeCapability(10, 3): "data-centre Blackwell",
    ComputeCapability(11, 0): "Jetson Thor",
}
# Source: NVIDIA's "CUDA GPU Compute Capability" page. Names are lower-case, without
# spaces and without the words in _NOISE.
_GPUS: dict[str, str] = {
    "7.0": "v100 titanv",
    "7.2": "xavier agxxavier jetsonagxxavier jetsonxaviernx",
    "7.5": "t4 t400 t600 t1000 t1200 t2000 titanrtx gtx1630 gtx1650 gtx1650ti gtx1660 gtx1660ti "
    "rtx2050 rtx2060 rtx2070 rtx2080 rtx2080ti "
    "quadrortx3000 quadrortx4000 quadrortx5000 quadrortx6000 quadrortx8000 rtx8000",
    "8.0": "a100 a800 a30 a100x a30x",
    "8.6": "a10 a10g a10m a16 a2 a40 rtx3050 rtx3050ti rtx3060 rtx3060ti rtx3070 rtx3070ti rtx3080 "
    "rtx3080ti rtx3090 rtx3090ti rtxa1000 rtxa2000 rtxa3000 rtxa4000 rtxa4500 rtxa5000 "
    "rtxa5500 rtxa6000 a1000 a2000 a3000 a4000 a4500 a5000 a5500 a6000",
    "8.7": "orin agxorin orinnx orinnano jetsonorin jetsonagxorin jetsonorinnx jetsonorinnano",
    "8.9": "l4 l20 l40 l40g l40s l2 rtx4050 rtx4060 rtx4060ti rtx4070 rtx4070ti rtx4080 rtx4090 "
    "rtx4090d rtx2000ada rtx3000ada rtx3500ada rtx4000ada rtx4000sffada rtx4500ada rtx5000ada "
    "rtx5880ada rtx6000ada",
    "9.0": "h100 h200 h800 h20 gh200 h100nvl h200nvl",
    "10.0": "b100 b200 gb200",
    "10.3": "b300 gb300",
    "11.0": "thor agxthor jetsonthor jetsonagxthor jetsont5000 jetsont4000 t5000 t4000",
    "12.0": "rtx5050 rtx5060 rtx5060ti rtx5070 rtx5070ti rtx5080 rtx5090 rtx5090d rtxpro2000 "
    "rtxpro4000 rtxpro4500 rtxpro5000 rtxpro6000",
    "12.1": "gb10 dgxspark spark",
}
# Names that people use for more than one GPU.
_AMBIGUOUS = {
    "rtx3000": ("Quadro RTX 3000", "RTX 3000 Ada"),
    "rtx4000": ("Quadro RTX 4000", "RTX 4000 Ada", "RTX PRO 4000"),
    "rtx4500": ("RTX 4500 Ada", "RTX PRO 4500"),
    "rtx5000": ("Quadro RTX 5000", "RTX 5000 Ada", "RTX PRO 5000"),
    "rtx6000": ("Quadro RTX 6000", "RTX 6000 Ada", "RTX PRO 6000"),
    "rtx2000": ("RTX 2000 Ada", "RTX PRO 2000"),
}
_NOISE = re.compile(
    r"\b(nvidia|geforce|tesla|laptop|gpu|super|generation|blackwell|edition|workstation|server|"
    r"max-?q|design|with|pcie|sxm\d?|hbm\d\w?|(?:developer )?kit|\d+ ?gb)\b"
)


def _canonical(text: str) -> str:
    words = _NOISE.sub(" ", text.lower().replace("_", " "))
    return re.sub(r"[^a-z0-9]", "", words).removesuffix("super")


_BY_NAME = {
    name: ComputeCapability(*map(int, dotted.split(".")))
    for dotted, names in _GPUS.items()
    for name in names.split()
}


def capability_of(text: str) -> ComputeCapability:
    """Return the compute capability that ``text`` names.

    Args:
        text: ``sm86``, ``8.6``, or a GPU's name in any spelling (``NVIDIA GeForce RTX 3090``).

    Raises:
        InputError: Nothing that is known, or a name that several GPUs share.

    >>> str(capability_of("NVIDIA GeForce RTX 3090 Ti"))
    'sm86'
    """
    number = re.fullmatch(r"(?:sm|compute)?_?(\d{1,2})\.?(\d)", text.strip().lower())
    if number:
        return ComputeCapability(int(number[1]), int(number[2]))
    name = _canonical(text)
    if name in _AMBIGUOUS:
        choices = " or ".join(f"{gpu} ({capability_of(gpu)})" for gpu in _AMBIGUOUS[name])
        raise InputError(f"--target {text!r} names more than one GPU", hint=f"say which: {choices}")
    found = _BY_NAME.get(name) or _BY_NAME.get(f"rtx{name}")
    return found or _unknown(text, name)


def _unknown(text: str, name: str) -> NoReturn:
    near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.75)
    ask = "`nvidia-smi --query-gpu=name,compute_cap --format=csv` prints a GPU's number"
    raise InputError(
        f"--target {text!r} is no GPU that is known here",
        hint=f"did you mean {', '.join(near)}? {ask}" if near else f"write sm86 or 8.6; {ask}",
    )


def parse_targets(text: str) -> tuple[ComputeCapability, ...]:
    """Read a comma-separated list of GPUs; sorted, each once.

    Raises:
        InputError: An empty list, or a name that is not known.
    """
    names = [name for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"--target {text!r} names no GPU", hint="for example --target sm86,L4")
    return tuple(sorted({capability_of(name) for name in names}))


@dataclass(frozen=True, slots=True)
class OptimizationProfile:
    """Batch sizes that one engine serves; TensorRT tunes it for ``opt``."""

    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        """Refuse sizes that are not 1 ≤ min ≤ opt ≤ max."""
        if self.min < 1:
            raise InputError(f"--batch {self}: the smallest batch is 1", hint="for example 1,8,32")
        if not self.min <= self.opt <= self.max:
            wrong = "min > opt" if self.min > self.opt else "opt > max"
            raise InputError(
                f"--batch {self}: {wrong}; the order is min,opt,max",
                hint=f"--batch {','.join(map(str, sorted((self.min, self.opt, self.max))))}",
            )

    def __str__(self) -> str:
        """Return the form of the option: ``1,8,32``."""
        return f"{self.min},{self.opt},{self.max}"


def parse_batch(text: str) -> OptimizationProfile:
    """Read ``min,opt,max``, or one number for a fixed batch.

    Raises:
        InputError: Not one or three whole numbers, below 1, or out of order.
    """
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if len(sizes) not in {1, 3}:
        raise InputError(
            f"--batch {text!r} is not min,opt,max", hint="for example --batch 1,8,32, or --batch 8"
        )
    return OptimizationProfile(sizes[0], sizes[len(sizes) // 2], sizes[-1])


def parse_size(text: str) -> tuple[int, int]:
    """Read ``224`` or ``1024x2048``, height first.

    Raises:
        InputError: Something else.
    """
    found = re.fullmatch(r"([1-9]\d{0,4})(?:[x×]([1-9]\d{0,4}))?", text.strip().lower())
    if not found:
        raise InputError(f"--size {text!r} is not a size", hint="write 224, or 1024x2048")
    return int(found[1]), int(found[2] or found[1])


@dataclass(frozen=True, slots=True)
class BuildTarget:
    """Everything that is asked of a build besides the network.

    Attributes:
        profiles: Optimization profiles in TensorRT's order; empty for the default, which is
            1,8,32, or the network's own batch where that is fixed.
        size: (height, width) for a network that leaves them free.
        capabilities: GPUs to build for; empty for the flavour's own default.
        options: How it is built.
    """

    profiles: tuple[OptimizationProfile, ...] = ()
    size: tuple[int, int] | None = None
    capabilities: tuple[ComputeCapability, ...] = ()
    options: BuildOptions = field(default_factory=BuildOptions)


def describe(capabilities: Iterable[ComputeCapability]) -> str:
    """Return a list for people: ``sm80, sm86``; ``none`` when empty."""
    return ", ".join(map(str, capabilities)) or "none"
