"""Histograms and channel counts of many tensors as a few plain arrays, one behind the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from exporter.calibration.channels import CELLS, ChannelCounts
from exporter.calibration.histogram import BUCKETS, Histogram

__all__ = [
    "CHANNEL_ARRAYS",
    "HISTOGRAM_ARRAYS",
    "pack_channels",
    "pack_histograms",
    "rows",
    "unpack_channels",
    "unpack_histograms",
]

Arrays = Mapping[str, npt.NDArray[Any]]

HISTOGRAM_ARRAYS = ("bounds", "lengths", "buckets", "counts")
CHANNEL_ARRAYS = ("channels", "channel_bounds", "cell_lengths", "cells", "cell_counts")


def pack_histograms(histograms: Sequence[Histogram]) -> Arrays:
    """Return the arrays named in ``HISTOGRAM_ARRAYS``."""
    return {
        "bounds": rows((h.minimum, h.maximum) for h in histograms),
        "lengths": np.array([len(h.buckets) for h in histograms], np.int64),
        "buckets": _joined([h.buckets for h in histograms], np.int32),
        "counts": _joined([h.counts for h in histograms], np.int64),
    }


def unpack_histograms(arrays: Arrays) -> list[Histogram]:
    """Return what was packed; ValueError when it does not fit together."""
    buckets, counts = _parts(arrays, "lengths", "buckets", "counts", BUCKETS)
    bounds = arrays["bounds"].tolist()
    return [
        Histogram(b.astype(np.int32), c.astype(np.int64), low, high)
        for b, c, (low, high) in zip(buckets, counts, bounds, strict=True)
    ]


def pack_channels(channels: Sequence[ChannelCounts]) -> Arrays:
    """Return the arrays named in ``CHANNEL_ARRAYS``."""
    low = _joined([c.low for c in channels], np.float32)
    high = _joined([c.high for c in channels], np.float32)
    return {
        "channels": np.array([len(c) for c in channels], np.int64),
        "channel_bounds": np.stack([low, high], axis=1),
        "cell_lengths": np.array([len(c.cells) for c in channels], np.int64),
        "cells": _joined([c.cells for c in channels], np.int32),
        "cell_counts": _narrow(_joined([c.counts for c in channels], np.int64)),
    }


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


def _joined(arrays: Sequence[npt.NDArray[Any]], dtype: type) -> npt.NDArray[Any]:
    return np.concatenate([np.empty(0, dtype), *arrays])


def _narrow(counts: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Return counts in half the room, where all of them fit."""
    return counts.astype(np.uint32) if counts.max(initial=0) < 1 << 32 else counts
