"""The threads of a calibration: each runs images and counts their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import CalibrationError, GraphError, StrataError
from exporter.calibration.counts.channels import ChannelCounts, turn_of
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.counts.tally import Tally, keep_passed
from exporter.calibration.image_record import ImageRecord, record_image
from exporter.calibration.queue import Queue
from exporter.calibration.statistics import Statistics
from exporter.calibration.work import Image
from exporter.session import Session, TensorInfo
from exporter.session_memory import trim_heap

__all__ = ["Collector"]

_CHECKPOINT_SECONDS = 60.0

_Tallies = dict[str, Tally]
_Sum = TypeVar("_Sum")


class Collector:
    """Adds images to statistics.

    Args:
        session: The network; its outputs include the tensors of ``start``.
        source: The images.
        preprocess: None when they are preprocessed.
        start: What was counted before; its tensors are counted.
        workers: Threads, one image each.

    Raises:
        GraphError: The network does not take one batch of images.
        MissingBackendError: numba is not installed.
    """

    def __init__(
        self,
        session: Session,
        source: Source,
        preprocess: PreprocessSpec | None,
        start: Statistics,
        workers: int,
    ) -> None:
        self._session = session
        self._input = _image_input(session)
        self._source = source
        self._preprocess = preprocess
        self._start = start
        self._tallies: list[_Tallies] = [
            {name: Tally() for name in start.tensors} for _ in range(workers)
        ]
        self._records: list[ImageRecord] = []

    def statistics(self) -> Statistics:
        """Return the sum of what was counted; only while no thread counts."""
        start = self._start
        with ThreadPoolExecutor(len(self._tallies), "strata-calibrate") as pool:
            tensors = tuple(pool.map(self._histogram, start.tensors))
            channels = tuple(pool.map(self._channels, start.channels))
        return replace(
            self._so_far(),
            tensors=dict(zip(start.tensors, tensors, strict=True)),
            channels=dict(zip(start.channels, channels, strict=True)),
        )

    def _so_far(self) -> Statistics:
        """Return the same, whose sums are made when they are asked for, and not kept."""
        start = self._start
        return replace(
            start,
            images=tuple(sorted((*start.images, *self._records))),
            tensors=_Sums(tuple(start.tensors), self._histogram),
            channels=_Sums(tuple(start.channels), self._channels),
        )

    def _histogram(self, name: str) -> Histogram:
        """Return the sum of all threads' counts of a tensor."""
        found = (tallies[name].histogram() for tallies in self._tallies)
        return reduce(add, found, self._start.tensors[name])

    def _channels(self, name: str) -> ChannelCounts:
        """Return the same, channel by channel."""
        found = (tallies[name].channels() for tallies in self._tallies)
        return reduce(add, found, self._start.channels[name])

    def run(
        self, images: Sequence[Image], partial: Path | None, report: Callable[[int], None]
    ) -> None:
        """Work through images in order.

        Args:
            images: Which images of the source; their digests are known, and not made again.
            partial: Where to leave a checkpoint every minute, and when interrupted.
            report: Told how many are done.

        Raises:
            CalibrationError, GraphError, InputError: Of the first image that has one.
        """
        # A network whose batch is fixed is fed that many; all others one at a time.
        size = self._input.shape[0]
        step = size if isinstance(size, int) else 1
        queue = Queue([images[i : i + step] for i in range(0, len(images), step)])
        jobs = []
        with ThreadPoolExecutor(len(self._tallies), "strata-calibrate") as pool:
            try:
                while queue.open_for(_CHECKPOINT_SECONDS):
                    jobs = [pool.submit(self._work, t, queue, report) for t in self._tallies]
                    for job in jobs:
                        job.result()
                    queue.raise_first()
                    if queue.any_left:  # of a finished run there is soon a file
                        self._leave(partial)
            except KeyboardInterrupt:
                queue.close()
                wait(jobs)
                self._leave(partial)
                raise

    def _leave(self, partial: Path | None) -> None:
        """Write a checkpoint, once there is something to carry on from."""
        if partial is not None and self._records:
            self._so_far().write(partial)  # the network is still there: no room for all sums
            trim_heap()

    def _work(self, tallies: _Tallies, queue: Queue, report: Callable[[int], None]) -> None:
        """Take images until there are none, or the queue is closed."""
        while (job := queue.take()) is not None:
            position, images = job
            try:
                records = self._count(images, tallies)
            except StrataError as err:
                queue.fail(position, err)
                return
            except BaseException:
                queue.close()
                raise
            with queue.lock:
                self._records += records
                report(len(self._records))

    def _count(self, wanted: Sequence[Image], tallies: _Tallies) -> list[ImageRecord]:
        """Run the network on images and count its activations."""
        digests, indices = zip(*wanted, strict=True)
        images = np.stack([self._source.tensor(index, self._preprocess) for index in indices])
        size = self._input.shape[0]
        if isinstance(size, int) and len(indices) < size:  # fill up, and leave out below
            images = images[np.arange(size) % len(indices)]
        values = self._session({self._input.name: images})
        values[self._input.name] = images
        turns = [turn_of(digest) for digest in digests]
        for name, relu in self._start.passed.items():
            keep_passed(*(_rows(values[each], each, len(images)) for each in (name, relu)))
        for name, tally in tallies.items():
            # Taken out, so that its memory serves another thread's image once it is counted.
            array = _rows(values.pop(name), name, len(images))[: len(indices)]
            if not tally.add(array, turns):
                raise self._not_finite(name, array, indices)
        return [record_image(digest, image) for digest, image in zip(digests, images, strict=False)]

    def _not_finite(
        self, name: str, array: npt.NDArray[np.float32], indices: Sequence[int]
    ) -> CalibrationError:
        """Name the tensor and the image that holds NaN or Inf."""
        row = next(i for i, values in enumerate(array) if not np.isfinite(values).all())
        nan, inf = (int(np.count_nonzero(f(array[row]))) for f in (np.isnan, np.isinf))
        return CalibrationError(
            f"tensor {name!r}: {nan} NaN and {inf} Inf among {array[row].size} values, for "
            f"{self._source.where(indices[row])}",
            hint="look at that image and at the weights before that tensor; "
            "leave the image out, or export sound weights",
        )


@dataclass(frozen=True, slots=True)
class _Sums(Mapping[str, _Sum]):
    """Name → what ``make`` makes of it, each time it is asked for."""

    names: tuple[str, ...]
    make: Callable[[str], _Sum]

    def __getitem__(self, name: str) -> _Sum:
        trim_heap()  # of the one before
        return self.make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _image_input(session: Session) -> TensorInfo:
    """Return the one input that takes images."""
    inputs = session.inputs
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != np.float32:
        found = ", ".join(f"{i.name} {i.dtype} of rank {len(i.shape)}" for i in inputs)
        raise GraphError(
            f"the network's inputs are {found}, not one batch of images",
            hint="Strata calibrates networks with one input, N×C×H×W float32",
        )
    return inputs[0]


def _rows(array: npt.NDArray[Any], name: str, batch: int) -> npt.NDArray[np.float32]:
    """Return an activation, whose first axis is the batch."""
    if array.dtype != np.float32 or array.ndim == 0 or len(array) != batch:
        raise GraphError(
            f"tensor {name!r} is {array.dtype} of shape {array.shape}, not float32 with the "
            f"batch of {batch} first",
            hint="leave the layer that reads it in float: --exclude, or edit the plan",
        )
    return array
