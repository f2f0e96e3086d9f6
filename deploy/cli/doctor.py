"""``strata doctor``: what works on this machine, and how to get the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import click

from deploy.doctor import Verdict, diagnose
from deploy.machines.machine import Machine, examine

__all__ = ["command"]

_COLOURS = {"yes": "green", "needs": "yellow", "no": "red"}
_FEATURES_TO_MISS = ("AVX-512", "VNNI", "BF16")  # that change how a stage runs


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(as_json: bool) -> None:
    """Say what works on this machine, and how to get the rest."""
    machine = examine(Path("build"))
    verdicts = diagnose(machine)
    if as_json:
        facts = {"machine": asdict(machine), "stages": [asdict(v) for v in verdicts]}
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    click.echo("\n".join(_lines(machine, verdicts)))


def _lines(machine: Machine, verdicts: Iterable[Verdict]) -> list[str]:
    rows = [
        ("Python", f"{machine.python}, {machine.system}, {machine.architecture}"),
        ("CPU", _cpu(machine)),
        ("memory", _of(machine.memory_bytes)),
        ("disk", f"{_of(machine.disk_bytes)}, where build/ lies"),
        *_gpus(machine),
        ("TensorRT", _versions(machine.flavours.items()) or "none"),
        ("libraries", _versions((n, v) for n, v in machine.libraries.items() if v)),
    ]
    missing = [name for name, version in machine.libraries.items() if not version]
    if missing:
        rows.append(("missing", ", ".join(missing)))
    width = max(len(verdict.stage) for verdict in verdicts)
    return [
        click.style("This machine", bold=True),
        *(f"  {name:<10} {text}" for name, text in rows),
        click.style("What works here", bold=True),
        *(f"  {v.stage:<{width}}  {_state(v)}" for v in verdicts),
    ]


def _state(verdict: Verdict) -> str:
    state = click.style(verdict.state, fg=_COLOURS[verdict.state])
    return f"{state}{' ' * (7 - len(verdict.state))}{verdict.note}" if verdict.note else state


def _cpu(machine: Machine) -> str:
    cpu = machine.cpu
    cores = "1 core" if cpu.cores == 1 else f"{cpu.cores} cores"
    missing = [name for name in _FEATURES_TO_MISS if name not in cpu.features]
    without = f"; no {', '.join(missing)}" if missing else ""
    return f"{cpu.model}, {cores}: {', '.join(cpu.features) or 'no vector units known'}{without}"


def _of(sizes: tuple[int, int]) -> str:
    free, whole = sizes
    return f"{free / 1e9:.1f} of {whole / 1e9:.1f} GB free"


def _gpus(machine: Machine) -> list[tuple[str, str]]:
    gpus = machine.gpus
    rows = [
        ("GPU", f"{gpu.name}, {gpu.capability}, {gpu.memory_bytes / 1e9:.1f} GB")
        for gpu in gpus.devices
    ] or [("GPU", f"none: {gpus.problem}")]
    if gpus.driver or gpus.cuda:
        rows.append(("driver", f"{gpus.driver or 'unknown'}, CUDA up to {gpus.cuda or 'unknown'}"))
    if machine.jetson:
        rows.append(("Jetson", f"L4T {machine.jetson}"))
    return rows


def _versions(found: Iterable[tuple[str, str | None]]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found)
