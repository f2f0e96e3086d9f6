"""Work on several things at once, and get the results in order, in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["in_order"]

Job = TypeVar("Job")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Job], Result], jobs: Iterable[Job], *, workers: int
) -> Iterator[Result]:
    """Yield ``work(job)`` of each job, in the order of the jobs.

    Jobs are taken as they are needed: at most one more than there are workers is begun or
    waits. With one worker the caller's own thread does all of it. The threads end with the
    iterator: at its end, at an error, when it is closed, and at Ctrl-C.

    Args:
        work: Called by several threads at once, where there are several workers.
        jobs: Read by the calling thread.
        workers: How many, at least 1.

    Raises:
        Exception: What ``work`` raised for the first job it fails at, however threads raced.
    """
    if workers == 1:
        yield from map(work, jobs)
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="strata-answer")
    begun: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            if len(begun) > workers:
                yield begun.popleft().result()
            begun.append(pool.submit(work, job))
        while begun:
            yield begun.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
