"""What a preflight found, as a table and as JSON."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from deploy.inspect.columns import plain

if TYPE_CHECKING:
    from deploy.preflights.preflight import Preflight

__all__ = ["to_json", "to_text"]

_INDENT = 22  # where the last column of the table begins
_COLOURS = {"yes": "green", "no": "red", "unknown": "yellow", "not run": "yellow"}


def to_json(found: Preflight) -> dict[str, Any]:
    """Return the findings as a JSON object."""
    return {
        "schema": "strata.preflight/1",
        "engine": found.engine,
        "host": found.host,
        "verdict": found.verdict,
        "not_checked": list(found.open),
        "findings": [asdict(finding) for finding in found.findings],
    }


def to_text(found: Preflight) -> str:
    """Return the findings as a table of at most 100 columns."""
    lines = [plain(f"{found.engine} on {found.host}")]
    for finding in found.findings:
        note = _wrapped(finding.note, "")
        state = click.style(f"{finding.state:<8}", fg=_COLOURS.get(finding.state))
        lines.append(f"  {finding.check:<8}  {state}  {note}")
        if finding.hint and finding.state not in {"yes", "not said"}:
            lines.append(" " * _INDENT + _wrapped(finding.hint, "→ "))
    verdict: str = found.verdict
    if verdict == "fits" and found.open:
        verdict = f"fits, as far as was said ({', '.join(found.open)}: not checked)"
    return "\n".join([*lines, click.style(verdict, bold=True)])


def _wrapped(text: str, lead: str) -> str:
    """Return a text in lines of at most 100 columns, for the last column of the table."""
    indent = " " * (_INDENT + len(lead))
    width = 100 - len(indent)
    lines = textwrap.wrap(plain(text), width, break_on_hyphens=False)
    return lead + f"\n{indent}".join(lines)
