"""One way to choose everything that an INT8 graph is made by, and the table it gives."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx

from core.errors import InputError
from exporter.quantization.activity import Activity
from exporter.quantization.channel_classes import ChannelClasses, find_channel_classes
from exporter.quantization.equalize import choose_steps
from exporter.quantization.placement import named_graph
from exporter.quantization.plan import QuantizationPlan
from exporter.quantization.table import CalibrationTable, Classes, choose_amaxes
from exporter.quantization.thresholds import Method
from exporter.quantize import movable_classes

__all__ = ["REACHES", "Recipe", "TableMaker"]

# What full-range constants may reach: nothing, what costs nothing, or padded convolutions too.
REACHES = ("off", "on", "all")
_IN_WORDS = {"off": "", "on": ", full range", "all": ", full range everywhere"}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to choose.

    Attributes:
        method: One of :class:`~exporter.quantization.thresholds.Method`, as text.
        reach: One of ``REACHES``.
        strength: Of the equalization of channels, 0 (none) to 1.
        biases: Whether biases take up the mean of what rounding adds.
        balance: Whether tensors that share factors reach as far as leaves least noise.
        compensate: Whether the weights of a layer are rounded together
            (:mod:`exporter.quantization.rounding.nearest_plane`).
    """

    method: str = "mse"
    reach: str = "off"
    strength: float = 0.0
    biases: bool = False
    balance: bool = False
    compensate: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no strength."""
        if not 0.0 <= self.strength <= 1.0:
            raise InputError(
                f"strength {self.strength} of equalization is not within 0 to 1",
                hint="0 is off; 0.5 and 0.75 are good ones",
            )

    def __str__(self) -> str:
        """Return it in words."""
        equalized = f", equalized {self.strength:g}" if self.strength else ""
        equalized += ", balanced" if self.strength and self.balance else ""
        corrected = ", biases corrected" if self.biases else ""
        together = ", weights compensated" if self.compensate else ""
        return f"{self.method}{_IN_WORDS[self.reach]}{equalized}{corrected}{together}"


class TableMaker:
    """Makes tables by recipes, and keeps what several of them need.

    Args:
        model: The float graph.
        plan: What is to be quantized.
        activity: Its statistics.
        half: The graph's scales will be float16.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        plan: QuantizationPlan,
        activity: Activity,
        *,
        half: bool = False,
    ) -> None:
        self._model, self._plan, self._half = model, plan, half
        self._activity = {(0.0, False): activity}
        self._movable: dict[str, Classes] = {"off": ()}
        self._channels: ChannelClasses | None = None

    @property
    def can_equalize(self) -> bool:
        """Whether the statistics tell channels apart."""
        return bool(self._activity[0.0, False].statistics.channels)

    def table(self, recipe: Recipe) -> CalibrationTable:
        """Return the table of a recipe.

        Raises:
            CalibrationError: No scale can be taken of a tensor.
            InputError: No such method; statistics without a tensor, or without its channels.
        """
        if recipe.reach not in self._movable:
            borders = recipe.reach == "all"
            self._movable[recipe.reach] = movable_classes(self._model, borders=borders)
        table = choose_amaxes(
            self._plan,
            self._seen(recipe.strength, balance=recipe.balance and recipe.strength > 0),
            Method.parse(recipe.method),
            self._movable[recipe.reach],
            half=self._half,
        )
        return replace(table, method=str(recipe))

    def _seen(self, strength: float, *, balance: bool) -> Activity:
        """Return the activity of the graph, equalized."""
        plain, key = self._activity[0.0, False], (strength, balance)
        if key not in self._activity:
            if not self.can_equalize:
                raise InputError(
                    f"{plain.where}: these statistics do not tell channels apart",
                    hint="collect them again with strata calibrate, or quantize with --equalize 0",
                )
            if self._channels is None:
                self._channels = find_channel_classes(named_graph(self._model).graph)
            planned = {activation.tensor for activation in self._plan.activations}
            seen = {n: c for n, c in plain.statistics.channels.items() if n in planned}
            steps = choose_steps(self._channels, seen, strength, balance=balance)
            self._activity[key] = plain.divided(steps)
        return self._activity[key]
