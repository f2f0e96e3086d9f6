"""A plan and its manifest on the disk, written as one."""

from __future__ import annotations

from pathlib import Path

from core.artifacts import write_whole
from deploy.engines.manifest import Manifest, manifest_path

__all__ = ["write_engine"]


def write_engine(plan: memoryview, manifest: Manifest, output: Path) -> None:
    """Write both whole: the plan takes its place first, its manifest right after.

    Raises:
        OutputError: One of them cannot be written; the old pair stays.
    """
    with write_whole(manifest_path(output)) as note:
        note.write_text(manifest.to_text(), encoding="utf-8")
        with write_whole(output) as file:
            file.write_bytes(plan)
