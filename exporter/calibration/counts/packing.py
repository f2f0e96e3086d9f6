"""Histograms and channel counts of many tensors as a few plain arrays, one behind the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from exporter.calibration.counts.channels import CELLS, ChannelCounts
from exporter.calibration.counts.histogram import BUCKETS, Histogram

__all__ = [
    "CHANNEL_ARRAYS",
    "HISTOGRAM_ARRAYS",
    "InOrder",
    "Packed",
    "pack_channels",
    "pack_histograms",
    "rows",
    "unpack_channels",
    "unpack_histograms",
]

_Value = TypeVar("_Value")

Arrays = Mapping[str, npt.NDArray[Any]]

HISTOGRAM_ARRAYS = ("bounds", "lengths", "buckets", "counts")
CHANNEL_ARRAYS = ("channels", "channel_bounds", "cell_lengths", "cells", "cell_counts")


@dataclass(frozen=True, slots=True)
class InOrder(Generic[_Value]):
    """Values of a mapping by these names; each is asked for when it is its turn."""

    values: Mapping[str, _Value]
    names: tuple[str, ...]

    def __iter__(self) -> Iterator[_Value]:
        """Begin anew."""
        return (self.values[name] for name in self.names)


@dataclass(frozen=True, slots=True)
class Packed:
    """An array that is written part by part: it may be large.

    Attributes:
        name: Of the array.
        kind: Of its values.
        shape: Of all of it.
        parts: What it is made of, one behind the other, each made when it is its turn.
    """

    name: str
    kind: type[np.generic]
    shape: tuple[int, ...]
    parts: Iterable[npt.NDArray[Any]]

    @classmethod
    def whole(cls, name: str, array: npt.NDArray[Any]) -> Packed:
        """Return an array that is there."""
        return cls(name, array.dtype.type, array.shape, (array,))


def pack_histograms(histograms: Iterable[Histogram]) -> Iterator[Packed]:
    """Yield the arrays named in ``HISTOGRAM_ARRAYS``; gone through as channels are, below."""
    found = [(len(h.buckets), (h.minimum, h.maximum)) for h in histograms]
    lengths = [length for length, _ in found]
    yield Packed.whole("bounds", rows(bounds for _, bounds in found))
    yield Packed.whole("lengths", np.array(lengths, np.int64))
    yield Packed("buckets", np.int32, (sum(lengths),), (h.buckets for h in histograms))
    yield Packed("counts", np.int64, (sum(lengths),), (h.counts for h in histograms))


def unpack_histograms(arrays: Arrays) -> list[Histogram]:
    """Return what was packed; ValueError when it does not fit together."""
    buckets, counts = _parts(arrays, "lengths", "buckets", "counts", BUCKETS)
    bounds = arrays["bounds"].tolist()
    return [
        Histogram(b.astype(np.int32), c.astype(np.int64), low, high)
        for b, c, (low, high) in zip(buckets, counts, bounds, strict=True)
    ]


def pack_channels(channels: Iterable[ChannelCounts]) -> Iterator[Packed]:
    """Yield the arrays named in ``CHANNEL_ARRAYS``.

    Args:
        channels: Gone through three times; what makes its items anew each time needs the
            memory of one.
    """
    width, length, bounds, most = [], [], [np.empty((0, 2), np.float32)], 0
    for c in channels:
        width.append(len(c))
        length.append(len(c.cells))
        bounds.append(np.stack([c.low, c.high], axis=1))
        most = max(most, int(c.counts.max(initial=0)))
    yield Packed.whole("channels", np.array(width, np.int64))
    yield Packed.whole("channel_bounds", np.concatenate(bounds))
    yield Packed.whole("cell_lengths", np.array(length, np.int64))
    yield Packed("cells", np.int32, (sum(length),), (c.cells for c in channels))
    # In half the room, where all of them fit.
    kind = np.uint32 if most < 1 << 32 else np.int64
    yield Packed("cell_counts", kind, (sum(length),), (c.counts for c in channels))


def unpack_channels(arrays: Arrays) -> list[ChannelCounts]:
    """Return what was packed; ValueError when it does not fit together."""
    numbers, bounds = arrays["channels"], arrays["channel_bounds"]
    if numbers.sum() != len(bounds) or (numbers < 0).any():
        raise ValueError("its channels do not fit together")
    most = int(numbers.max(initial=0)) * 2 * CELLS
    cells, counts = _parts(arrays, "cell_lengths", "cells", "cell_counts", most)
    result = []
    for own, c, n in zip(np.split(bounds, np.cumsum(numbers)[:-1]), cells, counts, strict=True):
        if len(c) and int(c.max()) >= len(own) * 2 * CELLS:
            raise ValueError("a channel has an impossible cell")
        low, high = own.astype(np.float32).reshape(-1, 2).T
        result.append(ChannelCounts(c.astype(np.int32), n.astype(np.int64), low, high))
    return result


def rows(values: Iterable[tuple[float, ...]]) -> npt.NDArray[np.float64]:
    """Return a table of float64."""
    return np.array(list(values), np.float64)


def _parts(
    arrays: Arrays, lengths: str, keys: str, counts: str, end: int
) -> tuple[list[npt.NDArray[Any]], list[npt.NDArray[Any]]]:
    """Cut joined keys and counts apart, once they can be right."""
    long, key, count = arrays[lengths], arrays[keys], arrays[counts]
    if key.shape != count.shape or long.sum() != key.size or (long < 0).any():
        raise ValueError(f"its {keys} do not fit together")
    if key.size and (key.min() < 0 or key.max() >= end or count.min() < 1):
        raise ValueError(f"its {keys} hold an impossible one, or a count below 1")
    ends = np.cumsum(long)[:-1]
    return np.split(key, ends), np.split(count, ends)
