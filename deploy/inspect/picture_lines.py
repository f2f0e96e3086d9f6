"""The lines of an engine's picture: activations on their way, as thick as they are large."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from xml.sax.saxutils import escape

from deploy.inspect.columns import plain, precision
from deploy.inspect.kernels import CODES, KernelGraph
from deploy.inspect.layout import Edge

__all__ = ["COLOURS", "Unit", "lines", "tensor_colour", "unit_of"]

# What a kernel or a tensor is → colour, told apart by people who see no red or green too.
# Source: Okabe and Ito, "Color Universal Design", 2008.
COLOURS = {
    "codes": "#3fbf94",
    "widening": "#e9a820",
    "float16": "#6fbdea",
    "float32": "#b9b9c2",
    "other": "#d899bd",
}
_LARGE = 0.5e6  # bytes an image, from which MB are told


@dataclass(frozen=True, slots=True)
class Unit:
    """What sizes are written in, with ``places`` behind the point."""

    name: str
    bytes: float
    places: int

    def text(self, count: float | None) -> str:
        """Write a number of bytes without its unit."""
        if count is None:
            return "?"
        least = 10.0**-self.places
        size = count / self.bytes
        return f"{size:.{self.places}f}" if size >= least / 2 else f"<{least:g}"


def unit_of(edges: Iterable[Edge], graph: KernelGraph) -> Unit:
    """Return the unit that fits the largest tensor: small images make small ones."""
    largest = max((edge.tensor.bytes or 0 for edge in edges), default=0) / graph.batch
    return Unit("MB", 1e6, 2) if largest >= _LARGE else Unit("kB", 1e3, 1)


def lines(edges: Iterable[Edge], graph: KernelGraph, unit: Unit) -> list[str]:
    """Return a line for each tensor, and above all lines the sizes, so that none is crossed."""
    found = list(edges)
    largest = max((edge.tensor.bytes or 0 for edge in found), default=0) or 1
    paths = [_marker(name, colour) for name, colour in COLOURS.items()]
    sizes = []
    for edge in found:
        colour = tensor_colour(edge.tensor.dtype)
        count = edge.tensor.bytes
        said = unit.text(None if count is None else count / graph.batch)
        tip = f"{edge.tensor.name}: {precision(edge.tensor.dtype)} {said} {unit.name} an image"
        width = 1.2 + 4 * math.sqrt((count or 0) / largest)
        paths.append(
            f'<path class="line" d="{edge.path}" stroke="{COLOURS[colour]}" '
            f'stroke-width="{width:.1f}" marker-end="url(#{colour})">'
            f"<title>{escape(plain(tip))}</title></path>"
        )
        x, y = edge.label_at
        sizes.append(
            f'<text class="size ink" x="{x:.0f}" y="{y:.0f}" text-anchor="middle">'
            f"{escape(said)}</text>"
        )
    return [*paths, *sizes]


def _marker(name: str, colour: str) -> str:
    return (
        f'<marker id="{name}" viewBox="0 0 6 6" refX="1" refY="3" markerWidth="6" '
        f'markerHeight="6" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0L6 3L0 6z" fill="{colour}"/></marker>'
    )


def tensor_colour(dtype: str) -> str:
    """Return the name in :data:`COLOURS` of a tensor's type."""
    if dtype in CODES:
        return "codes"
    return {"float16": "float16", "float32": "float32"}.get(dtype, "other")
