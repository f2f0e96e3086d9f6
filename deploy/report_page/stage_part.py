"""The parts of the network: what the worst tensor of each comes to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from deploy.comparison.output.numbers_text import db_text
from deploy.comparison.values.report import Report, Row
from deploy.report_page.markup import head_row, link, text

__all__ = ["stage_table"]

_BAR = 90
_CLEAN_DB = 80.0  # from here on a bar is empty


def stage_table(report: Report, step: int) -> str:
    """Return a table with a row for each part of the network."""
    own = report.has_own(step)
    columns = [
        ("Stage", False),
        ("Tensors", True),
        ("To blame", True),
        ("Worst inherited, dB", True),
        ("At", False),
        *([("Worst own, dB", True), ("", False), ("At", False)] if own else []),
    ]
    rows = "".join(_rows(report, step, own=own))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="By stage">'
        f'<table class="stages">{head_row(columns)}<tbody>{rows}</tbody></table></div>'
    )


def _rows(report: Report, step: int, *, own: bool) -> Iterator[str]:
    blamed = {blame.tensor for blame in report.verdicts[step].blame}
    numbered = list(enumerate(report.rows))
    for stage, group in groupby(numbered, key=lambda pair: pair[1].stage):
        rows = list(group)
        compared = sum(row.cells[step].inherited is not None for _, row in rows)
        faults = sum(row.tensor in blamed for _, row in rows)
        worst = _worst(rows, step, own=False) + (_worst(rows, step, own=True) if own else "")
        yield (
            f'<tr><th scope="row"><a href="#tensors" data-stage="{text(stage)}">{text(stage)}'
            f'</a></th><td class="num">{compared}</td><td class="num">'
            f"{f'<b>{faults}</b>' if faults else '0'}</td>{worst}</tr>"
        )


def _worst(rows: list[tuple[int, Row]], step: int, *, own: bool) -> str:
    rated = []
    for at, row in rows:
        errors = row.cells[step].own if own else row.cells[step].inherited
        if errors is not None:
            rated.append((errors.goodness, at, row.tensor, errors.sqnr_db))
    bars = "<td></td>" if own else ""
    if not rated:
        return f'<td class="num">–</td>{bars}<td>–</td>'
    _, at, tensor, sqnr_db = min(rated)
    if own:
        bars = f"<td>{_bar(sqnr_db)}</td>"
    return f'<td class="num">{db_text(sqnr_db)}</td>{bars}<td>{link(at, tensor)}</td>'


def _bar(sqnr_db: float) -> str:
    """Draw an error: nothing at 80 dB and above, full at 0 dB and for NaN."""
    share = min(max(1.0 - sqnr_db / _CLEAN_DB, 0.0), 1.0) if sqnr_db == sqnr_db else 1.0
    return (
        f'<svg class="bar" viewBox="0 0 {_BAR} 8" width="{_BAR}" height="8" aria-hidden="true">'
        f'<rect class="rail" width="{_BAR}" height="8" rx="2"/>'
        f'<rect width="{share * _BAR:.1f}" height="8" rx="2"/></svg>'
    )
