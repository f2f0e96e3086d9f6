"""A check as text for a terminal, at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.gate.verdict import UNCHANGED, LayerMove, Verdict
from deploy.gate.words import METRICS, headline, row_values, sentence
from deploy.inspect.columns import columns, fit, paragraph

__all__ = ["verdict_text"]

_HEADER = (
    *("model", "metric", "outcome", "baseline", "now"),
    *("loss", "at least", "at most", "allowed"),
)
_WIDTHS = (15, 12, 11, 9, 9, 6, 8, 7, 7)  # with two spaces between: 100
_NUMBERS = 6
_LISTED = 10


def verdict_text(verdict: Verdict) -> str:
    """Return a check as text."""
    lines = [paragraph(f"{verdict.baseline}: {headline(verdict)}")]
    if verdict.rows:
        lines += ["", columns(_HEADER, _widths(verdict), _NUMBERS), *_rows(verdict)]
        lines += ["", _legend(verdict)]
    lines += _layers(verdict)
    lines += _images(verdict)
    lines += [paragraph(f"note: {note}") for note in verdict.notes]
    return "\n".join(lines)


def _widths(verdict: Verdict) -> tuple[int, ...]:
    """Make the first column as wide as it must be and may."""
    longest = max(len(row.model) for row in verdict.rows)
    return (max(5, min(_WIDTHS[0], longest)), *_WIDTHS[1:])


def _rows(verdict: Verdict) -> Iterator[str]:
    widths = _widths(verdict)
    for row in verdict.rows:
        *values, allowed = row_values(row)
        cells = (row.model, METRICS[row.metric], row.outcome.value, *values)
        cells = (*cells, allowed.replace("points", "pt"))
        yield columns(cells, widths, _NUMBERS)
    for row in verdict.rows:
        text = sentence(row)
        if text and text != UNCHANGED:
            yield paragraph(f"  {row.model}, {METRICS[row.metric]}: {text}")


def _legend(verdict: Verdict) -> str:
    sure = f"{100 * verdict.rules.confidence:g} %"
    return paragraph(
        f"Losses in the unit of what is allowed (pt: points). {sure} sure: no row says regressed "
        "in error, and no loss is beyond its “at most”."
    )


def _layers(verdict: Verdict) -> Iterator[str]:
    if not verdict.layers:
        return
    yield ""
    yield f"layers whose own SQNR moved by more than {verdict.rules.layers:g} dB"
    for move in verdict.layers[:_LISTED]:
        yield f"  {fit(move.tensor, 40):<40}  {move_text(move)}"
    if len(verdict.layers) > _LISTED:
        yield f"  … and {len(verdict.layers) - _LISTED} more"


def move_text(move: LayerMove) -> str:
    """Say from where to where a layer moved."""
    if move.now_db is None:
        return f"{move.before_db:.2f} dB → gone"
    return f"{move.before_db:.2f} → {move.now_db:.2f} dB ({move.now_db - move.before_db:+.2f})"


def _images(verdict: Verdict) -> Iterator[str]:
    if not verdict.changed:
        return
    yield ""
    yield "images answered rightly before and wrongly now"
    for changed in verdict.changed[:_LISTED]:
        yield (
            f"  {fit(changed.image, 36):<36}  {fit(changed.label, 15)}, now "
            f"{fit(changed.answer, 15)} ({fit(changed.model, 18)})"
        )
    if len(verdict.changed) > _LISTED:
        yield f"  … and {len(verdict.changed) - _LISTED} more (--json has them all)"
