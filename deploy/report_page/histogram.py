"""The values of a tensor on both sides as a histogram, with what the codes can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deploy.comparison.values.measures import Codes, Histogram
from deploy.report_page.markup import text
from deploy.report_page.words import number

__all__ = ["histogram_svg", "holds"]

_WIDTH, _HEIGHT = 420, 150
_TOP, _BASE = 14, 128
_MARGIN = 0.6  # of the histogram's width, that the picture may be wider to show the codes' ends


def holds(codes: Codes) -> tuple[float, float]:
    """Return the smallest and the largest value that the codes can hold, of any channel."""
    widest = codes.factors[1]
    return widest * (codes.shift - codes.scale * 128.0), widest * (codes.shift + codes.amax)


def histogram_svg(histogram: Histogram, codes: Codes | None, label: str) -> str:
    """Draw a histogram; counts on a logarithmic scale, for most values are near zero."""
    span = histogram.high - histogram.low
    if not (span > 0 and math.isfinite(span)) or not histogram.reference:
        return ""
    axis = _axis(histogram, codes)
    parts = [
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(label, 300)}">',
        *_beyond(axis, codes),
        f'<path class="reference" d="{_outline(axis, histogram, histogram.reference)}"/>',
        f'<path class="candidate" d="{_outline(axis, histogram, histogram.candidate)}"/>',
        f'<path class="base" d="M0 {_BASE}H{_WIDTH}"/>',
        *_edges(axis, codes),
        *_numbers(axis),
        "</svg>",
    ]
    return "".join(parts)


@dataclass(frozen=True, slots=True)
class _Axis:
    """From values to pixels."""

    low: float
    high: float

    def at(self, value: float) -> float:
        return _WIDTH * (value - self.low) / (self.high - self.low)


def _axis(histogram: Histogram, codes: Codes | None) -> _Axis:
    """Return the axis: the histogram's, and some more where that shows an end of the codes."""
    low, high = histogram.low, histogram.high
    if codes is None:
        return _Axis(low, high)
    margin = _MARGIN * (high - low)
    least, most = holds(codes)
    return _Axis(
        least if low - margin < least < low else low, most if high < most < high + margin else high
    )


def _outline(axis: _Axis, histogram: Histogram, counts: Sequence[int]) -> str:
    """Return the steps of a histogram, from the base up and back to it."""
    most = math.log1p(max(*histogram.reference, *histogram.candidate, 1))
    left, right = axis.at(histogram.low), axis.at(histogram.high)
    width, parts, last = (right - left) / len(counts), [f"M{left:.1f} {_BASE}"], float(_BASE)
    for at, count in enumerate(counts):
        y = round(_BASE - (_BASE - _TOP) * math.log1p(count) / most, 1)
        if y != last:
            parts.append(f"H{left + at * width:.1f}V{y:.1f}")
        last = y
    return "".join([*parts, f"H{right:.1f}V{_BASE}"])


def _beyond(axis: _Axis, codes: Codes | None) -> Iterator[str]:
    """Yield a shade over the values that the codes cannot hold."""
    if codes is None:
        return
    low, high = (min(max(axis.at(v), 0.0), float(_WIDTH)) for v in holds(codes))
    for x, width in ((0.0, low), (high, _WIDTH - high)):
        if width > 0:
            yield f'<rect class="beyond" x="{x:.1f}" y="0" width="{width:.1f}" height="{_BASE}"/>'


def _edges(axis: _Axis, codes: Codes | None) -> Iterator[str]:
    """Yield a dashed line at each end of the codes that is in the picture."""
    if codes is None:
        return
    for value in holds(codes):
        x = axis.at(value)
        if not 0 <= x <= _WIDTH:
            continue
        line = min(max(x, 1.0), _WIDTH - 1.0)  # whole at the very edge too
        anchor, aside = ("start", 4) if x < _WIDTH / 2 else ("end", -4)
        yield f'<path class="amax" d="M{line:.1f} 0V{_BASE}"/>'
        yield (
            f'<text class="amax-text" x="{x + aside:.1f}" y="10" text-anchor="{anchor}">'
            f"{number(value)}</text>"
        )


def _numbers(axis: _Axis) -> Iterator[str]:
    marks = [(0.0, "start", axis.low), (float(_WIDTH), "end", axis.high)]
    zero = axis.at(0.0)
    if 60 < zero < _WIDTH - 60:
        marks.append((zero, "middle", 0.0))
    for x, anchor, value in marks:
        yield (
            f'<text class="tick" x="{x:.1f}" y="{_BASE + 15}" text-anchor="{anchor}">'
            f"{number(value)}</text>"
        )
