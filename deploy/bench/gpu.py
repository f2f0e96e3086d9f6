"""What a GPU did while it was timed: its clocks, its power, how warm it was."""

from __future__ import annotations

from dataclasses import dataclass, field

from deploy.machines.cuda import Cuda
from deploy.machines.nvml import GpuMeter, GpuState, open_meter

__all__ = ["GpuRange", "GpuWatch"]

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class GpuRange:
    """Smallest and largest value over a run; None where it was not read.

    Attributes:
        name: Of the GPU.
        slowed: Why it ran below its highest clock at some time; None where it was not read.
    """

    name: str
    sm_mhz: Range | None = None
    memory_mhz: Range | None = None
    watts: Range | None = None
    celsius: Range | None = None
    slowed: tuple[str, ...] | None = None

    def text(self) -> str:
        """Return its name, and what was read, or that it was not."""
        values = (
            (self.sm_mhz, "clock", "MHz"),
            (self.memory_mhz, "memory", "MHz"),
            (self.watts, "power", "W"),
            (self.celsius, "temperature", "°C"),
        )
        parts = [f"{what} {_between(value, unit)}" for value, what, unit in values]
        if all(value is None for value, _, _ in values):
            parts = ["clocks and power not read"]
        if self.slowed:
            parts.append(f"slowed down by {', '.join(self.slowed)}")
        return ", ".join([self.name or "a GPU without a name", *parts])


@dataclass(slots=True)
class GpuWatch:
    """Looks at a GPU now and then.

    Attributes:
        name: Of the GPU.
        meter: What reads it; None where nothing can.
        seen: What it did.
    """

    name: str
    meter: GpuMeter | None
    seen: list[GpuState] = field(default_factory=list)

    @classmethod
    def of(cls, cuda: Cuda) -> GpuWatch:
        """Watch the GPU that an engine runs on."""
        return cls(cuda.name, open_meter(cuda.pci_bus))

    def look(self) -> None:
        """Note what it does now."""
        if self.meter is not None:
            self.seen.append(self.meter.read())

    def range(self) -> GpuRange:
        """Return what it did over the run."""
        reasons = [state.slowed for state in self.seen if state.slowed is not None]
        return GpuRange(
            name=self.name,
            sm_mhz=_range([state.sm_mhz for state in self.seen]),
            memory_mhz=_range([state.memory_mhz for state in self.seen]),
            watts=_range([state.watts for state in self.seen]),
            celsius=_range([state.celsius for state in self.seen]),
            slowed=tuple(dict.fromkeys(why for each in reasons for why in each))
            if reasons
            else None,
        )


def _range(values: list[float | None] | list[int | None]) -> Range | None:
    known = [value for value in values if value is not None]
    return (min(known), max(known)) if known else None


def _between(value: Range | None, unit: str) -> str:
    if value is None:
        return "not read"
    low, high = (f"{end:.0f}" for end in value)
    return f"{low} {unit}" if low == high else f"{low}–{high} {unit}"
