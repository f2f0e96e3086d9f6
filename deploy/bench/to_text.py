"""A bench for people: a table of at most 100 columns, and what it means."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.bench.result import BatchTimes, Bench
from deploy.bench.verdict import verdict_text
from deploy.inspect.columns import columns, facts_text, paragraph

__all__ = ["bench_text", "milliseconds", "processor_text", "verdict_lines"]

_HEAD = ("batch", "model", "calls", "p50 ms", "p90 ms", "p99 ms", "images/s")
_WIDTHS = (5, 34, 6, 9, 9, 9, 10)
_NUMBERS = 5
_PHASE_HEAD = ("batch", "on the GPU", "to it ms", "kernels ms", "from it ms")
_PHASE_WIDTHS = (5, 34, 10, 10, 10)


def bench_text(bench: Bench) -> str:
    """Return what was found, in lines."""
    parts = ["\n".join(_models(bench)), _table(bench)]
    if any(phases for times in bench.batches for phases in times.phases):
        parts.append(_phase_table(bench))
    if verdicts := verdict_lines(bench):
        parts.append("\n".join(map(paragraph, verdicts)))
    return "\n\n".join(parts)


def milliseconds(value: float | None) -> str:
    """Return a time in four figures or so; ``–`` when there is none."""
    if value is None:
        return "–"
    return f"{value:.4f}" if value < 1 else f"{value:.3f}" if value < 100 else f"{value:.1f}"


def processor_text(bench: Bench) -> str:
    """Return the processor, and what else wanted to run on it."""
    cores = f"{bench.cores} core{'s' if bench.cores > 1 else ''}"
    return f"{bench.processor}, {cores}; load {bench.load:.1f} before"


def verdict_lines(bench: Bench) -> list[str]:
    """Return what the ratios say, a sentence for each batch size."""
    if len(bench.models) < 2:
        return []
    first, second = (model.title for model in bench.models)
    return [
        f"batch {times.batch}: {verdict_text(times.ratio, first, second)}"
        for times in bench.batches
        if times.ratio is not None
    ]


def _models(bench: Bench) -> Iterator[str]:
    height, width = bench.size
    for model in bench.models:
        yield paragraph(f"{model.title}: {model.backend}")
        if model.notes:
            yield facts_text(("note", note) for note in model.notes)
    rows = [("images", f"3×{height}×{width}, noise; one call at a time")]
    rows.append(("CPU", processor_text(bench)))
    if bench.gpu is not None:
        rows.append(("GPU", bench.gpu.text()))
    yield facts_text(rows)


def _table(bench: Bench) -> str:
    lines = [columns(_HEAD, _WIDTHS, _NUMBERS)]
    for times in bench.batches:
        for at, model in enumerate(bench.models):
            lines.append(columns(_cells(times, at, model.label), _WIDTHS, _NUMBERS))
    return "\n".join(lines)


def _cells(times: BatchTimes, at: int, label: str) -> tuple[str, ...]:
    own = times.latencies[at]
    batch = "" if at else f"{times.batch:>5}"
    percentiles = map(milliseconds, (own.p50, own.p90, own.p99))
    return (batch, label, f"{own.calls:,}", *percentiles, f"{own.images_per_s:,.1f}")


def _phase_table(bench: Bench) -> str:
    lines = [columns(_PHASE_HEAD, _PHASE_WIDTHS, 3)]
    for times in bench.batches:
        for model, phases in zip(bench.models, times.phases, strict=True):
            if phases is not None:
                parts = (phases.to_gpu, phases.kernels, phases.from_gpu)
                cells = (f"{times.batch:>5}", model.label, *map(milliseconds, parts))
                lines.append(columns(cells, _PHASE_WIDTHS, 3))
    return "\n".join(lines)
