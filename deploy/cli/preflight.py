"""``strata preflight``: whether an engine fits, before anything is loaded."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.inspect.columns import plain

if TYPE_CHECKING:
    from deploy.preflight import Preflight

__all__ = ["command", "to_json", "to_text"]

_INDENT = 22  # where the last column of the table begins
_COLOURS = {"yes": "green", "no": "red", "unknown": "yellow", "not run": "yellow"}


@click.command("preflight")
@click.argument("engine", type=click.Path(path_type=Path))
@click.option(
    "--host",
    metavar="FACTS",
    help='Another machine: sm86, "RTX 3090, driver 580, linux, tensorrt-rtx 1.7.1", '
    "or the file that strata doctor --json wrote there.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
def command(engine: Path, host: str | None, as_json: bool) -> None:
    """Say whether an engine fits this machine, or a described one.

    ENGINE is a plan, or a bundle: then each of its plans, and how strata run would run it.
    Nothing is loaded: the manifest and the first bytes of the plan tell. What a description
    leaves out is not checked. Ends with 0 when it fits; 2 when plan or manifest is broken,
    changed or another's; 6 when GPU, version, system or driver are not those it is for; 3
    when TensorRT or a GPU is missing, or it is not known.
    """
    from deploy.bundle.reader import is_bundle
    from deploy.described_host import described_host, this_host
    from deploy.preflight import preflight

    machine = this_host() if host is None else described_host(host)
    if is_bundle(engine):
        from deploy.cli.preflight_bundle import print_bundle

        print_bundle(engine, machine, as_json=as_json)
        return
    found = preflight(engine, machine)
    click.echo(json.dumps(to_json(found), indent=2) if as_json else to_text(found))
    error = found.error()
    if error is not None:
        raise error


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
    lines = [f"{found.engine} on {found.host}"]
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
