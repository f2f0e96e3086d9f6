"""The compiled loops of calibration.

numpy reads an array three times to count and to bound it, at about 2.5 ns an element;
these loops read memory once, at 0.7 ns. They hold no lock while they count, so threads run
side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from core.compiled import AS_WRITTEN, compiled
from exporter.calibration.counts.channels import BASE, CELLS, COARSE

__all__ = ["TABLES", "keep_where", "tally"]

# Equal neighbours (the zeros behind a ReLU) would each wait for the store of the one before;
# four tables in turn keep four counts of the same bucket under way.
TABLES = 4

_CHUNK = 4096  # words, 16 KiB: bounded and then counted while they lie in the first cache

_Words = npt.NDArray[np.uint32]


def tally(
    words: _Words,
    tables: _Words,
    shift: int,
    channels: npt.NDArray[np.uint16],
    bounds: _Words,
    sampled: tuple[int, int, int, npt.NDArray[np.int64]],
) -> tuple[int, int, int]:
    """Add 1 to bucket ``word >> shift`` for words, and bound all words.

    Args:
        words: Bits of the values, (N, C, P) uint32, not empty, contiguous.
        tables: Counts, (4, buckets) uint32, added to in place; their sum is the histogram.
        shift: How many low bits a bucket does not tell apart.
        channels: Counts of the cells of each channel (:mod:`exporter.calibration.counts.channels`),
            (2, C, CELLS) uint16, positive values first, added to in place; (2, 0, CELLS)
            for no such counts.
        bounds: Of each channel the largest word as a signed integer, and the largest and
            the smallest as an unsigned one, (C, 3) uint32, kept up to date in place.
        sampled: (every, stride, spread, turns). Counted in ``tables`` is every every-th value;
            in ``channels`` every stride-th value of every spread-th channel, beginning with
            the channel that turns, (N,), says of each image.

    Returns:
        Largest word as a signed integer, largest and smallest as an unsigned one.
    """
    every, stride, spread, turns = sampled
    counted = (np.int64(every), np.int64(stride), np.int64(spread), turns)
    signed, largest, smallest = _tally(words, tables, np.uint32(shift), channels, bounds, counted)
    return int(signed), int(largest), int(smallest)


@compiled(AS_WRITTEN)
def _tally(words: Any, tables: Any, shift: Any, channels: Any, bounds: Any, sampled: Any) -> Any:
    every, stride, spread, turns = sampled
    signed, largest, smallest = np.int32(words[0, 0, 0]), words[0, 0, 0], words[0, 0, 0]
    images, width, size = words.shape
    flat = words.reshape(images * width * size)
    together = max(1, _CHUNK // size)  # small planes are counted some at a time
    for image in range(images):
        # No division for each channel, whose plane may be small.
        apart = channels.shape[1] > 0
        due = (spread - turns[image] % spread) % spread if apart else width
        for first in range(0, width, together):
            start = (image * width + first) * size
            last = min(first + together, width)
            for channel in range(first, last):
                plane = words[image, channel]
                top, most, least = _bounds(plane)
                signed, largest = max(signed, top), max(largest, most)
                smallest = min(smallest, least)
                if apart:
                    bounds[channel, 0] = np.uint32(max(np.int32(bounds[channel, 0]), top))
                    bounds[channel, 1] = max(bounds[channel, 1], most)
                    bounds[channel, 2] = min(bounds[channel, 2], least)
                if channel == due:
                    _count_cells(plane, channels[0, channel], channels[1, channel], stride)
                    due += spread
            end = start + (last - first) * size
            if every == 1:
                _count(flat[start:end], tables, shift)
            else:  # another beginning each time, so that no column of an image is left out
                phase = (first + turns[image]) % every
                _count(flat[start + phase : end : every], tables, shift)
    return signed, largest, smallest


@compiled(AS_WRITTEN)
def _bounds(plane: Any) -> Any:
    top, most, least = np.int32(plane[0]), plane[0], plane[0]
    for i in range(plane.size):  # this loop is vectorized, the others cannot be
        word = plane[i]
        top = max(top, np.int32(word))
        most = max(most, word)
        least = min(least, word)
    return top, most, least


@compiled(AS_WRITTEN)
def _count(block: Any, tables: Any, shift: Any) -> None:
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    one = np.uint32(1)
    whole = block.size // 4 * 4
    for i in range(0, whole, 4):
        first[block[i] >> shift] += one
        second[block[i + 1] >> shift] += one
        third[block[i + 2] >> shift] += one
        fourth[block[i + 3] >> shift] += one
    for i in range(whole, block.size):
        first[block[i] >> shift] += one


@compiled(AS_WRITTEN)
def _count_cells(plane: Any, positive: Any, negative: Any, stride: Any) -> None:
    one = np.uint16(1)
    for i in range(0, plane.size, stride):
        word = plane[i]
        cell: Any = np.int64((word & np.uint32(0x7FFFFFFF)) >> np.uint32(COARSE)) - BASE
        cell = min(max(cell, 0), CELLS - 1)
        if word >> np.uint32(31):
            negative[cell] += one
        else:
            positive[cell] += one


@compiled(AS_WRITTEN)
def keep_where(values: Any, passed: Any) -> None:
    """Set values to zero where ``passed`` is, (K,) float32 each; what is not finite stays."""
    for i in range(values.size):
        value = values[i]
        counts = passed[i] != np.float32(0) or value - value != np.float32(0)
        values[i] = value if counts else np.float32(0)
