"""The threads of a calibration: each runs images and counts their activations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import TypeVar

import numpy as np

from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import CalibrationError, GraphError, InputError, StrataError
from exporter.calibration.counts.channels import ChannelCounts, turn_of
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.counts.tally import Tally, keep_passed
from exporter.calibration.image_record import ImageRecord, record_image
from exporter.calibration.network import Activation, Network
from exporter.calibration.queue import Queue
from exporter.calibration.statistics import Statistics
from exporter.calibration.work import Image
from exporter.session_memory import trim_heap

__all__ = ["Collector"]

_CHECKPOINT_SECONDS = 60.0
_JOBS = 4  # for each thread, at least

_Tallies = dict[str, Tally]
_Sum = TypeVar("_Sum")


class Collector:
    """Adds images to statistics.

    Args:
        network: What returns the tensors of ``start``, and those that their values are held to.
        source: The images.
        preprocess: None when they are preprocessed.
        start: What was counted before; its tensors are counted.
        workers: Threads.

    Raises:
        MissingBackendError: numba is not installed.
    """

    def __init__(
        self,
        network: Network,
        source: Source,
        preprocess: PreprocessSpec | None,
        start: Statistics,
        workers: int,
    ) -> None:
        self._network = network
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
        # So that no thread waits long for the last one.
        share = -(-len(images) // (_JOBS * len(self._tallies)))
        step = self._network.batch or max(1, min(self._network.together, share))
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
        try:
            return self._run(wanted, tallies)
        except StrataError:
            if len(wanted) > 1:  # blame the first that has something to blame, by itself
                for image in wanted:
                    self._run([image], {name: Tally() for name in tallies})
            raise

    def _run(self, wanted: Sequence[Image], tallies: _Tallies) -> list[ImageRecord]:
        """Do the same, and blame any of them."""
        digests, indices = zip(*wanted, strict=True)
        images = [self._source.tensor(index, self._preprocess) for index in indices]
        for image in images:
            self._network.check(image)
        if len({image.shape for image in images}) > 1:
            return self._run_apart(wanted, tallies)
        size = max(self._network.batch, len(images))  # filled up, and left out below
        batch = np.stack([images[i % len(images)] for i in range(size)])
        turns = [turn_of(digest) for digest in digests]
        left = set(tallies)
        for name, activation in self._passed(self._network.run(batch)):
            if name in left:
                left.remove(name)
                own = activation.of(len(images))
                if not tallies[name].add(own.values, turns, channels=own.channels):
                    raise self._not_finite(name, own, indices)
        if left:
            raise GraphError(
                f"tensor {min(left)!r} does not depend on the images: ONNX Runtime never makes it",
                hint="leave the layer that reads it in float: --exclude, or run strata optimize",
            )
        return [record_image(digest, image) for digest, image in zip(digests, images, strict=True)]

    def _run_apart(self, wanted: Sequence[Image], tallies: _Tallies) -> list[ImageRecord]:
        """Run images of different sizes, one after the other."""
        if self._network.batch > 1:
            raise InputError(
                f"{self._source.where(wanted[0][1])}: of another size than the next images, and "
                f"the network takes {self._network.batch} at once",
                hint="give a crop: strata calibrate --preprocess resize=…,crop=…",
            )
        return [record for image in wanted for record in self._run([image], tallies)]

    def _passed(
        self, activations: Iterator[tuple[str, Activation]]
    ) -> Iterator[tuple[str, Activation]]:
        """Yield activations, of some only those values that a ReLU further on passes."""
        passed = self._start.passed
        waiting: dict[str, Activation] = {}  # for what that ReLU makes
        for name, activation in activations:
            for other in [other for other in waiting if passed[other] == name]:
                keep_passed(waiting[other].values, activation.values)
                yield other, waiting.pop(other)
            if name in passed:
                waiting[name] = activation
            else:
                yield name, activation

    def _not_finite(
        self, name: str, activation: Activation, indices: Sequence[int]
    ) -> CalibrationError:
        """Name the tensor and the image that holds NaN or Inf."""
        images = (activation.image(row) for row in range(len(indices)))
        row, values = next((i, x) for i, x in enumerate(images) if not np.isfinite(x).all())
        nan, inf = (int(np.count_nonzero(f(values))) for f in (np.isnan, np.isinf))
        return CalibrationError(
            f"tensor {name!r}: {nan} NaN and {inf} Inf among {values.size} values, for "
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
