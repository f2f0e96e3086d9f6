"""A bench for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from deploy.bench.figures import CONFIDENCE
from deploy.bench.result import BatchTimes, Bench
from deploy.bench.verdict import verdict_of

__all__ = ["SCHEMA", "bench_json"]

SCHEMA = "strata.bench/1"


def bench_json(bench: Bench) -> dict[str, Any]:
    """Return all of it; times in milliseconds, null where something was not measured or read."""
    return {
        "schema": SCHEMA,
        "models": [
            {
                "name": model.label,
                "precision": model.precision or None,
                "backend": model.backend,
                "sha256": model.sha256,
                "notes": list(model.notes),
            }
            for model in bench.models
        ],
        "image": [3, *bench.size],
        "machine": {"processor": bench.processor, "cores": bench.cores, "load": bench.load},
        "gpu": asdict(bench.gpu) if bench.gpu is not None else None,
        "batches": [_batch(times) for times in bench.batches],
    }


def _batch(times: BatchTimes) -> dict[str, Any]:
    models = []
    for latency, turns, phases in zip(times.latencies, times.turns_ms, times.phases, strict=True):
        own: dict[str, Any] = asdict(latency)
        own["phases"] = asdict(phases) if phases is not None else None
        own["turns"] = [round(ms, 6) for ms in turns]
        models.append(own)
    found: dict[str, Any] = {"batch": times.batch, "models": models, "ratio": None}
    if times.ratio is not None:
        found["ratio"] = asdict(times.ratio) | {
            "confidence": CONFIDENCE,
            "second_is": verdict_of(times.ratio),
        }
    return found
