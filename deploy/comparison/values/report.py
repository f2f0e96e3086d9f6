"""A comparison as a value: one reference, a chain of candidates, a row for every tensor.

Each step of the chain compares a model with the one before it; the first candidate with the
reference. So a chain shows in which step each layer lost what.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from deploy.comparison.values.measures import Cell, Errors, Made
from deploy.comparison.values.verdict import Bounds, Verdict
from deploy.images import DataRecord

__all__ = ["Answer", "Report", "Row", "Subject", "cautions"]

TOP = 5  # answers that are kept of an image


@dataclass(frozen=True, slots=True)
class Subject:
    """A model that was compared.

    Attributes:
        name: As the user named it, without folders: ``trt-network:int8.onnx``.
        file: File name; empty for weights by name.
        sha256: Of the file, or of the weights.
        stage: What it says it is: ``"optimized"``, ``"int8"``, …; empty when it does not.
        backend: What ran it.
        file_bytes: Size of the file; 0 for none.
        parents: Role → SHA-256 of what it was made from, as it says.
        synthetic: Name of the noise it was calibrated with; empty for real images.
        cautions: What it says of itself that a reader must know, a sentence each.
    """

    name: str
    file: str
    sha256: str
    stage: str = ""
    backend: str = ""
    file_bytes: int = 0
    parents: Mapping[str, str] | None = None
    synthetic: str = ""
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor in all models.

    Attributes:
        tensor: Its name, the same everywhere.
        stage: The part of the network: ``"layer1"``; ``"stem"`` and ``"head"`` around them.
        made: How each model makes it, the reference first; None where it does not.
        cells: One for each step: the model ``made[i + 1]`` against ``made[i]``.
    """

    tensor: str
    stage: str
    made: tuple[Made | None, ...]
    cells: tuple[Cell, ...]

    @property
    def _first(self) -> Made | None:
        return next((made for made in self.made if made is not None), None)

    @property
    def module(self) -> str:
        """Name of the node or module that makes it, in the first model that has it."""
        return self._first.node if self._first else self.tensor

    @property
    def op(self) -> str:
        """The operator that makes it, in the first model that has it."""
        return self._first.op if self._first else ""

    @property
    def shape(self) -> tuple[int | str, ...] | None:
        """Its shape, in the first model that has it."""
        return next((made.shape for made in self.made if made and made.shape), None)


@dataclass(frozen=True, slots=True)
class Answer:
    """What all models answered for one image.

    Attributes:
        image: Its index in the data.
        label: The true class; None when unknown.
        top: For each model, the five likeliest classes with their probabilities.
    """

    image: int
    label: int | None
    top: tuple[tuple[tuple[int, float], ...], ...]


@dataclass(frozen=True, slots=True)
class Report:
    """A comparison.

    Attributes:
        models: What was compared, the reference first: one more than steps.
        data: On which images.
        rows: One for every tensor, in the order of the graph.
        bounds: What was asked of the layers.
        verdicts: One for each step.
        classes: Names of the classes, when known.
        changed: For each step, how many images have another top-1 than in the reference.
        right: For each model, how many images it answers rightly; None without labels.
        answers: A few images whose top-1 changed somewhere on the way.
    """

    models: tuple[Subject, ...]
    data: DataRecord
    rows: tuple[Row, ...]
    bounds: Bounds
    verdicts: tuple[Verdict, ...]
    classes: tuple[str, ...] = ()
    changed: tuple[int, ...] | None = None
    right: tuple[int, ...] | None = None
    answers: tuple[Answer, ...] = ()

    @property
    def steps(self) -> int:
        """How many candidates there are."""
        return len(self.models) - 1

    @property
    def reference(self) -> Subject:
        """The first model."""
        return self.models[0]

    @property
    def candidate(self) -> Subject:
        """The last model."""
        return self.models[-1]

    @property
    def holds(self) -> bool:
        """Whether all bounds hold in every step."""
        return all(verdict.holds for verdict in self.verdicts)

    def compared(self, step: int = -1) -> tuple[Row, ...]:
        """Return the rows of the tensors that both sides of a step have."""
        return tuple(row for row in self.rows if row.cells[step].inherited is not None)

    def worst(self, count: int, *, own: bool, step: int = -1) -> tuple[Row, ...]:
        """Return the rows of lowest SQNR in a step, worst first; equal ones in graph order.

        Args:
            count: At most so many.
            own: By their own error; by the inherited one otherwise.
            step: Which step; the last if not said.
        """
        rated = [
            (errors.goodness, row)
            for row in self.compared(step)
            if (errors := self.errors(row, own=own, step=step)) is not None
        ]
        return tuple(row for _, row in sorted(rated, key=lambda pair: pair[0])[:count])

    def errors(self, row: Row, *, own: bool, step: int = -1) -> Errors | None:
        """Return the own or the inherited errors of a row in a step."""
        cell = row.cells[step]
        return cell.own if own else cell.inherited

    def has_own(self, step: int = -1) -> bool:
        """Tell whether own errors were measured in a step."""
        return any(row.cells[step].own for row in self.rows)

    def median_db(self, *, own: bool, step: int = -1) -> float | None:
        """Return the median SQNR of the tensors that differ at all in a step.

        Infinite when none does; None when none was measured, or one holds a NaN.
        """
        measured = [self.errors(row, own=own, step=step) for row in self.compared(step)]
        values = [errors.sqnr_db for errors in measured if errors is not None]
        if not values or any(map(math.isnan, values)):
            return None
        return median([value for value in values if value != math.inf] or [math.inf])


def cautions(report: Report) -> list[str]:
    """Return what the models say of themselves that a reader must know, each sentence once."""
    first: dict[str, str] = {}
    for model in report.models:
        for sentence in model.cautions:
            first.setdefault(sentence, model.name)
    return [f"{name}: {sentence}" for sentence, name in first.items()]
