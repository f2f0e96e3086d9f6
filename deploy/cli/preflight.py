"""``strata preflight``: whether an engine fits, before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import click

from deploy.cli.preflight_text import to_json, to_text

__all__ = ["command"]


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
    from deploy.preflights.described_host import described_host, this_host
    from deploy.preflights.preflight import preflight

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
