"""Text for people: cells in columns, sizes, and names that may hold anything."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

__all__ = [
    "WIDTH",
    "columns",
    "facts_text",
    "fit",
    "paragraph",
    "plain",
    "precision",
    "shape_text",
    "size_text",
]

WIDTH = 100

_PRECISIONS = {
    "float32": "FP32",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float64": "FP64",
    "float8e4m3": "FP8",
    "float4e2m1": "FP4",
    "int8": "INT8",
    "int4": "INT4",
}


def precision(dtype: str) -> str:
    """Return what people call an element type: ``FP16``; ``?`` when it is not known."""
    return _PRECISIONS.get(dtype, dtype) or "?"


def plain(text: str) -> str:
    """Return a text without line breaks and control characters; a name may hold any."""
    return "".join(c if c.isprintable() else "�" for c in text)


def fit(text: str, width: int) -> str:
    """Shorten a text in its middle: its ends tell most."""
    clean = plain(text)
    if len(clean) <= width:
        return clean
    head = (width - 1) // 2
    return f"{clean[:head]}…{clean[head + 1 - width :]}"


def columns(cells: Sequence[str], widths: Sequence[int], numbers: int) -> str:
    """Return cells side by side, two spaces between; the last ``numbers`` to the right."""
    first_number = len(cells) - numbers
    parts = [
        fit(cell, width).ljust(width) if at < first_number else fit(cell, width).rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts).rstrip()


def paragraph(text: str) -> str:
    """Return a text in lines of at most 100 columns."""
    return textwrap.fill(plain(text), WIDTH, break_on_hyphens=False)


def facts_text(rows: Iterable[tuple[str, str]]) -> str:
    """Return (key, text) in lines of at most 100 columns, the texts one below the other."""
    return "\n".join(
        textwrap.fill(
            f"{key:<8} {plain(text)}",
            WIDTH,
            initial_indent="  ",
            subsequent_indent=" " * 11,
            break_on_hyphens=False,
        )
        if key
        else " " * 11 + plain(text)
        for key, text in rows
    )


def size_text(size: float | None) -> str:
    """Return a size in B, kB or MB; ``?`` when it is not known."""
    if size is None:
        return "? MB"
    if size >= 1e5:
        return f"{size / 1e6:.{1 if size >= 1e7 else 2}f} MB"
    return f"{size / 1e3:.1f} kB" if size >= 1e3 else f"{size:.0f} B"


def shape_text(shape: Iterable[int | None]) -> str:
    """Return ``64×112×112``."""
    return "×".join("?" if n is None else str(n) for n in shape)
