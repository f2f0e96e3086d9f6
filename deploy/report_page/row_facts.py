"""Everything about each tensor, for the script that shows one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from deploy.comparison.output.numbers_text import db_phrase, shape_text
from deploy.comparison.values.measures import Cell, Errors, Made
from deploy.comparison.values.report import Report, Row
from deploy.inspect.columns import fit
from deploy.report_page.depth_plot import heights
from deploy.report_page.histogram import holds
from deploy.report_page.markup import LONGEST
from deploy.report_page.words import beyond_text, brief, number, place_text, share, step_name
from deploy.report_page.worst_part import carded

__all__ = ["page_data"]

Pairs = list[tuple[str, str]]


def page_data(report: Report) -> dict[str, Any]:
    """Return what the script knows; every text in it is plain.

    ``steps`` are their names, ``plots`` the heights of the marks, ``rows`` the tensors: ``made``
    and ``cells`` hold (what, value) for each model and each step.
    """
    cards = [carded(report, step) for step in range(report.steps)]
    blamed = [{blame.tensor for blame in verdict.blame} for verdict in report.verdicts]
    return {
        "steps": [fit(step_name(report, step), LONGEST) for step in range(report.steps)],
        "start": next(
            (at for at, v in enumerate(report.verdicts) if not v.holds), report.steps - 1
        ),
        "plots": [heights(report, step) for step in range(report.steps)],
        "rows": [_row(report, row, blamed) for row in report.rows],
        "first": [_first(report, list(found)) for found in cards],
    }


def _first(report: Report, tensors: list[str]) -> int:
    """Return the row that is shown before anything is pointed at."""
    at = {row.tensor: number for number, row in enumerate(report.rows)}
    return next((at[tensor] for tensor in tensors if tensor in at), 0)


def _row(report: Report, row: Row, blamed: list[set[str]]) -> dict[str, Any]:
    return {
        "name": fit(row.tensor, LONGEST),
        "stage": fit(row.stage, LONGEST),
        "operator": fit(row.op, LONGEST),
        "shape": fit(shape_text(row), LONGEST),
        "made": [
            list(_made(made, fit(model.name, 40)))
            for model, made in zip(report.models, row.made, strict=True)
            if made is not None
        ],
        "cells": [
            {
                "precision": fit(made.precision or "", LONGEST)
                if (made := row.made[step + 1])
                else "",
                "status": cell.status.value,
                "blame": row.tensor in blamed[step],
                "brief": fit(brief(cell), 200),
                "facts": list(_cell(cell)),
            }
            for step, cell in enumerate(row.cells)
        ],
    }


def _made(made: Made, model: str) -> Iterator[str]:
    """Yield the model, and what it says of the tensor."""
    yield model
    parts = [
        made.op if made.node == "" else f"{made.op} {made.node}",
        made.precision or made.dtype or "",
    ]
    if made.low is not None and made.high is not None:
        parts.append(f"{number(made.low)} to {number(made.high)}")
    dead = "dead channel" if made.dead == 1 else "dead channels"
    counts = ((dead, made.dead), ("NaN", made.nan), ("infinite", made.inf))
    parts += [f"{count} {what}" for what, count in counts if count]
    yield fit(", ".join(part for part in parts if part), 200)


def _cell(cell: Cell) -> Iterator[tuple[str, str]]:
    yield from _errors("own", cell.own)
    yield from _errors("inherited", cell.inherited)
    explained = cell.explained
    if explained is not None and explained.expected_db is not None:
        beyond = f", {beyond_text(explained.excess_db)} beyond"
        worst = f" in channel {explained.channel}" if explained.channel is not None else ""
        yield "explained", f"{db_phrase(explained.expected_db)}{beyond}{worst}"
    if cell.codes is not None:
        codes = cell.codes
        low, high = holds(codes)
        yield "codes", f"{number(low)} to {number(high)}, {share(codes.saturated)} clipped"
        yield "quantizing leaves", db_phrase(codes.rounding_db)
        yield "equal codes", f"{share(codes.equal)}, at most {codes.largest} apart"
        yield "best amax here", f"{number(codes.best_amax)}, {codes.regret_db:.1f} dB better"
    if cell.own is None and cell.inherited is None:
        yield "status", fit(brief(cell), 200)


def _errors(kind: str, errors: Errors | None) -> Iterator[tuple[str, str]]:
    if errors is None:
        return
    where = f" at {place_text(errors.at)}" if errors.at else ""
    yield kind, db_phrase(errors.sqnr_db)
    if errors.max_abs:
        yield f"largest, {kind}", f"{number(errors.max_abs)}{where}"
