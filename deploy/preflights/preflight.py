"""Whether an engine fits a machine, said before it is loaded.

From the manifest and the first bytes of the plan alone; where there is a driver,
TensorRT-RTX's own check of these bytes is heard too. Nothing is loaded, and no TensorRT is
needed: each reason is a finding of its own, with a way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.errors import (
    BuildError,
    InputError,
    MissingBackendError,
    StrataError,
)
from deploy.engines.manifest import Manifest, read_manifest, verify_plan
from deploy.engines.plan_header import HEADER_BYTES, PlanHeader, parse_header, read_header
from deploy.preflights.checks import (
    driver_finding,
    flavour_finding,
    system_finding,
    version_finding,
    weights_finding,
)
from deploy.preflights.described_host import DescribedHost
from deploy.preflights.facts import Finding, PlanFacts
from deploy.preflights.gpu import gpu_finding, memory_finding
from deploy.preflights.validity import validity_here

__all__ = ["Preflight", "Verdict", "preflight", "preflight_bytes"]

Verdict = Literal["fits", "does not fit", "unknown", "not run"]


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found, in the order it was looked at."""

    engine: str
    host: str
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """All findings in one: ``fits`` only where nothing that counts is open."""
        states = {finding.state for finding in self.findings}
        if "no" in states:
            return "does not fit"
        if "not run" in states:
            return "not run"
        return "unknown" if "unknown" in states else "fits"

    @property
    def open(self) -> tuple[str, ...]:
        """What was not checked, because nobody said."""
        return tuple(f.check for f in self.findings if f.state == "not said")

    def error(self) -> StrataError | None:
        """Return the error that a verdict other than ``fits`` is; the gravest finding's.

        A plan or manifest that cannot be trusted, or weights that are elsewhere, are an
        InputError; a GPU, version, system or driver that the plan is not for is a BuildError;
        what is missing (TensorRT, a GPU) or not known is a MissingBackendError.
        """
        by_state = {
            state: [f for f in self.findings if f.state == state]
            for state in ("no", "not run", "unknown")
        }
        refused = by_state["no"]
        for checks, kind in _GRAVITY:
            for finding in refused:
                if finding.check in checks:
                    return kind(f"{self.engine}: {finding.note}", hint=finding.hint)
        for finding in (*by_state["not run"], *by_state["unknown"]):
            return MissingBackendError(
                f"{self.engine}: {finding.check}: {finding.state}: {finding.note}",
                hint=finding.hint,
            )
        return None


_GRAVITY: tuple[tuple[frozenset[str], type[StrataError]], ...] = (
    (frozenset({"plan", "weights"}), InputError),
    (frozenset({"gpu", "version", "system", "driver", "memory", "tensorrt"}), BuildError),
    (frozenset({"flavour"}), MissingBackendError),
)


def preflight(engine: Path, host: DescribedHost) -> Preflight:
    """Look whether an engine fits a machine.

    Args:
        engine: The plan; its manifest lies beside it.
        host: This machine, or a described one.

    Raises:
        InputError: The plan cannot be read at all.
    """
    header = read_header(engine)
    whole, manifest = _plan_finding(engine, header)
    plan = PlanFacts.of(header, manifest, engine.stat().st_size)
    found = _fit(plan, host, engine if whole.state == "yes" else None)
    weights = weights_finding(engine, manifest, host) if manifest else ()
    return Preflight(str(engine), host.name, (whole, *weights, *found))


def preflight_bytes(plan: bytes, manifest: Manifest, host: DescribedHost) -> Preflight:
    """Look whether a plan that was read from a bundle fits a machine.

    Args:
        plan: Its bytes, whose digest is the manifest's.
        manifest: Its manifest.
        host: This machine, or a described one.
    """
    facts = PlanFacts.of(parse_header(plan[:HEADER_BYTES]), manifest, len(plan))
    found = (_whole(manifest), *_fit(facts, host, plan))
    return Preflight(manifest.plan, host.name, found)


def _fit(plan: PlanFacts, host: DescribedHost, whole: Path | bytes | None) -> Iterator[Finding]:
    """Yield what is said of a plan; ``whole`` is it, unless it cannot be trusted."""
    if not plan.flavour:
        return
    yield flavour_finding(plan, host)
    yield version_finding(plan, host)
    yield gpu_finding(plan, host)
    yield system_finding(plan, host)
    yield driver_finding(plan, host)
    yield from memory_finding(plan, host)
    if host.here and host.gpus and plan.flavour == "rtx" and whole is not None:
        yield from validity_here(whole)


def _plan_finding(engine: Path, header: PlanHeader) -> tuple[Finding, Manifest | None]:
    """Tell whether the plan is the one that its manifest describes."""
    try:
        manifest = verify_plan(engine)
    except InputError as err:
        if header.flavour is None and "manifest" in err.problem:
            note = "not a TensorRT plan, as far as its first bytes tell, and it has no manifest"
            return Finding("plan", "no", note, err.hint), None
        note = err.problem.removeprefix(f"{engine}: ")
        return Finding("plan", "no", note, err.hint), _readable(engine)
    return _whole(manifest), manifest


def _whole(manifest: Manifest) -> Finding:
    digest = f"sha256 {manifest.plan_sha256[:12]}…"
    return Finding("plan", "yes", f"its bytes are those of its manifest ({digest})")


def _readable(engine: Path) -> Manifest | None:
    try:
        return read_manifest(engine)
    except InputError:
        return None
