"""The codes of a plan's weights, each worked out once for all that asks."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from core.errors import GraphError
from core.int8 import Int8Array, dequantize
from exporter.passes.base import Array
from exporter.quantization.plan import QuantizationPlan, Weight
from exporter.quantization.rounding.scales import weight_codes

__all__ = ["WeightCodes"]

_Scales = npt.NDArray[np.float32]


class WeightCodes:
    """What the weights of one graph become.

    Args:
        plan: Which weights, and along which axis.
        half: Take scales that float16 holds too.
        given: Weight → its codes where they are not the nearest ones
            (:func:`exporter.quantization.rounding.compensate.compensated_codes`).
    """

    def __init__(
        self,
        plan: QuantizationPlan,
        *,
        half: bool = False,
        given: Mapping[str, Int8Array] | None = None,
    ) -> None:
        self._weights = {weight.tensor: weight for weight in plan.weights}
        self._half = half
        self._given = given or {}
        self._known: dict[str, tuple[_Scales, Int8Array]] = {}

    def of(self, weight: Weight, array: Array) -> tuple[_Scales, Int8Array]:
        """Return a weight's scales, (C,), and codes, of its shape.

        Args:
            weight: The plan's entry.
            array: Its values in the graph, the same at every call.

        Raises:
            GraphError: As :func:`~exporter.quantization.rounding.scales.weight_codes` says, or
                codes of another shape are given.
        """
        if weight.tensor not in self._known:
            scale, codes = weight_codes(weight, array, half=self._half)
            given = self._given.get(weight.tensor, codes)
            if given.shape != codes.shape:
                raise GraphError(
                    f"weight {weight.tensor!r} is {codes.shape}, its codes are {given.shape}",
                    hint="make the codes of this very graph",
                )
            self._known[weight.tensor] = scale, given
        return self._known[weight.tensor]

    def as_computed(self, value: ir.Value) -> Array:
        """Return the values that an initializer will be computed with, quantized or not."""
        if value.const_value is None:
            raise ValueError(f"{value.name!r} is no constant")
        array = value.const_value.numpy()
        weight = self._weights.get(str(value.name))
        if weight is None:
            return array
        scale, codes = self.of(weight, array)
        return dequantize(codes, scale, weight.axis)
