"""Plans that a device built from a bundle's ONNX file, kept for the next time.

A plan serves one graph, one flavour in one version, one kind of GPU and one range of batches:
these name its folder. The first of several processes builds, the others wait for it. A plan
that is damaged is built again. Beside the plans lie the kernels that TensorRT-RTX compiles
when it starts.

The cache lies in ``$STRATA_CACHE``, else ``$XDG_CACHE_HOME/strata``, else ``~/.cache/strata``; it
may be removed at any time.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from core.errors import InputError, OutputError
from deploy.engines.manifest import Manifest, verify_plan

__all__ = ["PlanKey", "cache_folder", "cached_plan", "kernel_file"]


@dataclass(frozen=True, slots=True)
class PlanKey:
    """What a plan was built for; a plan for anything else is another plan."""

    model_sha256: str
    flavour: str
    version: str
    gpu: str
    batches: tuple[str, ...]

    @property
    def folder(self) -> str:
        """The folder of this plan in the cache."""
        what = "-".join((self.flavour, self.version, self.gpu, *self.batches))
        return f"{self.model_sha256[:16]}/{re.sub('[^A-Za-z0-9.]+', '_', what)}"


def cache_folder() -> Path:
    """Return where plans are kept."""
    own = os.environ.get("STRATA_CACHE")
    if own:
        return Path(own)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "strata"


def kernel_file(plan_sha256: str, version: str) -> Path:
    """Return where the kernels that TensorRT-RTX compiles for a plan are kept."""
    return cache_folder() / "kernels" / f"{plan_sha256[:16]}-{version}.bin"


def cached_plan(key: PlanKey, build: Callable[[Path], None]) -> tuple[Path, Manifest, bool]:
    """Return the plan of a key, built if it is not there yet.

    Args:
        key: What it is for.
        build: Writes a plan, and its manifest beside it, to the path it is given.

    Returns:
        The plan, its manifest, and whether it was built just now.

    Raises:
        OutputError: The cache cannot be written.
    """
    plan = cache_folder() / key.folder / "model.engine"
    with _alone(plan.parent):
        manifest = _kept(plan, key)
        if manifest is not None:
            return plan, manifest, False
        build(plan)
        return plan, verify_plan(plan), True


def _kept(plan: Path, key: PlanKey) -> Manifest | None:
    """Return the manifest of a plan that is there, whole, and of this key."""
    try:
        manifest = verify_plan(plan)
    except InputError:
        return None
    same = (manifest.parents.get("onnx"), manifest.flavour, manifest.version)
    return manifest if same == (key.model_sha256, key.flavour, key.version) else None


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder of the cache; it ends with the process at the latest."""
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = stack.enter_context((folder / ".lock").open("wb"))
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as err:
            raise OutputError(
                f"{folder}: built plans cannot be kept there ({err.strerror or err})",
                hint="name another folder in the environment variable STRATA_CACHE",
            ) from err
        yield
