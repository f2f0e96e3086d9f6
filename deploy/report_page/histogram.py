"""The values of a tensor on both sides as a histogram, with what the codes can hold."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from deploy.comparison.measures import Codes, Histogram
from deploy.report_page.markup import text
from deploy.report_page.words import number

__all__ = ["histogram_svg", "holds"]

_WIDTH, _HEIGHT = 420, 150
_TOP, _BASE = 14, 128


def holds(codes: Codes) -> tuple[float, float]:
    """Return the smallest and the largest value that the codes can hold."""
    return codes.shift - codes.scale * 128.0, codes.shift + codes.amax


def histogram_svg(histogram: Histogram, codes: Codes | None, label: str) -> str:
    """Draw a histogram; counts on a logarithmic scale, for most values are near zero."""
    span = histogram.high - histogram.low
    if not (span > 0 and math.isfinite(span)) or not histogram.reference:
        return ""
    parts = [
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{text(label, 300)}">',
        *_beyond(histogram, codes),
        f'<path class="reference" d="{_outline(histogram, histogram.reference)}"/>',
        f'<path class="candidate" d="{_outline(histogram, histogram.candidate)}"/>',
        f'<path class="base" d="M0 {_BASE}H{_WIDTH}"/>',
        *_edges(histogram, codes),
        *_numbers(histogram),
        "</svg>",
    ]
    return "".join(parts)


def _outline(histogram: Histogram, counts: Sequence[int]) -> str:
    """Return the steps of a histogram, from the base up and back to it."""
    most = math.log1p(max(*histogram.reference, *histogram.candidate, 1))
    width, parts, last = _WIDTH / len(counts), [f"M0 {_BASE}"], float(_BASE)
    for at, count in enumerate(counts):
        y = round(_BASE - (_BASE - _TOP) * math.log1p(count) / most, 1)
        if y != last:
            parts.append(f"H{at * width:.1f}V{y:.1f}")
        last = y
    return "".join([*parts, f"H{_WIDTH}V{_BASE}"])


def _place(histogram: Histogram, value: float) -> float:
    return _WIDTH * (value - histogram.low) / (histogram.high - histogram.low)


def _beyond(histogram: Histogram, codes: Codes | None) -> Iterator[str]:
    """Yield a shade over the values that the codes cannot hold."""
    if codes is None:
        return
    low, high = (min(max(_place(histogram, v), 0.0), float(_WIDTH)) for v in holds(codes))
    for x, width in ((0.0, low), (high, _WIDTH - high)):
        if width > 0:
            yield f'<rect class="beyond" x="{x:.1f}" y="0" width="{width:.1f}" height="{_BASE}"/>'


def _edges(histogram: Histogram, codes: Codes | None) -> Iterator[str]:
    """Yield a dashed line at each end of the codes that is in the picture."""
    if codes is None:
        return
    for value, anchor, aside in zip(holds(codes), ("start", "end"), (4, -4), strict=True):
        x = _place(histogram, value)
        if 0 <= x <= _WIDTH:
            yield f'<path class="amax" d="M{x:.1f} 0V{_BASE}"/>'
            yield (
                f'<text class="amax-text" x="{x + aside:.1f}" y="10" text-anchor="{anchor}">'
                f"{number(value)}</text>"
            )


def _numbers(histogram: Histogram) -> Iterator[str]:
    low, high = histogram.low, histogram.high
    marks = [(0.0, "start", low), (float(_WIDTH), "end", high)]
    zero = _place(histogram, 0.0)
    if 60 < zero < _WIDTH - 60:
        marks.append((zero, "middle", 0.0))
    for x, anchor, value in marks:
        yield (
            f'<text class="tick" x="{x:.1f}" y="{_BASE + 15}" text-anchor="{anchor}">'
            f"{number(value)}</text>"
        )
