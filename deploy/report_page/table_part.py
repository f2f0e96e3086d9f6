"""The table of all tensors: a column group for each step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deploy.comparison.output.numbers_text import db_text, shape_text
from deploy.comparison.values.measures import Cell, Made
from deploy.comparison.values.report import Report, Row
from deploy.report_page.markup import name, text
from deploy.report_page.words import excess_text, number, share, step_name

__all__ = ["filters", "step_style", "tensor_table"]


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a step.

    Attributes:
        title: Of the head.
        kind: Class of its cells.
        value: What stands in it.
        always: It is there even when no row has a value, and beside those of other steps.
    """

    title: str
    kind: str
    value: Callable[[Cell, Made | None], str]
    always: bool = False


def _own(cell: Cell, _: Made | None) -> str:
    return db_text(cell.own.sqnr_db if cell.own else None)


def _inherited(cell: Cell, _: Made | None) -> str:
    return db_text(cell.inherited.sqnr_db if cell.inherited else None)


def _status(cell: Cell, _: Made | None) -> str:
    return f"folded into {cell.into}" if cell.into else cell.status.value


def _precision(_: Cell, made: Made | None) -> str:
    return made.precision or "–" if made else "–"


_COLUMNS = (
    _Column("Precision", "p", _precision),
    _Column("Own, dB", "num", _own, always=True),
    _Column("Inherited, dB", "num", _inherited, always=True),
    _Column(
        "Explained, dB",
        "num",
        lambda c, _: db_text(c.explained.expected_db if c.explained else None),
    ),
    _Column(
        "Beyond, dB",
        "num",
        lambda c, _: excess_text(c.explained.excess_db if c.explained else None),
    ),
    _Column("Since first, dB", "num", lambda c, _: db_text(c.total_db)),
    _Column(
        "Max. difference", "num", lambda c, _: number(c.inherited.max_abs if c.inherited else None)
    ),
    _Column("Equal codes", "num", lambda c, _: share(c.codes.equal if c.codes else None)),
    _Column("Clipped", "num", lambda c, _: share(c.codes.saturated if c.codes else None)),
    _Column("Dead channels", "num", lambda _, m: str(m.dead) if m and m.dead else "–"),
    _Column("Status", "st", _status),
)


def tensor_table(report: Report) -> str:
    """Return the table of all tensors."""
    shown = [_shown(report, step) for step in range(report.steps)]
    groups = "".join(
        f'<th scope="colgroup" class="group s s{step}" colspan="{len(columns)}" '
        f'data-all="{sum(c.always for c in columns)}">{text(step_name(report, step), 60)}</th>'
        for step, columns in enumerate(shown)
    )
    titles = "".join(
        _title(column.title, _kinds(column, step))
        for step, columns in enumerate(shown)
        for column in columns
    )
    fixed = "".join(
        _title(title, kind)
        for title, kind in (
            ("#", "num"),
            ("Tensor", "t"),
            ("Stage", ""),
            ("Operator", ""),
            ("Shape", "num"),
        )
    )
    rows = "".join(_row(report, at, shown) for at in range(len(report.rows)))
    return (
        '<table id="all"><caption class="hidden">All tensors, in the order of the network'
        f'</caption><thead><tr><td colspan="5"></td>{groups}</tr><tr>{fixed}{titles}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )


def _shown(report: Report, step: int) -> list[_Column]:
    """Return the columns of a step that have something to say."""

    def tells(column: _Column) -> bool:
        if column.title == "Since first, dB" and step == 0:
            return False  # it is the inherited error there
        return any(column.value(row.cells[step], row.made[step + 1]) != "–" for row in report.rows)

    return [column for column in _COLUMNS if column.always or tells(column)]


def _kinds(column: _Column, step: int) -> str:
    return f"s s{step} {column.kind}" + ("" if column.always else " d")


def _title(title: str, kind: str) -> str:
    return f'<th scope="col" class="{kind}"><span class="sort">{title}</span></th>'


def _row(report: Report, at: int, shown: list[list[_Column]]) -> str:
    row: Row = report.rows[at]
    blamed = [
        any(blame.tensor == row.tensor for blame in verdict.blame) for verdict in report.verdicts
    ]
    cells = []
    for step, columns in enumerate(shown):
        for column in columns:
            value = text(column.value(row.cells[step], row.made[step + 1]), 60)
            mark = " bad" if blamed[step] and column.value is _own else ""
            cells.append(f'<td class="{_kinds(column, step)}{mark}">{value}</td>')
    told = "".join(
        f'<span class="s s{s} blame"> to blame</span>' for s, is_ in enumerate(blamed) if is_
    )
    return (
        f'<tr id="t{at}"><td class="num soft">{at}</td><th scope="row" class="t">'
        f'<a href="#depth" class="show">{name(row.tensor)}</a>{told}</th>'
        f"<td>{text(row.stage, 40)}</td><td>{text(row.op, 40)}</td>"
        f'<td class="num">{text(shape_text(row)) or "–"}</td>{"".join(cells)}</tr>\n'
    )


def step_style(report: Report) -> str:
    """Return the rules that show one step of the table at a time, or all in short."""
    rules = [
        f'[data-step="{step}"] .s:not(.s{step}){{display:none}}' for step in range(report.steps)
    ]
    return "".join([*rules, '[data-step="all"] .d{display:none}'])


def filters(report: Report) -> str:
    """Return the choices of the filters; a script puts them to use."""
    kinds = {
        "stage": dict.fromkeys(row.stage for row in report.rows),
        "operator": dict.fromkeys(sorted({row.op for row in report.rows})),
        "precision": dict.fromkeys(
            sorted({m.precision for row in report.rows for m in row.made if m and m.precision})
        ),
        "status": dict.fromkeys(
            sorted({cell.status.value for row in report.rows for cell in row.cells})
        ),
    }
    return "".join(_choice(kind, list(values)) for kind, values in kinds.items() if values)


def _choice(kind: str, values: list[str]) -> str:
    options = "".join(f'<option value="{text(v)}">{text(v, 40)}</option>' for v in values)
    return (
        f'<label>{kind.capitalize()}<select name="{kind}"><option value="">any</option>{options}'
        "</select></label>"
    )
