"""The default: what gives the best outputs on images that were not calibrated with.

No way of choosing is best for every network: ``max`` wastes codes on outliers, ``percentile``
and ``mse`` clip what a later layer may need; channels made alike serve activations and cost
weights. So recipes are tried, one decision after the other, each from the best so far:
equalization, the strongest one balanced as well, then the method, then whether it is better
without full-range constants or corrected biases, last with the weights of a layer rounded
together: as it is, and halfway to full equalization, since such weights can take more of what
the activations give them. The winner is the one that changes the network least, by the mean
over images of the SQNR of its outputs in dB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx

from core.int8 import Int8Array
from core.progress import Progress, silent
from exporter.calibration.counts.channels import ChannelCounts
from exporter.quantization.plan import QuantizationPlan
from exporter.quantization.recipe import Recipe
from exporter.quantization.table import CalibrationTable
from exporter.quantize import quantize_graph
from exporter.session import Tensors, open_session

__all__ = ["METHODS", "STRENGTHS", "Choice", "MakeCodes", "Scope", "choose_best", "output_sqnr_db"]

METHODS = ("mse", "max", "percentile:99.99")
STRENGTHS = (0.0, 0.5, 0.75)

_MOST_DB = 120.0
_AT_ONCE = 2  # trials: each holds a graph, and uses one CPU

Codes = Mapping[str, Int8Array]
MakeTable = Callable[[Recipe], CalibrationTable]


class MakeCodes(Protocol):
    """Rounds the weights of each layer together."""

    def __call__(self, table: CalibrationTable, *, biases: bool) -> Codes:
        """Return the codes of a table's graph, its biases to be corrected or not."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be tried; the first of each is where the search starts.

    Attributes:
        strengths: Of equalization, the strongest last.
        methods: Of choosing amax.
        reaches: Of full-range constants, of :data:`exporter.quantization.recipe.REACHES`.
        biases: Whether to correct biases.
        balances: Whether to let tensors that share factors reach as far as leaves least noise.
        compensates: Whether to round the weights of a layer together.
    """

    strengths: tuple[float, ...] = STRENGTHS
    methods: tuple[str, ...] = METHODS
    reaches: tuple[str, ...] = ("on", "off")
    biases: tuple[bool, ...] = (True, False)
    balances: tuple[bool, ...] = (False, True)
    compensates: tuple[bool, ...] = (False, True)

    @property
    def most(self) -> int:
        """How many recipes are tried, at most."""
        one = (self.strengths, self.balances, self.methods, self.reaches, self.biases)
        further = len(self.strengths) > 1 and True in self.compensates
        return sum(map(len, one)) - len(one) + len(self.compensates) + further


@dataclass(frozen=True, slots=True)
class Choice:
    """What won, and against what.

    Attributes:
        recipe: The winner.
        table: Its table, whose ``method`` says so.
        sqnr_db: Recipe in words → mean SQNR of the outputs over the held-out images, in dB.
        codes: Of weights that were rounded together.
    """

    recipe: Recipe
    table: CalibrationTable
    sqnr_db: Mapping[str, float]
    codes: Codes = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class _Trials:
    """What was tried so far."""

    model: onnx.ModelProto
    plan: QuantizationPlan
    make_table: MakeTable
    make_codes: MakeCodes | None
    feeds: Sequence[Tensors]
    reference: list[npt.NDArray[np.float32]]
    channels: Mapping[str, ChannelCounts]
    tables: dict[Recipe, CalibrationTable] = field(default_factory=dict)
    codes: dict[Recipe, Codes] = field(default_factory=dict)
    found: dict[Recipe, float] = field(default_factory=dict)

    def attempt(self, recipes: Iterable[Recipe], progress: Progress, most: int) -> None:
        """Try recipes, two at a time; where two give the same table, one of them."""
        fresh = [recipe for recipe in recipes if recipe not in self.found]
        originals: dict[Recipe, Recipe] = {}
        for recipe in fresh:
            table = self.make_table(recipe)
            alike = [
                known
                for known, other in self.tables.items()
                if (known.biases, known.compensate) == (recipe.biases, recipe.compensate)
                and _same(table, other)
            ]
            self.tables[recipe] = table
            originals[recipe] = alike[0] if alike else recipe
        tried = [recipe for recipe in fresh if originals[recipe] is recipe]
        # Weights are rounded by all CPUs, in memory of their own.
        at_once = 1 if any(recipe.compensate for recipe in tried) else _AT_ONCE
        with ThreadPoolExecutor(at_once, "strata-try") as pool:
            for recipe, decibels in zip(tried, pool.map(self._measure, tried), strict=True):
                self.found[recipe] = decibels
                progress(len(self.found), most, str(recipe))
        # In the order they were asked for: of equals the first wins.
        measured = {recipe: self.found[originals[recipe]] for recipe in fresh}
        for recipe in tried:
            del self.found[recipe]
        self.found |= measured

    def _measure(self, recipe: Recipe) -> float:
        channels = self.channels if recipe.biases else None
        table = self.tables[recipe]
        if recipe.compensate and self.make_codes:
            self.codes[recipe] = self.make_codes(table, biases=recipe.biases)
        codes = self.codes.get(recipe)
        int8 = quantize_graph(self.model, self.plan, table, channels=channels, codes=codes).model
        return output_sqnr_db(self.reference, _outputs(int8, self.feeds))

    def best(self, among: Iterable[Recipe] | None = None) -> Recipe:
        """Return the first of the best, of these or of all."""
        return max(among or self.found, key=lambda recipe: self.found[recipe])


def choose_best(
    model: onnx.ModelProto,
    plan: QuantizationPlan,
    make_table: MakeTable,
    feeds: Sequence[Tensors],
    scope: Scope | None = None,
    *,
    channels: Mapping[str, ChannelCounts] | None = None,
    make_codes: MakeCodes | None = None,
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
        make_codes: Rounds the weights of a layer together; None, and that is not tried.
        progress: Told of each trial.

    Raises:
        GraphError: The plan does not fit the graph.
    """
    scope = scope or Scope()
    if not channels:
        scope = replace(scope, biases=(False,))
    if make_codes is None:
        scope = replace(scope, compensates=(False,))
    reference = _outputs(model, feeds)
    trials = _Trials(model, plan, make_table, make_codes, feeds, reference, channels or {})
    start = Recipe(
        *(scope.methods[0], scope.reaches[0], scope.strengths[0], scope.biases[0]),
        balance=scope.balances[0],
    )

    def attempt_all(recipes: Iterable[Recipe]) -> None:
        trials.attempt(recipes, progress, scope.most)

    progress(0, scope.most, str(start))
    equalized = [replace(start, strength=strength) for strength in scope.strengths]
    if equalized[-1].strength:
        equalized += [replace(equalized[-1], balance=other) for other in scope.balances[1:]]
    attempt_all(equalized)
    best = trials.best()
    attempt_all([replace(best, method=method) for method in scope.methods])
    best = trials.best()
    attempt_all(
        [replace(best, reach=reach) for reach in scope.reaches]
        + [replace(best, biases=biases) for biases in scope.biases]
    )
    best = trials.best()
    rounded = [replace(best, compensate=compensate) for compensate in scope.compensates]
    if rounded[-1].compensate and best.strength and len(scope.strengths) > 1:
        rounded.append(replace(rounded[-1], strength=(best.strength + 1.0) / 2))
    attempt_all(rounded)
    best = trials.best(rounded)
    table = replace(trials.tables[best], method=f"auto: {best}")
    tried = {str(recipe): db for recipe, db in trials.found.items()}
    return Choice(best, table, tried, trials.codes.get(best, {}))


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
    """Return the mean over images of the SQNR of all outputs together, in dB.

    The mean of decibels, not their median: of two recipes on the same images it tells smaller
    differences, since what makes an image hard cancels in it, and no outlier rules it.

    Args:
        reference: Outputs, N×… each.
        candidate: The same tensors of the other network.

    Returns:
        At most 120, which is what an image without any error counts as; NaN when one has it.
    """
    signal = sum(_per_image(array) for array in reference)
    noise = sum(_per_image(a - b) for a, b in zip(reference, candidate, strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.mean(np.clip(10.0 * np.log10(signal / noise), -_MOST_DB, _MOST_DB)))


def _per_image(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    flat = array.reshape(len(array), -1).astype(np.float64)
    result: npt.NDArray[np.float64] = np.einsum("ij,ij->i", flat, flat)
    return result


def _outputs(model: onnx.ModelProto, feeds: Sequence[Tensors]) -> list[npt.NDArray[np.float32]]:
    """Return every output over all feeds, joined."""
    # One thread each, so that the bits do not depend on how many there are.
    session = open_session(model, threads=1)
    parts = [session(feed) for feed in feeds]
    return [np.concatenate([part[name] for part in parts]) for name in session.outputs]
