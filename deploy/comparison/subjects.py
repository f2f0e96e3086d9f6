"""From what a user typed to a model of a comparison."""

from __future__ import annotations

from pathlib import Path

from core.errors import InputError
from deploy.comparison.onnx_side import onnx_side
from deploy.comparison.sides import Side

__all__ = ["open_side"]


def open_side(text: str) -> Side:
    """Open a model for comparison by what the user typed.

    Args:
        text: ``FILE.onnx``.

    Raises:
        InputError: Of no kind that can be compared, or unreadable.
    """
    if text.partition(":")[0] in ("torch", "trt-network"):
        raise InputError(f"{text}: not yet", hint="give FILE.onnx")
    return onnx_side(Path(text))
