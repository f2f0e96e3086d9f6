"""From the sums of a chain to its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from deploy.comparison.chain import Chain
from deploy.comparison.graphs.wiring import Maker
from deploy.comparison.sides.side import Side
from deploy.comparison.sums.pair_sums import SideSums
from deploy.comparison.sums.rows import folded_into, layers_of, order_of, stages_of
from deploy.comparison.sums.step_sums import StepSums
from deploy.comparison.values.measures import Cell, Codes, Explained, Made, Status
from deploy.comparison.values.report import Row
from deploy.comparison.values.verdict import Verdict

__all__ = ["keep_histograms", "rows_of"]

_NOTABLE = 12  # rows of a step that keep their histograms, by each kind of error

Layers = Mapping[str, Maker]
Precisions = Mapping[str, str]


def rows_of(
    chain: Chain,
    explained: Sequence[Mapping[str, Explained]],
    precisions: Sequence[Precisions],
) -> tuple[Row, ...]:
    """Return a row for every tensor of any model.

    Args:
        chain: What was summed up.
        explained: For each step, the own errors held against their expectation.
        precisions: For each model, what its layers compute in.
    """
    layers = [_layers(side) for side in chain.sides]
    order = order_of(layers)
    stages = stages_of(order)
    return tuple(
        Row(
            tensor=name,
            stage=stages[name],
            made=tuple(
                _made(name, chain, at, layers[at].get(name), precisions[at].get(name))
                for at in range(len(layers))
            ),
            cells=tuple(
                _cell(name, chain, at, pair, explained[at].get(name))
                for at, pair in enumerate(pairwise(layers))
            ),
        )
        for name in order
    )


def _layers(side: Side) -> dict[str, Maker]:
    """Return what a row is made of: the image, and all that no Q or DQ makes."""
    return {side.image.name: Maker(side.image.name, "Input", -1), **layers_of(side.wiring)}


def _made(
    name: str, chain: Chain, at: int, maker: Maker | None, precision: str | None
) -> Made | None:
    """Return how one model makes a tensor."""
    if maker is None:
        return None
    made = Made(maker.node or name, maker.op_type, precision=precision)
    # Its type and shape were seen by the step that it is the candidate of, or the reference.
    for step, side in ((at - 1, 1), (at, 0)):
        if 0 <= step < len(chain.steps) and name in chain.steps[step].seen:
            seen = chain.steps[step].seen[name]
            made = replace(made, dtype=seen.dtypes[side], shape=seen.shapes[side])
    sums: SideSums | None = chain.made[at].get(name)
    if sums is None or not len(sums.low):
        return made
    low, high = sums.bounds()
    return replace(made, low=low, high=high, dead=sums.dead, nan=sums.nan, inf=sums.inf)


def _cell(
    name: str, chain: Chain, at: int, pair: tuple[Layers, Layers], explained: Explained | None
) -> Cell:
    """Return what a step says of a tensor."""
    reference, candidate = pair
    step = chain.steps[at]
    if name not in reference or name not in candidate:
        return _one_sided(name, chain.sides[at], pair)
    seen = step.seen.get(name)
    if seen is None:
        return Cell(Status.NOT_REACHED if chain.stopped else Status.ELSEWHERE)
    if seen.status is not Status.COMPARED:
        return Cell(seen.status)
    total = step.total.get(name) if at else step.inherited.get(name)
    return Cell(
        status=seen.status,
        inherited=step.inherited[name].errors() if name in step.inherited else None,
        own=step.own[name].errors() if name in step.own else None,
        explained=explained,
        total_db=total.errors().sqnr_db if total else None,
        codes=codes_of(name, step),
        histogram=step.histograms.get(name),
    )


def _one_sided(name: str, side: Side, pair: tuple[Layers, Layers]) -> Cell:
    reference, candidate = pair
    if name in reference:
        into = folded_into(name, side.wiring, candidate)
        return Cell(Status.ONLY_IN_REFERENCE, into)
    return Cell(Status.ONLY_IN_CANDIDATE if name in candidate else Status.ABSENT)


def codes_of(name: str, step: StepSums) -> Codes | None:
    """Return what a step knows of the codes of a tensor; None where there are none."""
    quantizer, rounding = step.quantizers.get(name), step.counted.get(name)
    if quantizer is None or rounding is None or not rounding.count:
        return None
    same, own = step.same[name], step.own_same.get(name)
    factor, regret = rounding.best() if quantizer.is_int8 else (1.0, 0.0)
    return Codes(
        scale=quantizer.scale,
        shift=quantizer.held.shift,
        factors=_ends(quantizer.held.factors),
        equal=same.share,
        largest=same.largest,
        own_equal=own.share if own else None,
        own_largest=own.largest if own else None,
        saturated=rounding.saturated / rounding.count,
        rounding_db=step.rounding_db(name),
        best_amax=quantizer.high * quantizer.scale * factor,
        regret_db=regret,
    )


def _ends(factors: npt.NDArray[np.float64] | None) -> tuple[float, float]:
    """Return the smallest and the largest factor of a tensor's channels."""
    return (1.0, 1.0) if factors is None else (float(factors.min()), float(factors.max()))


def keep_histograms(rows: Sequence[Row], verdicts: Sequence[Verdict]) -> tuple[Row, ...]:
    """Return the rows with the histograms of those that are worth a look."""
    kept: list[set[str]] = []
    for step, verdict in enumerate(verdicts):
        names = {blame.tensor for blame in verdict.blame}
        for own in (True, False):
            rated = [
                (errors.goodness, row.tensor)
                for row in rows
                if (errors := row.cells[step].own if own else row.cells[step].inherited)
            ]
            names |= {name for _, name in sorted(rated)[:_NOTABLE]}
        kept.append(names)
    return tuple(
        replace(
            row,
            cells=tuple(
                cell if row.tensor in names else replace(cell, histogram=None)
                for cell, names in zip(row.cells, kept, strict=True)
            ),
        )
        for row in rows
    )
