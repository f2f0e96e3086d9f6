"""The measurements as a table to read, a Markdown table, and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.quality import Quality
from bench.rounds import Cost, Ratio
from bench.tools import Job, Tool
from core.artifacts import sha256_file
from deploy.images import Images
from deploy.machines.machine import Machine

__all__ = ["Report", "Row", "codes_text", "setting_of"]

_LOCKS = Path(__file__).parent / "peers"

# What a reader wants to know the version of, of each environment.
_NAMED = ("onnxruntime", "nncf", "openvino", "nvidia-modelopt", "torch", "numpy")
_HEAD = ("wall ×", "CPU ×", "peak ×", "peak MiB")
_QUALITY_HEAD = ("logits dB", "features dB", "changed", "top-1", "codes", "TensorRT")
_NONE = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        title: What was measured.
        cost: Against plain inference; None when it failed.
        quality: Against the float network; None when not asked, or failed.
        codes: Its activations by type of code.
        tensorrt: ``"builds"``, why not, or empty when not asked.
        note: What a reader must know.
        problem: Why something is missing; empty when nothing is.
    """

    title: str
    cost: Cost | None = None
    quality: Quality | None = None
    codes: str = ""
    tensorrt: str = ""
    note: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that was measured.

    Attributes:
        setting: Fact → text: the model, the images, the machine, the versions.
        plain: Seconds and bytes of plain inference, medians.
        float_top1: Share of right answers of the float network; None when not asked.
        rows: One a tool.
        extra: Lines to print behind the table.
        raw: Every measurement, for JSON.
    """

    setting: Mapping[str, str]
    plain: tuple[float, int]
    float_top1: float | None
    rows: Sequence[Row]
    extra: Sequence[str] = ()
    raw: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """Return the table for a terminal."""
        head, rows = self._cells()
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        lines = ["  ".join(_pad(row, widths)).rstrip() for row in (head, *rows)]
        facts = [f"{name:<9} {value}" for name, value in self.setting.items()]
        return "\n".join([*facts, "", *lines, *self._notes(), *self.extra])

    def to_markdown(self) -> str:
        """Return the table in Markdown, with what it was measured on."""
        head, rows = self._cells()
        rule = ["---", *("---:" for _ in head[1:])]
        lines = ["| " + " | ".join(row) + " |" for row in (head, rule, *rows)]
        facts = [f"- {name}: {value}" for name, value in self.setting.items()]
        tail = [f"\n{line}" for line in (*self._notes(), *self.extra)]
        return "\n".join([*lines, "", *facts, *tail])

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the head and the rows, as text."""
        with_quality = self.float_top1 is not None
        seconds, peak = self.plain
        float_cells = [_NONE] * len(_QUALITY_HEAD)
        if self.float_top1 is not None:
            float_cells[3] = f"{self.float_top1:.2%}"
        head = ["", *_HEAD]
        first = ["plain inference", f"1 ({seconds:.1f} s)", "1", "1", f"{peak / 2**20:.0f}"]
        rows = [first + (float_cells if with_quality else [])]
        for row in self.rows:
            mark = self._mark(row)
            cells = [row.title + (f" [{mark}]" if mark else ""), *_cost_cells(row.cost)]
            rows.append(cells + (_quality_cells(row) if with_quality else []))
        return head + (list(_QUALITY_HEAD) if with_quality else []), rows

    def _mark(self, row: Row) -> int:
        """Return the number of a row's note; 0 for none."""
        notes = self._distinct()
        return notes.index(_note(row)) + 1 if _note(row) else 0

    def _distinct(self) -> list[str]:
        return list(dict.fromkeys(_note(row) for row in self.rows if _note(row)))

    def _notes(self) -> list[str]:
        return [f"[{number}] {note}" for number, note in enumerate(self._distinct(), start=1)]


def _note(row: Row) -> str:
    refusal = "" if row.tensorrt in {"", "builds"} else f"does not build: {row.tensorrt}"
    failure = f"failed: {row.problem}" if row.problem else ""
    return "; ".join(filter(None, (failure, row.note, refusal)))


def _cost_cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return [_NONE] * len(_HEAD)
    return [*map(_ratio, (cost.wall, cost.cpu, cost.peak)), f"{cost.peak_bytes / 2**20:.0f}"]


def _ratio(ratio: Ratio) -> str:
    """Write a ratio with its spread over the rounds, where there is one to see."""
    low, high = f"{ratio.low:.2f}", f"{ratio.high:.2f}"
    return f"{ratio.median:.2f}" + (f" ({low}…{high})" if low != high else "")


def _quality_cells(row: Row) -> list[str]:
    if row.quality is None:
        return [_NONE] * len(_QUALITY_HEAD)
    quality = row.quality
    answer = {"": _NONE, "builds": "yes"}.get(row.tensorrt, "no")
    features = _NONE if quality.feature_db is None else f"{quality.feature_db:.1f}"
    numbers = [f"{quality.sqnr_db:.1f}", features, f"{quality.changed:.2%}", f"{quality.top1:.2%}"]
    return [*numbers, row.codes or _NONE, answer]


def _pad(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = cells
    return [first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(others, widths[1:], strict=True))]


def codes_text(codes: Mapping[str, int]) -> str:
    """Say in a few words what codes activations take, most of them first."""
    total = sum(codes.values())
    if len(codes) == 1:
        return next(iter(codes))
    ordered = sorted(codes.items(), key=lambda item: -item[1])
    return ", ".join(f"{name} {number}/{total}" for name, number in ordered)


def setting_of(
    machine: Machine, job: Job, images: Images, tools: Sequence[Tool], rounds: int
) -> dict[str, str]:
    """Say what was measured, on what, with which versions."""
    cpu = machine.cpu
    memory = machine.memory_bytes[1] / 2**30
    spec = images.spec
    prepared = "as they come" if spec is None else f"prepared {spec.to_json()}"
    setting = {
        "network": f"{job.model}, sha256 {sha256_file(job.model)[:12]}…",
        "images": f"{job.count} of {images.source.name}, {prepared}",
        "rounds": f"{rounds}, each with plain inference in it; medians (smallest…largest)",
        "machine": f"{cpu.model}, {cpu.cores} CPUs ({', '.join(cpu.features)}), {memory:.0f} GiB, "
        f"Linux, Python {machine.python}",
        "strata": f"{version('strata')}, quantize --method {job.method}; {_here(machine)}",
    }
    for name in dict.fromkeys(tool.environment for tool in tools if tool.environment):
        setting[name] = _versions(_LOCKS / f"{name}.txt")
    return setting


def _here(machine: Machine) -> str:
    """Return the versions of this environment."""
    found = {name: text for name, text in machine.libraries.items() if text and name in _NAMED}
    return ", ".join(f"{name} {text}" for name, text in found.items())


def _versions(lock: Path) -> str:
    """Return the versions of a peer's environment, from its lock."""
    lines = lock.read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==", 1) for line in lines if "==" in line)
    return ", ".join(f"{name} {pins[name]}" for name in _NAMED if name in pins)
