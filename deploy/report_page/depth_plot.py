"""The error along the depth of the network, drawn by hand as SVG.

Own errors are dots, the inherited one is a line, what rounding explains and what is allowed are
ticks, and a layer to blame has a ring: nothing is told by colour alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from deploy.comparison.values.measures import Cell, Status
from deploy.comparison.values.report import Report
from deploy.report_page.depth_scale import (
    HEIGHT,
    NARROW,
    TOP,
    WIDE,
    Frame,
    Scale,
    columns_of,
    scale_of,
    stages_of,
)
from deploy.report_page.markup import text
from deploy.report_page.words import bound_db, brief, step_name

__all__ = ["depth_plots", "heights"]

_LETTER = 6.6  # width of a letter of a stage's name
_RING = 6.0


@dataclass(frozen=True, slots=True)
class _Plot:
    """One step in one frame."""

    report: Report
    step: int
    frame: Frame
    scale: Scale
    columns: tuple[int, ...]

    @property
    def pitch(self) -> float:
        return self.frame.pitch(len(self.columns))

    def x(self, column: int) -> float:
        return round(self.frame.middle(column, len(self.columns)), 1)

    def cells(self) -> Iterator[tuple[int, Cell]]:
        for column, row in enumerate(self.columns):
            yield column, self.report.rows[row].cells[self.step]


def depth_plots(report: Report, step: int) -> str:
    """Return the plots of a step: one for a wide screen, one for a phone."""
    columns, scale = tuple(columns_of(report, step)), scale_of(report, step)
    return "".join(_picture(_Plot(report, step, frame, scale, columns)) for frame in (WIDE, NARROW))


def heights(report: Report, step: int) -> dict[str, list[float | None] | list[int]]:
    """Return what a script needs to follow the pointer: rows and heights, column by column."""
    columns, scale = columns_of(report, step), scale_of(report, step)
    cells = [report.rows[at].cells[step] for at in columns]
    return {
        "rows": columns,
        "own": [scale.at(cell.own) for cell in cells],
        "inherited": [scale.at(cell.inherited) for cell in cells],
    }


def _picture(plot: _Plot) -> str:
    frame = plot.frame
    title = f"Error along the depth, {step_name(plot.report, plot.step)}"
    parts = [
        f'<svg class="depth {frame.name}" viewBox="0 0 {frame.width} {HEIGHT}" role="img" '
        f'aria-label="{text(title)}: {len(plot.columns)} tensors" '
        f'data-left="{frame.left}" data-pitch="{plot.pitch:.4f}" data-width="{frame.width}">',
        *_bands(plot),
        *_grid(plot),
        _ticks(plot, "expected", _expected),
        _ticks(plot, "bound", _bound),
        _line(plot),
        _dots(plot),
        *_faults(plot),
        '<g class="cursor" visibility="hidden"><path/><circle class="at-inherited" r="4"/>'
        '<circle class="at-own" r="4.5"/></g>',
        *(_targets(plot) if frame is WIDE else ()),
        "</svg>",
    ]
    return "".join(parts)


def _bands(plot: _Plot) -> Iterator[str]:
    """Yield a shade for every other stage, and the names that fit."""
    for number, (stage, start, count) in enumerate(stages_of(plot.report, list(plot.columns))):
        x, width = plot.frame.left + start * plot.pitch, count * plot.pitch
        if number % 2 == 0:
            yield (
                f'<rect class="band" x="{x:.1f}" y="18" width="{width:.1f}" '
                f'height="{HEIGHT - 28}"/>'
            )
        if len(stage) * _LETTER <= width:
            yield f'<text class="stage" x="{x + width / 2:.1f}" y="12">{text(stage, 40)}</text>'


def _grid(plot: _Plot) -> Iterator[str]:
    left, right = plot.frame.left, plot.frame.width - 6
    for decibels in plot.scale.ticks():
        y = plot.scale.height(decibels)
        yield f'<path class="grid" d="M{left} {y:.1f}H{right}"/>'
        yield f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}">{decibels}</text>'
    best = plot.scale.height(float("inf"))
    yield f'<path class="grid lane" d="M{left} {best}H{right}"/>'
    equal = "equal" if plot.frame is WIDE else "="
    said = f">{plot.scale.high:g}" if _any_beyond(plot) else equal
    yield f'<text class="tick" x="{left - 6}" y="{best + 4:.1f}">{said}</text>'
    if plot.frame is WIDE:
        yield f'<text class="tick" x="{left - 6}" y="{TOP - 42}">dB</text>'
    if any(_lost(cell) for _, cell in plot.cells()):
        y = plot.scale.height(float("nan"))
        yield f'<text class="tick" x="{left - 6}" y="{y + 4:.1f}">✕</text>'


def _any_beyond(plot: _Plot) -> bool:
    """Tell whether the lane of what is equal also holds what is nearly so."""
    errors = [errors for _, cell in plot.cells() for errors in (cell.own, cell.inherited) if errors]
    return any(plot.scale.high < each.sqnr_db < float("inf") for each in errors)


def _lost(cell: Cell) -> bool:
    """Tell whether a tensor has no decibels that could be drawn, though both sides have it."""
    nan = cell.inherited is not None and cell.inherited.sqnr_db != cell.inherited.sqnr_db
    return nan or (cell.inherited is None and cell.status is not Status.NOT_REACHED)


def _expected(plot: _Plot, column: int) -> float | None:
    explained = plot.report.rows[plot.columns[column]].cells[plot.step].explained
    return explained.expected_db if explained else None


def _bound(plot: _Plot, column: int) -> float | None:
    return bound_db(plot.report, plot.report.rows[plot.columns[column]], plot.step)


def _ticks(plot: _Plot, kind: str, value: Callable[[_Plot, int], float | None]) -> str:
    """Return a tick for each column that has a value, as one path."""
    half, parts = max(plot.pitch * 0.45, 1.0), []
    for column in range(len(plot.columns)):
        decibels = value(plot, column)
        if decibels is not None and plot.scale.low <= decibels <= plot.scale.high:
            x = plot.x(column) - half
            parts.append(f"M{x:.1f} {plot.scale.height(decibels):.1f}h{2 * half:.1f}")
    return f'<path class="{kind}" d="{"".join(parts)}"/>' if parts else ""


def _line(plot: _Plot) -> str:
    """Return the inherited errors as a line, broken where a tensor has none."""
    parts, pen = [], "M"
    for column, cell in plot.cells():
        y = plot.scale.at(cell.inherited)
        if y is None:
            pen = "M"
            continue
        parts.append(f"{pen}{plot.x(column)} {y}")
        pen = "L"
    return f'<path class="inherited" d="{"".join(parts)}"/>'


def _dots(plot: _Plot) -> str:
    """Return the own errors as dots, all in one path; layers that are exact are small."""
    best = plot.scale.height(float("inf"))
    dots: list[str] = []
    exact: list[str] = []
    for column, cell in plot.cells():
        y = plot.scale.at(cell.own)
        if y is not None:
            (exact if y == best else dots).append(f"M{plot.x(column)} {y}h0")
    return f'<path class="own exact" d="{"".join(exact)}"/><path class="own" d="{"".join(dots)}"/>'


def _faults(plot: _Plot) -> Iterator[str]:
    """Yield a ring around each layer to blame, and a cross for each tensor that is lost."""
    blamed = {blame.tensor for blame in plot.report.verdicts[plot.step].blame}
    for column, cell in plot.cells():
        x, at = plot.x(column), plot.columns[column]
        lost = plot.scale.height(float("nan"))
        y = _ring(plot, cell)
        if plot.report.rows[at].tensor in blamed:
            wanted = _expected(plot, column)
            if wanted is not None and y is not None:
                yield f'<path class="excess" d="M{x} {plot.scale.height(wanted):.1f}V{y}"/>'
            yield f'<circle class="fault" cx="{x}" cy="{lost if y is None else y}" r="{_RING}"/>'
        if _lost(cell):
            yield f'<path class="lost" d="M{x - 3} {lost - 3}l6 6m0 -6l-6 6"/>'


def _ring(plot: _Plot, cell: Cell) -> float | None:
    """Return the height of the ring of a layer to blame.

    Where its codes are at fault, its own error may be none: it shows where they are read.
    """
    errors = cell.own or cell.inherited
    if errors is None or cell.codes is None or cell.codes.rounding_db > errors.sqnr_db:
        return plot.scale.at(errors)
    return round(plot.scale.height(cell.codes.rounding_db), 1)


def _targets(plot: _Plot) -> Iterator[str]:
    """Yield a link for each column, which works without a script too."""
    for column, cell in plot.cells():
        row = plot.columns[column]
        tip = f"{plot.report.rows[row].tensor}: {brief(cell)}"
        x = plot.frame.left + column * plot.pitch
        yield (
            f'<a href="#t{row}" tabindex="-1"><title>{text(tip, 200)}</title>'
            f'<rect class="target" x="{x:.1f}" y="18" width="{plot.pitch:.1f}" '
            f'height="{HEIGHT - 20}"/></a>'
        )
