"""What a calibration has to do: which images are to be counted, and which already were."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from calib_data.batches import Indices
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import InputError
from exporter.calibration.counts.channels import ChannelCounts
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.image_record import Origin
from exporter.calibration.statistics import Statistics, read_statistics

__all__ = [
    "CalibrationOptions",
    "Cluster",
    "Image",
    "ImageSet",
    "Taps",
    "Work",
    "count_workers",
    "nothing_counted",
    "plan_work",
]

_MOST_WORKERS = 16  # each needs memory: for the tensors of a piece, and for its counts

Image = tuple[str, int]  # digest, and index in the source


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Images and how they become the network's input.

    Attributes:
        source: Where they are.
        indices: Which of them, (N,) int64.
        preprocess: None when the source is preprocessed.
        origin: What the statistics should say of where they come from.
    """

    source: Source
    indices: Indices
    preprocess: PreprocessSpec | None
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True, slots=True)
class Taps:
    """What to count.

    Attributes:
        tensors: Names of float32 tensors whose first axis is the batch, without repetition.
        passed: Some of them → a tensor of the same shape: where that is zero, they count as zero
            (:attr:`exporter.quantization.plan.Activation.passed`).
    """

    tensors: tuple[str, ...]
    passed: Mapping[str, str] = field(default_factory=dict)

    @property
    def all(self) -> tuple[str, ...]:
        """What the network must return."""
        return tuple(dict.fromkeys((*self.tensors, *self.passed.values())))


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Ray cluster, whose nodes find the model and the data by the paths of this machine.

    Attributes:
        data: What :func:`~calib_data.open.open_data` opens there.
        address: Of the cluster, as ``ray.init`` takes it; empty for Ray's own choice: that of
            RAY_ADDRESS, one that runs on this machine, or one started for the purpose.
    """

    data: str
    address: str = ""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How to run; nothing here changes the result but ``shard``.

    Attributes:
        threads: CPUs to use, 0 for all that this process may, at most 16; of each worker on a
            cluster, 0 for one.
        shard: (i, n): the i-th of n parts, counted from 1.
        partial: File to keep what was done so far in, and to carry on from; None for none.
        cluster: Where to run; None for here.
    """

    threads: int = 0
    shard: tuple[int, int] = (1, 1)
    partial: Path | None = None
    cluster: Cluster | None = None

    def __post_init__(self) -> None:
        """Refuse what is no shard."""
        part, parts = self.shard
        if not 1 <= part <= parts:
            raise InputError(
                f"shard {part}/{parts} is none", hint="give i/n with i from 1 to n, such as 1/4"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """What is to be done.

    Attributes:
        start: What was counted before; of no images at first.
        left: The images to count, sorted.
    """

    start: Statistics
    left: tuple[Image, ...]

    @property
    def total(self) -> int:
        """Number of images, done or not."""
        return len(self.start.images) + len(self.left)


def plan_work(model: str, data: ImageSet, taps: Taps, options: CalibrationOptions) -> Work:
    """Say what is to be done, and what an interrupted run over the same inputs has done.

    Args:
        model: SHA-256 of the ONNX file.
        data: The images.
        taps: What to count of each.
        options: Shard, and where to carry on from.

    Raises:
        InputError: An image cannot be read, or the shard is empty.
    """
    images = _shard(data, options.shard)
    start = Statistics(
        model,
        data.preprocess.to_json() if data.preprocess else "",
        (),
        {name: Histogram.empty() for name in taps.tensors},
        data.origin,
        {name: ChannelCounts.empty() for name in taps.tensors},
        taps.passed,
    )
    with suppress(InputError):  # no file, or no whole one: begin at the beginning
        if options.partial is not None:
            found = read_statistics(options.partial)
            left = _left(start, found, images)
            if left is not None:
                return Work(found, left)
    return Work(start, tuple(images))


def _shard(data: ImageSet, shard: tuple[int, int]) -> list[Image]:
    """Return the shard's images, sorted.

    Equal images go to the same shard, so that an image in two shards is an overlap.
    """
    part, parts = shard
    images = sorted((data.source.digest(int(index)), int(index)) for index in data.indices)
    mine = set(sorted({digest for digest, _ in images})[part - 1 :: parts])
    if not mine:
        raise InputError(
            f"shard {part}/{parts} of {len(images)} images is empty", hint="make fewer shards"
        )
    return [image for image in images if image[0] in mine]


def nothing_counted(statistics: Statistics) -> Statistics:
    """Return statistics of no images, bound to what ``statistics`` is bound to."""
    return replace(
        statistics,
        images=(),
        tensors={name: Histogram.empty() for name in statistics.tensors},
        channels={name: ChannelCounts.empty() for name in statistics.channels},
    )


def count_workers(threads: int, images: int) -> int:
    """Return how many threads count so many images, each with some of its own."""
    return max(1, min(threads, _MOST_WORKERS, images))


def _left(
    start: Statistics, found: Statistics, images: Sequence[Image]
) -> tuple[Image, ...] | None:
    """Return the images that ``found`` lacks; None when it is of something else."""

    def bound(statistics: Statistics) -> tuple[object, ...]:
        names = list(statistics.tensors), list(statistics.channels), statistics.passed
        return statistics.model, statistics.preprocess, statistics.origin, names

    done = Counter(image.digest for image in found.images)
    left: list[Image] = []
    for image in images:
        if done[image[0]]:
            done[image[0]] -= 1
        else:
            left.append(image)
    return tuple(left) if bound(found) == bound(start) and not done.total() else None
