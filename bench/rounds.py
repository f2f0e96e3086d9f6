"""Measure the tools in rounds, each round with plain inference in it, and take ratios.

A machine's speed drifts; a ratio of two runs of the same round drifts less. The median over
the rounds is reported, with the smallest and the largest.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import Limits, Usage, measure
from bench.tools import PLAIN, STRATA, Job, Tool, strata_command

__all__ = ["Cost", "Ratio", "Rounds", "cost", "run_rounds", "strata_steps", "together"]

Say = Callable[[str], None]
# What a run consisted of: the name of each process and what it cost.
Steps = Mapping[str, Usage]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A measured number over another, in each round."""

    median: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Cost:
    """What a tool costs over plain inference; ``peak_bytes`` and ``wall_s`` are medians."""

    wall: Ratio
    cpu: Ratio
    peak: Ratio
    wall_s: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Rounds:
    """The measurements: of plain inference, and of each tool by its key, round by round."""

    plain: tuple[Usage, ...]
    tools: Mapping[str, tuple[Steps, ...]]


def together(steps: Steps) -> Usage:
    """Return what processes cost that ran one after the other."""
    used = steps.values()
    return Usage(
        sum(usage.wall_s for usage in used),
        sum(usage.cpu_s for usage in used),
        max(usage.peak_bytes for usage in used),
        next((usage.problem for usage in used if usage.problem), ""),
    )


def cost(runs: Sequence[Usage], plain: Sequence[Usage]) -> Cost:
    """Hold a tool's runs against plain inference of the same rounds.

    Args:
        runs: One a round, at least one, none with a problem.
        plain: Plain inference, in as many rounds.
    """
    pairs = list(zip(runs, plain, strict=True))
    return Cost(
        wall=_ratio([run.wall_s / base.wall_s for run, base in pairs]),
        cpu=_ratio([run.cpu_s / base.cpu_s for run, base in pairs]),
        peak=_ratio([run.peak_bytes / base.peak_bytes for run, base in pairs]),
        wall_s=statistics.median(run.wall_s for run in runs),
        peak_bytes=int(statistics.median(run.peak_bytes for run in runs)),
    )


def _ratio(values: Sequence[float]) -> Ratio:
    return Ratio(statistics.median(values), min(values), max(values))


def run_rounds(
    tools: Sequence[Tool], job: Job, environments: Path, limits: Limits, *, rounds: int, say: Say
) -> Rounds:
    """Run plain inference and every tool, ``rounds`` times over.

    Plain inference runs once more before, unmeasured: files come from the disk only once.
    A tool that fails is not run again.

    Args:
        tools: In the order they run.
        job: What they are given.
        environments: Where the peers' environments lie.
        limits: For each process.
        rounds: One or more.
        say: Told what runs.
    """
    run = _Runner(job, environments, limits)
    plain: list[Usage] = []
    found: dict[str, list[Steps]] = {tool.key: [] for tool in tools}
    run(PLAIN)
    for number in range(1, rounds + 1):
        say(f"round {number} of {rounds}: {PLAIN.title}")
        plain.append(together(run(PLAIN)))
        if plain[-1].problem:
            raise RuntimeError(f"plain inference failed: {plain[-1].problem}")
        for tool in tools:
            before = found[tool.key]
            if before and together(before[-1]).problem:
                continue
            say(f"round {number} of {rounds}: {tool.title}")
            before.append(run(tool))
    return Rounds(tuple(plain), {key: tuple(steps) for key, steps in found.items()})


@dataclass(frozen=True, slots=True)
class _Runner:
    """Runs a tool's processes and measures each."""

    job: Job
    environments: Path
    limits: Limits

    def __call__(self, tool: Tool) -> Steps:
        """Run a tool once; stop at the first process that fails."""
        if tool is STRATA:
            commands = strata_steps(self.job)
        else:
            commands = {"quantize": tool.command(self.job, self.environments)}
        found: dict[str, Usage] = {}
        for name, command in commands.items():
            log = self.job.folder / f"{tool.key}.{name}.log"
            found[name] = measure(command, log, self.limits)
            if found[name].problem:
                break
        return found


def strata_steps(job: Job) -> dict[str, list[str]]:
    """Return the commands that take the network to INT8 with Strata."""
    statistics_file = job.folder / "statistics.npz"
    data = ["--data", job.images]
    calibrate = ["calibrate", job.model, *data, "--images", job.calibrated, "-o", statistics_file]
    quantize = ["quantize", job.model, "--statistics", statistics_file, "--method", job.method]
    quantize += ["--float", "fp32", "-o", STRATA.output(job), *(data if job.held_out else [])]
    return {"calibrate": strata_command(calibrate), "quantize": strata_command(quantize)}
