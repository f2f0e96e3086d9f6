"""Statistics of parts of the images, added up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.errors import InputError
from exporter.calibration.statistics import Statistics

__all__ = ["merge", "total"]


def merge(parts: Sequence[Statistics], names: Sequence[str]) -> Statistics:
    """Add up the shards of one calibration, in any order.

    Args:
        parts: At least one.
        names: What each is called, for the error text.

    Raises:
        InputError: They are not of one model, one preprocessing and the same tensors, or
            two of them hold the same image, which would count twice.
    """
    first = parts[0]
    for part, name in zip(parts[1:], names[1:], strict=True):
        for what, one, other in (
            ("model", first.model, part.model),
            ("preprocessing", first.preprocess, part.preprocess),
            ("origin", first.origin, part.origin),
            ("tensors", list(first.tensors), list(part.tensors)),
            ("counting", first.passed, part.passed),
        ):
            if one != other:
                raise InputError(
                    f"{names[0]} and {name}: statistics of different {what}",
                    hint="merge shards of one calibration: same model, data options and layers",
                )
    _require_disjoint(parts, names)
    return total(parts)


def total(parts: Sequence[Statistics]) -> Statistics:
    """Add up disjoint statistics of one calibration, at least one, in any order."""
    first = parts[0]
    tensors, channels = dict(first.tensors), dict(first.channels)
    for part in parts[1:]:
        for name, histogram in part.tensors.items():
            tensors[name] = tensors[name] + histogram
        # An old file knows of no channels: then the sum does not either.
        channels = {name: channels[name] + c for name, c in part.channels.items() if channels}
    images = sorted(image for part in parts for image in part.images)
    return replace(first, images=tuple(images), tensors=tensors, channels=channels)


def _require_disjoint(parts: Sequence[Statistics], names: Sequence[str]) -> None:
    owners: dict[str, str] = {}
    for part, name in zip(parts, names, strict=True):
        digests = {image.digest for image in part.images}
        shared = sorted(digests & owners.keys())
        if shared:
            raise InputError(
                f"{owners[shared[0]]} and {name} share {len(shared)} images "
                f"(sha256 {shared[0][:12]}…), which would count twice",
                hint="merge each shard once; shards are strata calibrate --shard 1/4 … 4/4",
            )
        owners |= dict.fromkeys(digests, name)
