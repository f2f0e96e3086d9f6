"""The default: what gives the best outputs on images that were not calibrated with.

No way of choosing is best for every network: ``max`` wastes codes on outliers, ``percentile``
and ``mse`` clip what a later layer may need; channels made alike serve activations and cost
weights. So recipes are tried, one decision after the other, each from the best so far:
equalization, then method, then whether full-range constants and corrected biases help. The
winner is the one that
changes the network least, by the median over images of the SQNR of its outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import onnx

from core.progress import Progress, silent
from exporter.calibration.channels import ChannelCounts
from exporter.quantization.plan import QuantizationPlan
from exporter.quantization.recipe import Recipe
from exporter.quantization.table import CalibrationTable
from exporter.quantize import quantize_graph
from exporter.session import Tensors, open_session

__all__ = ["METHODS", "STRENGTHS", "Choice", "Scope", "choose_best", "output_sqnr_db"]

METHODS = ("mse", "max", "percentile:99.99")
STRENGTHS = (0.0, 0.5, 0.75)

MakeTable = Callable[[Recipe], CalibrationTable]


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be tried; the first of each is where the search starts.

    Attributes:
        strengths: Of equalization.
        methods: Of choosing amax.
        reaches: Of full-range constants, of :data:`exporter.quantization.recipe.REACHES`.
        biases: Whether to correct biases.
    """

    strengths: tuple[float, ...] = STRENGTHS
    methods: tuple[str, ...] = METHODS
    reaches: tuple[str, ...] = ("on", "off")
    biases: tuple[bool, ...] = (False, True)

    @property
    def most(self) -> int:
        """How many recipes are tried, at most."""
        choices = (self.strengths, self.methods, self.reaches, self.biases)
        return sum(map(len, choices)) - len(choices) + 1


@dataclass(frozen=True, slots=True)
class Choice:
    """What won, and against what.

    Attributes:
        recipe: The winner.
        table: Its table, whose ``method`` says so.
        sqnr_db: Recipe in words → median SQNR of the outputs over the held-out images, in dB.
    """

    recipe: Recipe
    table: CalibrationTable
    sqnr_db: Mapping[str, float]


@dataclass(slots=True, eq=False)
class _Trials:
    """What was tried so far."""

    model: onnx.ModelProto
    plan: QuantizationPlan
    make_table: MakeTable
    feeds: Sequence[Tensors]
    reference: list[npt.NDArray[np.float32]]
    channels: Mapping[str, ChannelCounts]
    tables: dict[Recipe, CalibrationTable] = field(default_factory=dict)
    found: dict[Recipe, float] = field(default_factory=dict)

    def attempt(self, recipe: Recipe) -> None:
        """Try a recipe, unless one gave the same table."""
        table = self.make_table(recipe)
        alike = [
            known
            for known, other in self.tables.items()
            if known.biases == recipe.biases and _same(table, other)
        ]
        self.tables[recipe] = table
        if alike:
            self.found[recipe] = self.found[alike[0]]
            return
        channels = self.channels if recipe.biases else None
        int8 = quantize_graph(self.model, self.plan, table, channels=channels).model
        self.found[recipe] = output_sqnr_db(self.reference, _outputs(int8, self.feeds))

    def best(self) -> Recipe:
        """Return the first of the best."""
        return max(self.found, key=lambda recipe: self.found[recipe])


def choose_best(
    model: onnx.ModelProto,
    plan: QuantizationPlan,
    make_table: MakeTable,
    feeds: Sequence[Tensors],
    scope: Scope | None = None,
    *,
    channels: Mapping[str, ChannelCounts] | None = None,
    progress: Progress = silent,
) -> Choice:
    """Try recipes on held-out images and return the best.

    Args:
        model: The float32 graph.
        plan: What is quantized.
        make_table: Gives the table of a recipe.
        feeds: Held-out images, preprocessed, batch by batch.
        scope: What may be tried.
        channels: What the channels of the tensors held; None, and no bias is corrected.
        progress: Told of each trial.

    Raises:
        GraphError: The plan does not fit the graph.
    """
    scope = scope or Scope()
    if not channels:
        scope = replace(scope, biases=(False,))
    trials = _Trials(model, plan, make_table, feeds, _outputs(model, feeds), channels or {})
    start = Recipe(scope.methods[0], scope.reaches[0], scope.strengths[0], scope.biases[0])

    def attempt_all(recipes: Iterable[Recipe]) -> None:
        for recipe in recipes:
            if recipe not in trials.found:
                progress(len(trials.found), scope.most, str(recipe))
                trials.attempt(recipe)

    attempt_all([start])
    attempt_all([replace(start, strength=strength) for strength in scope.strengths])
    attempt_all([replace(trials.best(), method=method) for method in scope.methods])
    attempt_all([replace(trials.best(), reach=reach) for reach in scope.reaches])
    attempt_all([replace(trials.best(), biases=biases) for biases in scope.biases])
    best = trials.best()
    table = replace(trials.tables[best], method=f"auto: {best}")
    return Choice(best, table, {str(recipe): db for recipe, db in trials.found.items()})


def _same(one: CalibrationTable, other: CalibrationTable) -> bool:
    """Tell whether two tables give the same graph."""
    if one.equalized.keys() != other.equalized.keys():
        return False
    steps = all(
        np.array_equal(one.equalized[name], other.equalized[name]) for name in one.equalized
    )
    values = [
        [(name, choice.amax, choice.shift) for name, choice in table.tensors.items()]
        for table in (one, other)
    ]
    return steps and values[0] == values[1]


def output_sqnr_db(
    reference: Sequence[npt.NDArray[np.float32]], candidate: Sequence[npt.NDArray[np.float32]]
) -> float:
    """Return the median over images of the SQNR of all outputs together, in dB.

    Args:
        reference: Outputs, N×… each.
        candidate: The same tensors of the other network.
    """
    signal = sum(_per_image(array) for array in reference)
    noise = sum(_per_image(a - b) for a, b in zip(reference, candidate, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.median(10.0 * np.log10(signal / noise)))


def _per_image(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    flat = array.reshape(len(array), -1).astype(np.float64)
    result: npt.NDArray[np.float64] = np.einsum("ij,ij->i", flat, flat)
    return result


def _outputs(model: onnx.ModelProto, feeds: Sequence[Tensors]) -> list[npt.NDArray[np.float32]]:
    """Return every output over all feeds, joined."""
    session = open_session(model)
    parts = [session(feed) for feed in feeds]
    return [np.concatenate([part[name] for part in parts]) for name in session.outputs]
