"""``strata inspect BUNDLE``: what is in a bundle."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from deploy.bundle.contents import Contents, read_contents
from deploy.bundle.reader import Bundle, open_bundle
from deploy.bundle.text import bundle_text
from deploy.inspect.columns import size_text

__all__ = ["print_bundle"]


def print_bundle(path: Path, *, as_json: bool) -> None:
    """Print a bundle's files, plans, preprocessing and labels.

    Raises:
        InputError: The bundle is damaged.
    """
    with open_bundle(path) as bundle:
        contents = read_contents(bundle)
        if as_json:
            click.echo(json.dumps(_json(bundle, contents), indent=2, ensure_ascii=True))
        else:
            click.echo(_text(bundle, contents))


def _text(bundle: Bundle, contents: Contents) -> str:
    spec = contents.preprocess
    rest = [
        ("images", spec.to_json() if spec else "nobody said how they are prepared"),
        ("classes", _classes(contents.labels)),
        ("identity", bundle.sha256),
    ]
    size = size_text(bundle.path.stat().st_size)
    head = f"{bundle.path}  {size}"
    manifests = [plan.manifest for plan in contents.plans]
    return bundle_text(head, manifests, bundle.index.files, rest)


def _classes(labels: tuple[str, ...]) -> str:
    if not labels:
        return "without names"
    more = ", …" if len(labels) > 10 else ""
    return f"{len(labels)}: {', '.join(labels[:10])}{more}"


def _json(bundle: Bundle, contents: Contents) -> dict[str, Any]:
    return {
        "schema": "strata.bundle_inspection/1",
        "bundle": str(bundle.path),
        "identity": bundle.sha256,
        "preprocess": asdict(contents.preprocess) if contents.preprocess else None,
        "labels": list(contents.labels),
        "plans": [
            {"file": plan.file, "manifest": plan.manifest.to_json()} for plan in contents.plans
        ],
        "files": [asdict(file) for file in bundle.index.files],
    }
