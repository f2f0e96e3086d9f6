"""A bundle for people: its plans and its files in lines."""

from __future__ import annotations

from collections.abc import Sequence

from deploy.bundle.index import File
from deploy.engines.manifest import Manifest
from deploy.inspect.columns import facts_text, plain, size_text
from deploy.preflights.facts import FLAVOUR_NAMES

__all__ = ["bundle_text", "plan_text"]


def plan_text(manifest: Manifest) -> str:
    """Return ``TensorRT-RTX 1.7.1.116 for sm80, sm86, batch 1 to 32, 30.9 MB``."""
    name = manifest.inputs[0].name
    batches = []
    for profile in manifest.profiles:
        low, high = profile[name].min[0], profile[name].max[0]
        batches.append(str(low) if low == high else f"{low} to {high}")
    what = [
        f"{FLAVOUR_NAMES[manifest.flavour]} {manifest.version} for "
        f"{', '.join(manifest.targets) or 'GPUs that it does not name'}",
        f"batch {' and '.join(batches)}" if batches else "",
        size_text(manifest.plan_bytes),
    ]
    return ", ".join(filter(None, what))


def bundle_text(
    head: str,
    manifests: Sequence[Manifest],
    files: Sequence[File],
    rest: Sequence[tuple[str, str]],
) -> str:
    """Return a bundle in lines of at most 100 columns.

    Args:
        head: The first line.
        manifests: Of its plans.
        files: What is in it.
        rest: What else to say of it, (key, text) each.
    """
    plans = [("plan", plan_text(manifest)) for manifest in manifests]
    names = [(size_text(file.bytes), f"{file.name}  {file.sha256[:12]}…") for file in files]
    parts = [facts_text(rows) for rows in (plans, names, rest) if rows]
    return "\n".join([plain(head), *parts])
