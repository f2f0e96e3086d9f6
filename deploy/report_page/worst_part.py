"""The layers worth a look: to blame, the worst by their own error, or with an ill-fitting amax."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.comparison.output.numbers_text import db_phrase, shape_text
from deploy.comparison.values.measures import Cell
from deploy.comparison.values.report import Report, Row
from deploy.comparison.values.verdict import Blame
from deploy.report_page.histogram import histogram_svg, holds
from deploy.report_page.markup import facts, link, said, text
from deploy.report_page.words import beyond_text, number, place_text, share

__all__ = ["carded", "worst_part"]

# Cards at most: layers to blame; the worst besides; those whose amax fits these images worst.
_BLAMED, _WORST, _RANGES = 24, 6, 3


def carded(report: Report, step: int) -> dict[str, Blame | None]:
    """Return the tensors that get a card in a step, and why they are to blame if they are."""
    cards: dict[str, Blame | None] = {
        blame.tensor: blame for blame in report.verdicts[step].blame[:_BLAMED]
    }
    own = report.has_own(step)
    for row in report.worst(_WORST, own=own, step=step):
        errors = report.errors(row, own=own, step=step)
        if errors is not None and errors.sqnr_db != float("inf"):
            cards.setdefault(row.tensor, None)
    for tensor in _ill_fitting(report, step):
        cards.setdefault(tensor, None)
    return cards


def _ill_fitting(report: Report, step: int) -> list[str]:
    """Return the tensors with a histogram for which another amax would have been better."""
    rated = [
        (-cell.codes.regret_db, at, row.tensor)
        for at, row in enumerate(report.rows)
        if (cell := row.cells[step]).codes and cell.histogram and cell.codes.regret_db > 0
    ]
    return [tensor for _, _, tensor in sorted(rated)[:_RANGES]]


def worst_part(report: Report, step: int) -> str:
    """Return the cards of a step."""
    at = {row.tensor: number for number, row in enumerate(report.rows)}
    cards = [
        _card(report, step, at[tensor], blame)
        for tensor, blame in carded(report, step).items()
        if tensor in at
    ]
    if not cards:
        return '<p class="soft">Nothing differs in this step.</p>'
    more = len(report.verdicts[step].blame) - _BLAMED
    rest = f'<p class="soft">{more} more are to blame: see the table.</p>' if more > 0 else ""
    return f'<div class="cards">{"".join(cards)}</div>{rest}'


def _card(report: Report, step: int, at: int, blame: Blame | None) -> str:
    row = report.rows[at]
    cell = row.cells[step]
    reason = ""
    if blame is not None:
        reason = (
            f'<p class="reason"><span class="mark">{text(blame.reason.value)}</span> '
            f'{said(blame.text)}</p><p class="next"><b>Next:</b> {said(blame.next_step)}</p>'
        )
    return (
        f'<article class="card{" fault" if blame else ""}"><h4>{link(at, row.tensor)}</h4>'
        f'<p class="soft">{_kind(row, step)}</p>{reason}{_histogram(report, row, step)}'
        f'<dl class="facts">{facts(_figures(cell))}</dl></article>'
    )


def _kind(row: Row, step: int) -> str:
    made = row.made[step + 1]
    op, kind = (made.op, made.precision or "") if made else (row.op, "")
    parts = [op, shape_text(row), kind, row.stage]
    return " · ".join(text(part) for part in parts if part)


def _histogram(report: Report, row: Row, step: int) -> str:
    cell = row.cells[step]
    if cell.histogram is None:
        return ""
    codes = cell.codes
    end = f"; its codes hold {' to '.join(map(number, holds(codes)))}" if codes else ""
    label = (
        f"Values of {row.tensor}: {number(cell.histogram.low)} to {number(cell.histogram.high)}, "
        f"{report.models[step].name} and {report.models[step + 1].name}{end}"
    )
    drawn = histogram_svg(cell.histogram, codes, label)
    return f"<figure>{drawn}</figure>" if drawn else ""


def _figures(cell: Cell) -> Iterator[tuple[str, str]]:
    """Yield the figures of a card as (term, HTML)."""
    if cell.own is not None:
        yield "own", db_phrase(cell.own.sqnr_db)
    if cell.inherited is not None:
        yield "inherited", db_phrase(cell.inherited.sqnr_db)
    if cell.explained is not None and cell.explained.expected_db is not None:
        yield "rounding explains", db_phrase(cell.explained.expected_db)
        yield "beyond that", beyond_text(cell.explained.excess_db)
    if cell.explained is not None and cell.explained.channel is not None:
        yield "worst channel", str(cell.explained.channel)
    errors = cell.own or cell.inherited
    if errors is not None and errors.at is not None:
        yield "largest difference", f"{number(errors.max_abs)} at {place_text(errors.at)}"
    if cell.codes is not None:
        codes = cell.codes
        low, high = holds(codes)
        yield "codes hold", f"{number(low)} to {number(high)} (amax {number(codes.amax)})"
        if codes.factors != (1.0, 1.0):
            least, most = map(number, codes.factors)
            yield "equalized", f"channels hold {least} to {most} times the amax"
        yield "clipped", share(codes.saturated)
        yield "quantizing leaves", db_phrase(codes.rounding_db)
        yield "best amax here", f"{number(codes.best_amax)} ({codes.regret_db:.1f} dB better)"
        equal = codes.equal if codes.own_equal is None else codes.own_equal
        yield ("equal codes" if codes.own_equal is None else "equal codes, own"), share(equal)
