"""Factors of channels as small whole numbers: f = 2^(k / 8), as files hold them.

Tensors that share their factors (all of a residual stream) are one entry::

    [{"tensors": ["layer1.0.add", "layer1.0.relu", …], "eighths": "3 0 -2 …"}, …]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["STEPS", "Steps", "factors_of", "steps_from_json", "steps_to_json"]

STEPS = 8  # of an octave

_MOST = 100 * STEPS  # 2¹⁰⁰: beyond, a float32 could overflow

Steps = npt.NDArray[np.int64]


def factors_of(steps: Steps) -> npt.NDArray[np.float64]:
    """Return f = 2^(k / ``STEPS``), the same shape, each exactly a float32."""
    return np.exp2(steps / STEPS).astype(np.float32).astype(np.float64)


def steps_to_json(steps: Mapping[str, Steps]) -> list[dict[str, Any]]:
    """Return the entries that the module describes, in the order of the first tensors."""
    groups: dict[bytes, list[str]] = {}
    for name, own in steps.items():
        groups.setdefault(own.astype("<i8").tobytes(), []).append(name)
    return [
        {"tensors": names, "eighths": " ".join(map(str, steps[names[0]].tolist()))}
        for names in groups.values()
    ]


def steps_from_json(value: Any) -> dict[str, Steps]:
    """Read such entries back.

    Raises:
        ValueError, TypeError, KeyError: They are not such entries.
    """
    result: dict[str, Steps] = {}
    for entry in value:
        steps = np.array([int(text) for text in entry["eighths"].split()], np.int64)
        if not len(steps) or np.abs(steps).max() > _MOST:
            raise ValueError(f"eighths {entry['eighths'][:40]!r} are no factors")
        if not isinstance(entry["tensors"], list):
            raise ValueError(f"tensors {entry['tensors']!r} are no list")
        result |= {str(name): steps for name in entry["tensors"]}
    return result
