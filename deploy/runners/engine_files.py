"""What an engine needs besides its plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy.engines.plan_weights import OnnxWeights

__all__ = ["EngineFiles"]


@dataclass(frozen=True, slots=True)
class EngineFiles:
    """What an engine needs besides its plan.

    Attributes:
        kernels: Where what TensorRT-RTX compiles here is kept; None for nowhere.
        weights: The ONNX file it was built from, for a plan without weights.
    """

    kernels: Path | None = None
    weights: OnnxWeights | None = None
