"""What will be quantized, as a value: it can be printed, edited and given back.

A plan names tensors and nodes of one float graph; :mod:`exporter.quantization.placement`
decides it, :mod:`exporter.quantization.qdq` applies it. A node goes by its name, or by its first
output where it has no name of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.artifacts import read_json
from core.errors import InputError

__all__ = ["Activation", "QuantizationPlan", "Selection", "Weight"]

_KIND = "strata quantization plan"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Selection:
    """Which layers may be quantized.

    Attributes:
        include: Only convolutions and matrix products that match one of these; all if empty.
        exclude: Nothing that matches one of these.

    A pattern is a name or glob of a node or of its output, or an operator (``Gemm``).
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Activation:
    """A tensor that gets one Q/DQ pair.

    Attributes:
        tensor: Its name.
        reason: The rule that asks for it.
        readers: The nodes that read the dequantized tensor; all others, and the graph's
            outputs, keep reading the float one.
        scale: The tensor whose scale it takes: its own name, or that of its group.
        passed: Where all that becomes of it is an addition and a ReLU, what that ReLU makes: of
            no account are the values of which it passes nothing on. Empty elsewhere.
    """

    tensor: str
    reason: str
    readers: tuple[str, ...]
    scale: str
    passed: str = ""


@dataclass(frozen=True, slots=True)
class Weight:
    """An initializer that becomes INT8, with one scale for each index along ``axis``.

    Attributes:
        tensor: Name of the float initializer.
        axis: Its output-channel axis.
        readers: The nodes that read it dequantized.
    """

    tensor: str
    axis: int
    readers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class QuantizationPlan:
    """All decisions about one graph, in the order of the graph.

    Attributes:
        activations: Tensors that get a pair.
        weights: Initializers that become INT8.
        left: Node → why it stays in float.
    """

    activations: tuple[Activation, ...]
    weights: tuple[Weight, ...]
    left: Mapping[str, str]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Scale → the tensors that share it."""
        groups: dict[str, tuple[str, ...]] = {}
        for activation in self.activations:
            groups[activation.scale] = (*groups.get(activation.scale, ()), activation.tensor)
        return groups

    @property
    def passed(self) -> dict[str, str]:
        """Tensor → the ReLU's output that says which of its values count."""
        return {a.tensor: a.passed for a in self.activations if a.passed}

    def to_json(self) -> dict[str, Any]:
        """Return the plan as a JSON object made for editing."""
        return {"kind": _KIND, "version": _VERSION, **asdict(self)}

    def __str__(self) -> str:
        """Return the plan as JSON text."""
        return json.dumps(self.to_json(), indent=2, ensure_ascii=False)

    @classmethod
    def read(cls, path: Path) -> QuantizationPlan:
        """Read a plan that was printed, and perhaps edited.

        Raises:
            InputError: Missing, not a plan, or an entry that is not as :meth:`to_json` writes it.
        """
        value = read_json(path, what="quantization plan")
        if value.get("kind") != _KIND or value.get("version") != _VERSION:
            raise InputError(
                f"{path}: not a quantization plan of version {_VERSION}",
                hint="print one with: strata quantize MODEL --print-plan",
            )
        try:
            plan = cls(
                tuple(_activation(entry) for entry in value["activations"]),
                tuple(_weight(entry) for entry in value["weights"]),
                {str(node): str(why) for node, why in value["left"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise InputError(
                f"{path}: an entry is not as a printed plan has it ({type(err).__name__}: {err})",
                hint="print the plan again and compare",
            ) from err
        plan._require_consistent(path)
        return plan

    def _require_consistent(self, path: Path) -> None:
        """Refuse two entries for one tensor, and a scale that no tensor has."""
        for kind, names in (
            ("activation", [a.tensor for a in self.activations]),
            ("weight", [w.tensor for w in self.weights]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise InputError(
                    f"{path}: {kind} {min(twice)!r} is there twice", hint="keep one of the entries"
                )
        known = {activation.tensor for activation in self.activations}
        for activation in self.activations:
            if activation.scale not in known:
                raise InputError(
                    f"{path}: activation {activation.tensor!r} takes the scale of "
                    f"{activation.scale!r}, which is not quantized",
                    hint="name its own tensor, or another activation of the plan",
                )


def _activation(entry: Any) -> Activation:
    return Activation(
        str(entry["tensor"]),
        str(entry["reason"]),
        _names(entry["readers"]),
        str(entry["scale"]),
        str(entry.get("passed", "")),
    )


def _weight(entry: Any) -> Weight:
    return Weight(str(entry["tensor"]), int(entry["axis"]), _names(entry["readers"]))


def _names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"readers {value!r} is not a list of names")
    return tuple(value)
