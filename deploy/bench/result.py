"""What a bench found: values only."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.bench.figures import Latency, Ratio
from deploy.bench.gpu import GpuRange

__all__ = ["BatchTimes", "Bench", "Phases", "Timed"]


@dataclass(frozen=True, slots=True)
class Timed:
    """A model that was timed, as reports tell of it."""

    label: str
    title: str
    backend: str
    precision: str
    sha256: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phases:
    """What a call of an engine consists of, in milliseconds of the GPU's clock (medians)."""

    to_gpu: float
    kernels: float
    from_gpu: float


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """Times at one batch size, a value for each model.

    Attributes:
        batch: Images in a call.
        latencies: Of each model.
        turns_ms: Of each model, what each turn counts as, in order.
        phases: Of each model; None where it is no engine on a GPU.
        ratio: Second model over first; None for one model alone.
    """

    batch: int
    latencies: tuple[Latency, ...]
    turns_ms: tuple[tuple[float, ...], ...]
    phases: tuple[Phases | None, ...]
    ratio: Ratio | None


@dataclass(frozen=True, slots=True)
class Bench:
    """The whole result.

    Attributes:
        models: One or two.
        size: (height, width) of the images.
        batches: In the order they were asked for.
        processor: Of this machine.
        cores: That this process may use.
        load: Average number of processes that wanted to run in the minute before.
        gpu: Its state over the run; None when no engine ran on one.
    """

    models: tuple[Timed, ...]
    size: tuple[int, int]
    batches: tuple[BatchTimes, ...]
    processor: str
    cores: int
    load: float
    gpu: GpuRange | None
