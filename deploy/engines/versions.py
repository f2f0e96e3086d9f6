"""Versions of TensorRT compared: whether a plan of one loads in another.

Source: TensorRT-RTX documentation 1.7, "Engine Compatibility"; TensorRT documentation
11.4.1, "Support Matrix" (engine portability).
"""

from __future__ import annotations

from typing import Literal

__all__ = ["Loads", "loads", "numbers"]

Loads = Literal["yes", "no", "unknown"]
# The newest release whose rules are known here. A later one may keep them, or be kinder.
_NEWEST = {"rtx": (1, 7), "tensorrt": (11, 4)}
_RELEASE = 3  # parts that make a release: major, minor, patch; then comes the build
# Across major versions, where the plan was built to be version-compatible: plan → runtime.
_ACROSS = {8: 10, 10: 11}


def numbers(version: str) -> tuple[int, ...]:
    """Return ``(1, 7, 1, 116)`` for ``1.7.1.116``; what follows a part that is no number is left.

    >>> numbers("10.9.0.34"), numbers("unknown"), numbers("11.4rc1")
    ((10, 9, 0, 34), (), (11,))
    """
    found: list[int] = []
    for part in version.split("."):
        if not (part.isascii() and part.isdecimal() and len(part) < 10):
            break
        found.append(int(part))
    return tuple(found)


def loads(flavour: str, plan: str, runtime: str, *, compatible: bool = False) -> Loads:
    """Tell whether a plan of one version loads in a runtime of another.

    Args:
        flavour: ``"rtx"`` or ``"tensorrt"``.
        plan: Version that built it.
        runtime: Version that is to load it; may be given in part (``1.7``).
        compatible: Whether the plan was built to be version-compatible.
    """
    built, here = numbers(plan), numbers(runtime)
    length = min(len(built), len(here))
    if length == 0:
        return "unknown"
    if built[:length] == here[:length]:
        # The build number is told by some packages only; without it the release decides.
        return "yes" if length >= _RELEASE else "unknown"
    if built[:_RELEASE] == here[:_RELEASE]:
        return "unknown"  # the same release, built twice
    if here < built:
        return "no"
    if here[:2] > _NEWEST.get(flavour, (0, 0)):
        return "unknown"
    if flavour == "tensorrt" and compatible:
        return "yes" if here[0] == built[0] or _ACROSS.get(built[0]) == here[0] else "no"
    return "no"
