"""Time one model or two, at each batch size."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from core.progress import Progress, silent
from deploy.bench.figures import latency_of, ratio_of, turn_ms
from deploy.bench.gpu import GpuWatch
from deploy.bench.result import BatchTimes, Bench, Phases, Timed
from deploy.bench.subject import Subject
from deploy.bench.turns import Aside, Effort, Turn, take_turns
from deploy.bench.verdict import is_settled
from deploy.machines.machine import examine

__all__ = ["DEFAULT_BATCHES", "choose_batches", "measure"]

DEFAULT_BATCHES = (1, 8, 32)
_SEED = 0
_PHASE_CALLS = 20


def choose_batches(subjects: Sequence[Subject], asked: tuple[int, ...] | None) -> tuple[int, ...]:
    """Return the batch sizes to time: those asked for, or the usual ones that all take.

    Raises:
        InputError: A model does not take what was asked for, or nothing suits both.
    """
    if asked is not None:
        for subject in subjects:
            for batch in asked:
                if not subject.takes(batch):
                    raise InputError(
                        f"{subject.label}: takes {_takes(subject)}, --batch asks for {batch}",
                        hint="name batch sizes that it was built for",
                    )
        return asked
    usual = tuple(b for b in DEFAULT_BATCHES if all(s.takes(b) for s in subjects))
    own = [subject.batches[1] for subject in subjects if subject.batches is not None]
    if not usual and own and all(s.takes(min(own)) for s in subjects):
        return (min(own),)
    if not usual:
        raise InputError(
            "; ".join(f"{s.label} takes {_takes(s)}" for s in subjects) + ": no batch suits both",
            hint="build both for the same batch sizes",
        )
    return usual


def _takes(subject: Subject) -> str:
    low, high = subject.batches or (1, 1)
    return f"batches of {low}" if low == high else f"batches of {low} to {high}"


def measure(
    subjects: Sequence[Subject],
    batches: Sequence[int],
    effort: Effort,
    *,
    progress: Progress = silent,
) -> Bench:
    """Time one model, or two that take turns.

    They are fed noise: how long a network takes does not depend on what it sees.

    Args:
        subjects: One or two, with labels of their own.
        batches: Images in a call.
        effort: How long, for each batch size.
        progress: Told percent done.

    Raises:
        InputError: They take images of different sizes, or refuse the batch.
        StrataError: As a model fails.
    """
    size = _common_size(subjects)
    load, cpu = os.getloadavg()[0], examine(Path()).cpu
    session = next((s.session for s in subjects if s.session is not None), None)
    watch = GpuWatch.of(session.cuda) if session is not None else None
    found = [
        _at_batch(subjects, _noise(batch, size), effort, (watch, _part(progress, batches, at)))
        for at, batch in enumerate(batches)
    ]
    return Bench(
        models=tuple(map(_timed, subjects)),
        size=size,
        batches=tuple(found),
        processor=cpu.model,
        cores=cpu.cores,
        load=load,
        gpu=watch.range() if watch is not None else None,
    )


def _part(progress: Progress, batches: Sequence[int], at: int) -> Progress:
    """Return the progress of one batch size as a part of the whole."""

    def told(done: int, total: int, note: str = "") -> None:
        del note
        progress(at * total + done, len(batches) * total, f"batch {batches[at]}")

    return told


def _common_size(subjects: Sequence[Subject]) -> tuple[int, int]:
    first, *others = subjects
    for other in others:
        if other.size != first.size:
            sizes = [f"{s.label} takes images of {s.size[0]}x{s.size[1]}" for s in (first, other)]
            raise InputError(
                " and ".join(sizes), hint="time models that do the same work, or say --size"
            )
    return first.size


def _noise(batch: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
    try:
        return np.random.default_rng(_SEED).standard_normal((batch, 3, *size), np.float32)
    except ValueError as err:  # more than numpy can count; MemoryError where it can
        raise InputError(
            f"{batch} images of {size[0]}×{size[1]} fit no memory", hint="give a smaller size"
        ) from err


def _at_batch(
    subjects: Sequence[Subject],
    images: npt.NDArray[np.float32],
    effort: Effort,
    heard: tuple[GpuWatch | None, Progress],
) -> BatchTimes:
    watch, progress = heard
    calls = [_call(subject, images) for subject in subjects]
    look = watch.look if watch is not None else lambda: None
    turns = take_turns(calls, effort, Aside(look, _enough, progress))
    look()
    return BatchTimes(
        batch=len(images),
        latencies=tuple(latency_of(own, len(images)) for own in turns),
        turns_ms=tuple(tuple(map(turn_ms, own)) for own in turns),
        phases=tuple(_phases(subject, images) for subject in subjects),
        ratio=ratio_of(turns[0], turns[1]) if len(turns) == 2 else None,
    )


def _enough(turns: Sequence[Sequence[Turn]]) -> bool:
    """Tell whether the ratio of two models is known well; of one, there is none."""
    return len(turns) < 2 or is_settled(ratio_of(turns[0], turns[1]))


def _call(subject: Subject, images: npt.NDArray[np.float32]) -> Callable[[], object]:
    model, feeds = subject.model, {subject.model.image: images}
    return lambda: model.run(feeds)


def _phases(subject: Subject, images: npt.NDArray[np.float32]) -> Phases | None:
    """Return what a call of an engine consists of, in calls of their own: marks take time too."""
    session = subject.session
    if session is None:
        return None
    feeds = {subject.model.image: images}
    calls = [session.phases(feeds) for _ in range(_PHASE_CALLS)]
    to_gpu, kernels, from_gpu = (statistics.median(times) for times in zip(*calls, strict=True))
    return Phases(to_gpu, kernels, from_gpu)


def _timed(subject: Subject) -> Timed:
    model = subject.model
    return Timed(
        label=subject.label,
        title=subject.title,
        backend=model.backend,
        precision=subject.precision,
        sha256=model.sha256,
        notes=subject.notes,
    )
