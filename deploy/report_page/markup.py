"""Texts into HTML: whatever a hostile file calls its tensors, it stays text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from deploy.inspect.columns import fit

__all__ = ["LONGEST", "embedded", "facts", "head_row", "link", "name", "said", "text"]

LONGEST = 120  # characters of a name that are shown; layers.json has it whole
_SENTENCE = 600


def text(value: object, longest: int = LONGEST) -> str:
    """Return a text for HTML, inside an element or a quoted attribute.

    Control characters and marks that turn the direction of writing are replaced: they could
    make one name look like another. A very long text is shortened in its middle.
    """
    return escape(fit(str(value), longest))


def said(sentence: str) -> str:
    """Return a sentence that may hold names."""
    return f"<bdi>{text(sentence, _SENTENCE)}</bdi>"


def name(value: str) -> str:
    """Return a name of a tensor, file or class, set apart so that it turns nothing beside it."""
    return f'<bdi class="name">{text(value)}</bdi>'


def link(row: int, label: str, kind: str = "") -> str:
    """Return a link to a row of the table of all tensors."""
    attribute = f' class="{kind}"' if kind else ""
    return f'<a href="#t{row}"{attribute}>{name(label)}</a>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Return (term, HTML) as a list of facts."""
    return "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in pairs)


def head_row(columns: Sequence[tuple[str, bool]]) -> str:
    """Return the head of a table from (title, whether it is of numbers)."""
    cells = "".join(
        f'<th scope="col"{" class=num" if number else ""}>{title}</th>' for title, number in columns
    )
    return f"<thead><tr>{cells}</tr></thead>"


def embedded(value: Any) -> str:
    """Return JSON that can stand in a script element: nothing in it ends the element.

    Its texts are made plain and are shortened as :func:`said` does.
    """
    shown = json.dumps(_plain(value), ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return shown.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return fit(value, _SENTENCE)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
