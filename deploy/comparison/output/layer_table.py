"""A comparison as text for people: at most 100 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby

from deploy.comparison.output.numbers_text import (
    bar,
    db_phrase,
    db_text,
    op_text,
    row_text,
    shape_text,
)
from deploy.comparison.values.measures import Errors, Status
from deploy.comparison.values.report import Report, Row, cautions
from deploy.comparison.values.verdict import Verdict
from deploy.inspect.columns import columns, fit, paragraph

__all__ = ["report_text"]

_MOST_STEPS = 4  # columns that fit
_BLAMED = 5
_BAR = 14


def report_text(report: Report, *, top: int) -> str:
    """Return a report as text.

    Args:
        report: What to tell.
        top: Rows of the table of the worst tensors.
    """
    own = report.has_own()
    parts = [
        [*_head(report), f"on {report.data.images} images of {report.data.name}"],
        [paragraph(f"caution: {text}") for text in cautions(report)],
        list(_stages(report, own=own)),
        list(_worst(report, top, own=own)) if top else [],
        list(_medians(report, own=own)),
        [line for step in range(report.steps) for line in _verdict(report, step)],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _head(report: Report) -> Iterator[str]:
    yield fit(" → ".join(model.name for model in report.models), 100)
    for step in range(report.steps):
        name = f"{report.models[step + 1].name}: " if report.steps > 1 else ""
        yield f"{fit(name, 40)}{_counts(report.rows, step)}"


def _counts(rows: Sequence[Row], step: int) -> str:
    """Say how many tensors were compared, and why the others were not."""
    counts = Counter(row.cells[step].status for row in rows)
    folded = sum(row.cells[step].into is not None for row in rows)
    others = [
        f"{counts[status]} {status.value}"
        + (f" ({folded} folded)" if status is Status.ONLY_IN_REFERENCE and folded else "")
        for status in Status
        if counts[status] and status not in (Status.COMPARED, Status.ABSENT)
    ]
    return ", ".join([f"{counts[Status.COMPARED]} tensors compared", *others])


def _stages(report: Report, *, own: bool) -> Iterator[str]:
    """Yield a line for each part of the network: what its worst tensors come to."""
    kind = "own" if own else "inherited"
    yield "by stage, the worst in each"
    shown = range(max(0, report.steps - _MOST_STEPS), report.steps)
    names = [report.models[step + 1].name for step in shown] if report.steps > 1 else []
    widths = (10, *[20] * len(shown)) if names else (10, 7, 7, _BAR, 28)
    if names:
        yield columns(("", *names), widths, len(shown))
    else:
        yield columns(("", "inh. dB", "own dB", "", "at"), widths, 0)
    for stage, group in groupby(report.rows, key=lambda row: row.stage):
        rows = list(group)
        if names:
            cells = [_lowest(rows, step, own=own)[0] for step in shown]
            texts = [f"{bar(db, 10)} {db_text(db)}" if db is not None else "–" for db in cells]
            yield columns((stage, *texts), widths, len(shown))
        else:
            inherited, _ = _lowest(rows, -1, own=False)
            db, at = _lowest(rows, -1, own=own)
            where = f"{at} ({kind})" if at else ""
            numbers = db_text(inherited).rjust(7), (db_text(db) if own else "").rjust(7)
            yield columns((stage, *numbers, bar(db, _BAR), where), widths, 0)


def _lowest(rows: Sequence[Row], step: int, *, own: bool) -> tuple[float | None, str]:
    """Return the lowest SQNR of some rows, and where it is."""
    rated = [
        (errors.goodness, errors.sqnr_db, row.tensor)
        for row in rows
        if (errors := _errors(row, step, own=own)) is not None
    ]
    return min(rated, key=lambda entry: entry[0])[1:] if rated else (None, "")


def _errors(row: Row, step: int, *, own: bool) -> Errors | None:
    cell = row.cells[step]
    return cell.own if own else cell.inherited


def _worst(report: Report, top: int, *, own: bool) -> Iterator[str]:
    """Yield the rows of lowest SQNR."""
    if report.steps > 1:
        yield from _worst_of_chain(report, top, own=own)
        return
    header = ("tensor", "operator", "shape", "inh. dB", "own dB", "expl. dB", "")
    widths = (28, 13, 13, 7, 7, 8, 12)
    yield columns(header, widths, 0)
    for row in report.worst(top, own=own):
        cell = row.cells[-1]
        expected = cell.explained.expected_db if cell.explained else None
        errors = cell.own if own else cell.inherited
        texts = (
            *(row.tensor, op_text(row.op, widths[1]), shape_text(row)),
            db_text(cell.inherited.sqnr_db if cell.inherited else None).rjust(7),
            db_text(cell.own.sqnr_db if cell.own else None).rjust(7),
            db_text(expected).rjust(8),
            bar(errors.sqnr_db if errors else None, 12),
        )
        yield columns(texts, widths, 0)


def _worst_of_chain(report: Report, top: int, *, own: bool) -> Iterator[str]:
    """Yield the worst rows with a column a step."""
    shown = list(range(max(0, report.steps - _MOST_STEPS), report.steps))
    rated = []
    for at, row in enumerate(report.rows):
        found = [e.goodness for step in shown if (e := _errors(row, step, own=own))]
        if found:
            rated.append((min(found), at))
    widths = (24, 10, *[14] * len(shown))  # 100 columns with four steps
    names = [report.models[step + 1].name for step in shown]
    yield columns(("own dB" if own else "inherited dB", "operator", *names), widths, len(shown))
    for _, at in sorted(rated)[:top]:
        row = report.rows[at]
        dbs = [e.sqnr_db if (e := _errors(row, step, own=own)) else None for step in shown]
        texts = [f"{bar(db, 6)} {db_text(db)}".strip() for db in dbs]
        yield columns((row.tensor, op_text(row.op, widths[1]), *texts), widths, len(shown))


def _medians(report: Report, *, own: bool) -> Iterator[str]:
    """Yield the medians, the codes and the answers."""
    yield f"median inherited (inh.) {db_phrase(report.median_db(own=False))}" + (
        f", own {db_phrase(report.median_db(own=True))}" if own else ""
    )
    codes = [(row.cells[-1].codes, row.tensor) for row in report.rows if row.cells[-1].codes]
    if codes:
        equal, where = min((c.equal, name) for c, name in codes if c)
        text = f"INT8 codes: at least {equal:.2%} equal ({where})"
        fed = [(c.own_equal, name) for c, name in codes if c and c.own_equal is not None]
        if fed:
            text += f"; of a layer fed the reference's tensors {min(fed)[0]:.2%} ({min(fed)[1]})"
        yield paragraph(text)
    if report.changed is not None:
        yield f"other answers than the reference: {report.changed[-1]} of {report.data.images}"


def _verdict(report: Report, step: int) -> Iterator[str]:
    """Yield what is concluded of a step."""
    verdict: Verdict = report.verdicts[step]
    name = report.models[step + 1].name
    floor = report.bounds.floor_db
    if floor is not None:
        if verdict.first_below is None:
            yield f"{name}: no tensor below {floor:g} dB"
        else:
            row = next(row for row in report.rows if row.tensor == verdict.first_below)
            yield paragraph(
                f"{name}: first below {floor:g} dB in graph order: {row.tensor} "
                f"({row_text(row.cells[step])})"
            )
    if not report.has_own(step):
        return
    if verdict.first is None:
        yield f"{name}: no layer to blame: each does what its precision and scales explain"
        return
    yield paragraph(f"{name}: the first layer at fault is {verdict.first}")
    for blame in verdict.blame[:_BLAMED]:
        yield paragraph(f"  {blame.tensor}: {blame.reason}: {blame.text}; {blame.next_step}")
    if len(verdict.blame) > _BLAMED:
        yield f"  … and {len(verdict.blame) - _BLAMED} more"
