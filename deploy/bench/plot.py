"""A bench as a picture: each turn's time along the run, and each round's ratio, as SVG.

A verdict is one number; the picture shows whether the machine drifted, was disturbed, or had
two speeds. Nothing is told by colour alone: the first model is dots, the second crosses.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from deploy.bench.figures import Ratio, round_ratios
from deploy.bench.result import BatchTimes, Bench
from deploy.bench.to_text import milliseconds, processor_text, verdict_lines
from deploy.inspect.columns import fit

__all__ = ["bench_svg"]

_WIDTH, _HEAD, _ROW = 960, 92, 214
_TOP, _HEIGHT = 34, 140  # of a plot inside its row
_TIMES = (78.0, 560.0)  # left and right end of the plot of times
_RATIOS = (660.0, 940.0)
_HIGHEST = 2.0  # times the median: calls that were disturbed more are drawn at the edge
_STYLE = """svg{color-scheme:light dark;font:13px system-ui,sans-serif}
.paper{fill:light-dark(#fff,#14161a)}
text{fill:light-dark(#1a1d23,#e7e9ee)}
.soft{fill:light-dark(#59616f,#a4acb9);font-size:12px}
.head{font-size:17px;font-weight:600}
.end{text-anchor:end}
.grid{stroke:light-dark(#dfe3e8,#30353e);fill:none}
.one{stroke:light-dark(#59616f,#a4acb9);stroke-dasharray:4 3;fill:none}
.first{stroke:light-dark(#1b69ac,#6cb4ec);stroke-width:5;stroke-linecap:round;fill:none}
.second{stroke:light-dark(#b4480c,#f2a154);stroke-width:1.6;fill:none}
.ratio{stroke:light-dark(#1a1d23,#e7e9ee);stroke-width:5;stroke-linecap:round;fill:none}
.band{fill:light-dark(#b4480c,#f2a154);opacity:.2}"""


@dataclass(frozen=True, slots=True)
class _Scale:
    """Values from ``low`` to ``high``, drawn from the bottom of a plot to its top."""

    low: float
    high: float
    top: float

    def at(self, value: float) -> float:
        inside = min(max(value, self.low), self.high)
        return round(self.top + _HEIGHT * (self.high - inside) / (self.high - self.low), 1)


def bench_svg(bench: Bench) -> str:
    """Return the text of an SVG file: a row of plots for each batch size."""
    height = _HEAD + _ROW * len(bench.batches)
    title = " against ".join(model.title for model in bench.models)
    said = verdict_lines(bench) or [bench.models[0].backend]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" role="img" aria-labelledby="title summary">',
        f'<title id="title">{_words(title, 200)}: time of a call</title>',
        f'<desc id="summary">{_words("; ".join(said), 2000)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
        f'<text class="head" x="16" y="32">{_words(title, 90)}</text>',
        *_legend(bench),
    ]
    for at, times in enumerate(bench.batches):
        sentence = said[at] if len(bench.models) > 1 else f"batch {times.batch}"
        parts += _row(times, sentence, _HEAD + _ROW * at)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _words(text: str, longest: int) -> str:
    return escape(fit(text, longest))


def _legend(bench: Bench) -> Iterator[str]:
    x = 16.0
    for at, model in enumerate(bench.models):
        yield _marks([(x + 5, 56.0)], second=at == 1)
        yield f'<text class="soft" x="{x + 16}" y="60">{_words(model.title, 50)}</text>'
        x += 36 + 6.6 * min(50, len(model.title))
    where = processor_text(bench) if bench.gpu is None else bench.gpu.text()
    yield f'<text class="soft" x="16" y="80">{_words(where, 140)}</text>'


def _row(times: BatchTimes, sentence: str, y: float) -> Iterator[str]:
    yield f'<text x="16" y="{y + 18:.0f}">{_words(sentence, 150)}</text>'
    yield from _times(times, y + _TOP)
    if times.ratio is not None:
        yield from _ratios(times.ratio, round_ratios(*times.turns_ms), y + _TOP)


def _times(times: BatchTimes, top: float) -> Iterator[str]:
    medians = [statistics.median(turns) for turns in times.turns_ms]
    lowest = min(min(turns) for turns in times.turns_ms)
    highest = min(max(map(max, times.turns_ms)), _HIGHEST * max(medians))
    scale = _Scale(0.95 * lowest, max(1.05 * highest, 1.1 * lowest), top)
    yield from _frame(_TIMES, top)
    for value in sorted({scale.low, *medians, scale.high}):
        yield from _tick(_TIMES, scale.at(value), f"{milliseconds(value)} ms")
    for at, turns in enumerate(times.turns_ms):
        step = (_TIMES[1] - _TIMES[0]) / len(turns)
        points = [(_TIMES[0] + (i + 0.5) * step, scale.at(ms)) for i, ms in enumerate(turns)]
        yield _marks(points, second=at == 1)
    yield from _below(_TIMES, top, f"{len(times.turns_ms[0])} turns, in their order")


def _ratios(ratio: Ratio, rounds: Sequence[float], top: float) -> Iterator[str]:
    low = min(0.97, 0.98 * min(*rounds, ratio.low))
    high = max(1.03, 1.02 * max(*rounds, ratio.high))
    scale = _Scale(max(low, ratio.value / _HIGHEST), min(high, ratio.value * _HIGHEST), top)
    left, right = _RATIOS
    upper, lower = scale.at(ratio.high), scale.at(ratio.low)
    yield from _frame(_RATIOS, top)
    yield (
        f'<rect class="band" x="{left}" y="{upper}" width="{right - left}" '
        f'height="{max(1.0, lower - upper):.1f}"/>'
    )
    if scale.low <= 1 <= scale.high:
        yield f'<path class="one" d="M{left} {scale.at(1)}H{right}"/>'
    for value in sorted({scale.low, ratio.value, scale.high}):
        yield from _tick(_RATIOS, scale.at(value), f"{value:.2f}×")
    step = (right - left) / len(rounds)
    points = "".join(
        f"M{left + (at + 0.5) * step:.1f} {scale.at(value)}h0" for at, value in enumerate(rounds)
    )
    yield f'<path class="ratio" d="{points}"/>'
    yield from _below(_RATIOS, top, f"second over first in {len(rounds)} rounds; 95 % band")


def _frame(ends: tuple[float, float], top: float) -> Iterator[str]:
    left, right = ends
    yield f'<path class="grid" d="M{left} {top}V{top + _HEIGHT}H{right}"/>'


def _tick(ends: tuple[float, float], y: float, said: str) -> Iterator[str]:
    yield f'<path class="grid" d="M{ends[0]} {y}H{ends[1]}"/>'
    yield f'<text class="soft end" x="{ends[0] - 6}" y="{y + 4:.1f}">{said}</text>'


def _below(ends: tuple[float, float], top: float, said: str) -> Iterator[str]:
    yield f'<text class="soft" x="{ends[0]}" y="{top + _HEIGHT + 18:.0f}">{said}</text>'


def _marks(points: Sequence[tuple[float, float]], *, second: bool) -> str:
    """Return dots, or crosses, in one path."""
    if second:
        drawn = "".join(f"M{x - 3:.1f} {y - 3:.1f}l6 6m0 -6l-6 6" for x, y in points)
    else:
        drawn = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
    return f'<path class="{"second" if second else "first"}" d="{drawn}"/>'
