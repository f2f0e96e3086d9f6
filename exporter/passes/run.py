"""Passes in order, to a fixed point."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir

from core.errors import GraphError
from core.progress import Progress, silent
from exporter.passes.base import Pass, PassResult

__all__ = ["quiet", "run_passes"]

_MAX_ROUNDS = 20


def run_passes(
    model: ir.Model, passes: tuple[Pass, ...], *, progress: Progress = silent
) -> tuple[PassResult, ...]:
    """Run ``passes`` in order, over and over, until a whole round changes nothing.

    Raises:
        GraphError: They do not come to rest: two of them undo each other (a bug).
    """
    changes: list[PassResult] = []
    for turn in range(_MAX_ROUNDS):
        last = []
        for number, run in enumerate(passes):
            progress(number, len(passes), f"round {turn + 1}")
            last.append(run(model))
        changes += [result for result in last if result.changed]
        if not any(result.changed for result in last):
            idle = {result.name for result in last} - {result.name for result in changes}
            return (*changes, *(result for result in last if result.name in idle))
    raise GraphError(
        f"the passes still change the graph after {_MAX_ROUNDS} rounds: "
        f"{', '.join(result.name for result in last if result.changed)}",
        hint="report this model; it shows a bug in Strata",
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' warnings off the terminal: each pass says itself what it left."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
