"""A check as GitHub-flavoured Markdown, for a step summary or a comment.

Names come from files and may hold anything: they are written as code, whose only way out, the
backtick, and the table's bar are taken from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deploy.gate.to_text import move_text
from deploy.gate.verdict import Outcome, Verdict
from deploy.gate.words import METRICS, headline, row_values, sentence
from deploy.inspect.columns import plain

__all__ = ["verdict_to_markdown"]

_SIGNS = {
    Outcome.HELD: "✅",
    Outcome.REGRESSED: "❌",
    Outcome.CANNOT_TELL: "❔",
    Outcome.NOT_RUN: "⚠️",
    Outcome.DRIFT: "⛔",
}
_LISTED = 20


def verdict_to_markdown(verdict: Verdict) -> str:
    """Return a check as Markdown."""
    sign = _SIGNS[verdict.outcome]
    lines = [f"### {sign} Accuracy gate: {_text(headline(verdict))}", ""]
    if verdict.drift is not None:
        lines += [_text(verdict.drift.problem), "", f"**Way out:** {_text(verdict.drift.hint)}"]
    if verdict.rows:
        lines += _rows(verdict)
    lines += _layers(verdict)
    lines += _images(verdict)
    lines += [line for note in verdict.notes for line in ("", f"> {_text(note)}")]
    return "\n".join(lines).rstrip() + "\n"


def _rows(verdict: Verdict) -> Iterator[str]:
    head = ("model", "metric", "outcome", "baseline", "now")
    yield from _head((*head, "loss", "at least", "at most", "allowed"), left=3)
    for row in verdict.rows:
        outcome = f"{_SIGNS[row.outcome]} {row.outcome.value}"
        yield _line((_code(row.model), METRICS[row.metric], outcome, *row_values(row)))
    yield ""
    for row in verdict.rows:
        if row.outcome is not Outcome.HELD and (text := sentence(row)):
            what = "" if row.metric == "run" else f", {METRICS[row.metric]}"
            yield f"- {_code(row.model)}{what}: {_text(text)}"
    sure = f"{100 * verdict.rules.confidence:g} %"
    yield ""
    yield f"<sub>{sure} sure; losses in the unit of what is allowed.</sub>"


def _layers(verdict: Verdict) -> Iterator[str]:
    if not verdict.layers:
        return
    yield from ("", "**Layers whose own SQNR moved**", "")
    yield from _head(("layer", "model", "own SQNR"), left=2)
    for move in verdict.layers[:_LISTED]:
        yield _line((_code(move.tensor), _code(move.model), move_text(move)))
    yield from _more(len(verdict.layers))


def _images(verdict: Verdict) -> Iterator[str]:
    if not verdict.changed:
        return
    count = len(verdict.changed)
    images = "1 image is" if count == 1 else f"{count:,} images are"
    yield from ("", f"<details><summary>{images} answered wrongly now</summary>", "")
    yield from _head(("image", "is", "answered", "model"), left=4)
    for changed in verdict.changed[:_LISTED]:
        cells = (changed.image, changed.label, changed.answer, changed.model)
        yield _line([_code(cell) for cell in cells])
    yield from _more(count)
    yield from ("", "</details>")


def _more(count: int) -> Iterator[str]:
    if count > _LISTED:
        yield from ("", f"… and {count - _LISTED} more.")


def _head(names: Sequence[str], *, left: int) -> Iterator[str]:
    yield _line(names)
    yield _line(["---"] * left + ["---:"] * (len(names) - left))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _code(text: str) -> str:
    return f"`{plain(text).replace('`', 'ˋ').replace('|', '¦')}`"


def _text(text: str) -> str:
    """Write a text that no reader takes for Markdown or HTML."""
    clean = plain(text)
    for sign in "\\`*_{}[]<>#|~$@":
        clean = clean.replace(sign, f"\\{sign}")
    return clean
