"""What a gate allows: a tolerance for each metric, and how sure it must be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from core.errors import InputError

__all__ = ["NAMES", "Rules"]

# rule → the unit that a person gives it in
NAMES: dict[str, str] = {
    "top1": "points",
    "agreement": "points",
    "sqnr": "dB",
    "layers": "dB",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """The tolerances; None where a metric is not held to anything.

    Attributes:
        confidence: How sure a verdict is. "Regressed" is said in error in at most 1 −
            confidence of all runs of the whole gate; "held" of each row, likewise.
        top1: Points of top-1 (hundredths of the images) that may be lost.
        agreement: Points of the same answers as the reference that may be lost.
        sqnr: Fall of the median SQNR of the logits, in dB.
        layers: Fall of a layer's own SQNR, in dB. Its images are the same, so that this is
            no statistic: an unchanged layer does not move.
    """

    confidence: float = 0.95
    top1: float | None = 0.25
    agreement: float | None = 0.5
    sqnr: float | None = 1.0
    layers: float | None = 0.3

    def __post_init__(self) -> None:
        """Refuse what nothing can be judged by."""
        if not 0.5 <= self.confidence < 1:
            raise InputError(
                f"confidence {self.confidence} is not from 0.5 to below 1", hint="0.95 is usual"
            )
        for name in NAMES:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise InputError(
                    f"tolerance of {name}: {value} is not 0 or more",
                    hint=f"give it in {NAMES[name]}, e.g. {name}=0.5",
                )

    @property
    def alpha(self) -> float:
        """How often a verdict may be wrong."""
        return 1 - self.confidence

    def with_tolerances(self, texts: tuple[str, ...]) -> Rules:
        """Return the rules with tolerances as a user gives them: ``top1=0.5``, ``sqnr=off``.

        Raises:
            InputError: No such rule, or not a number.
        """
        said: dict[str, Any] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if name not in NAMES or not equals:
                raise InputError(
                    f"--tolerance {text!r}: not NAME=VALUE with one of {', '.join(NAMES)}",
                    hint="e.g. --tolerance top1=0.5 (points), --tolerance sqnr=off",
                )
            try:
                said[name] = None if value == "off" else float(value)
            except ValueError as err:
                raise InputError(
                    f"--tolerance {text!r}: {value!r} is not a number",
                    hint=f"give {NAMES[name]}, or off",
                ) from err
        return replace(self, **said)

    def to_json(self) -> dict[str, float | None]:
        """Return the rules as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Rules:
        """Read what :meth:`to_json` wrote; KeyError, TypeError or ValueError otherwise."""
        said = {name: None if value[name] is None else float(value[name]) for name in NAMES}
        if unknown := set(value) - set(NAMES) - {"confidence"}:
            raise ValueError(f"unknown rules: {', '.join(sorted(unknown))}")
        return cls(confidence=float(value["confidence"]), **said)
