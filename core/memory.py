"""How much memory there is, asked before a file that unpacks to more would fill it."""

from __future__ import annotations

import re
from pathlib import Path

from core.errors import InputError

__all__ = ["memory_bytes", "require_memory"]


def memory_bytes() -> tuple[int, int]:
    """Return (free, whole) memory, within this container's limit; (0, 0) where nobody says."""
    fields = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    whole, free = (int(fields.get(name, 0)) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if limit.isdigit() and used.isdigit() and int(limit) < whole:
        return min(free, max(0, int(limit) - int(used))), int(limit)
    return free, whole


def require_memory(needed: int, *, where: str, hint: str) -> None:
    """Refuse what would fill the memory; where nobody says how much there is, refuse nothing.

    Args:
        needed: Bytes that are about to be held.
        where: The file, for the error text.
        hint: What takes less.

    Raises:
        InputError: More is needed than is free.
    """
    free, whole = memory_bytes()
    if whole and needed > free:
        raise InputError(
            f"{where} takes {needed / 2**30:.1f} GiB of memory, {free / 2**30:.1f} GiB are free",
            hint=hint,
        )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
