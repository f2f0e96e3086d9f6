"""``strata preflight BUNDLE``: each of its plans, and how the bundle would run."""

from __future__ import annotations

import json
from pathlib import Path

import click

from core.errors import StrataError
from deploy.bundle.choose import Way, choose, plan_preflights
from deploy.bundle.contents import read_contents
from deploy.bundle.reader import open_bundle
from deploy.cli.preflight_text import to_json, to_text
from deploy.inspect.columns import plain
from deploy.preflights.described_host import DescribedHost

__all__ = ["print_bundle"]


def print_bundle(path: Path, host: DescribedHost, *, as_json: bool) -> None:
    """Print whether each plan of a bundle fits, and what ``strata run`` would do there.

    Raises:
        InputError: The bundle is damaged.
        BuildError: Nothing that is installed there serves its GPU.
        MissingBackendError: No TensorRT is there.
    """
    error: StrataError | None = None
    with open_bundle(path) as bundle:
        contents = read_contents(bundle)
        found = plan_preflights(bundle, contents, host)
        try:
            verdict = _way(choose(bundle, contents, host))
        except StrataError as err:
            verdict, error = f"does not run there: {err.problem}", err
    if as_json:
        plans = [to_json(preflight) | {"file": plan.file} for plan, preflight in found]
        facts = {
            "schema": "strata.bundle_preflight/1",
            "bundle": str(path),
            "host": host.name,
            "runs": error is None,
            "verdict": verdict,
            "plans": plans,
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=True))
    else:
        texts = [f"{plain(plan.file)}\n{to_text(preflight)}" for plan, preflight in found]
        click.echo("\n".join([*texts, click.style(plain(f"strata run: {verdict}"), bold=True)]))
    if error is not None:
        raise error


def _way(way: Way) -> str:
    if way.plan is not None:
        return f"by {way.plan.file}"
    if way.kind == "build":
        return f"builds a plan from the graph, once, with the flavour {way.flavour}"
    return "; ".join(way.notes)
