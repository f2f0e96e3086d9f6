"""The compiled loops of calibration, over tensors of which each channel is a plane in memory.

numpy reads an array three times to count and to bound it, at about 2.5 ns an element;
these loops read memory once, at 0.3 ns. They hold no lock while they count, so threads run
side by side.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.compiled import AS_WRITTEN, compiled, prefetch
from exporter.calibration.counts.channels import BASE, CELLS, COARSE
from exporter.calibration.counts.histogram import SHIFT

__all__ = ["TABLES", "TOGETHER", "count_cell", "fetch_cells", "keep_where", "tally_planes"]

# Equal neighbours (the zeros behind a ReLU) would each wait for the store of the one before;
# four tables in turn keep four counts of the same bucket under way.
TABLES = 4

TOGETHER = 16  # channels that are counted at the same places; a multiple of every block's

_CHUNK = 4096  # words, 16 KiB: bounded and then counted while they lie in the first cache
_LINE = 32  # cells that a processor fetches at once, 64 bytes
_BITS = np.uint32(SHIFT)


@compiled(AS_WRITTEN)
def tally_planes(words: Any, tables: Any, cells: Any, bounds: Any, sampled: Any) -> Any:
    """Count words, and bound all of them.

    Args:
        words: Bits of the values, (N, C, P) uint32, not empty, contiguous.
        tables: Counts of buckets, (TABLES, buckets) uint32, added to in place; their sum is the
            histogram.
        cells: Counts of the cells of each channel (:mod:`exporter.calibration.counts.channels`),
            (2, C, CELLS) uint16, positive values first, added to in place; (2, 0, CELLS)
            for no such counts.
        bounds: Of each channel the largest word as a signed integer, and the largest and
            the smallest as an unsigned one, (3, C) uint32, kept up to date in place; (3, 0) for
            none.
        sampled: (every, stride, spread, turns), int64 each. Counted in ``tables`` is every
            every-th place of a plane; in ``cells`` every stride-th place of every spread-th
            channel. ``turns``, (N,), say of each image where to begin.

    Returns:
        Largest word as a signed integer, largest and smallest as an unsigned one.
    """
    every, stride, spread, turns = sampled
    signed, largest, smallest = np.int32(words[0, 0, 0]), words[0, 0, 0], words[0, 0, 0]
    images, width, size = words.shape
    flat = words.reshape(images * width * size)
    together = max(1, _CHUNK // size)  # small planes are counted some at a time
    for image in range(images):
        # No division for each channel, whose plane may be small.
        apart = cells.shape[1] > 0
        due = turns[image] % spread if apart else width
        for first in range(0, width, together):
            start = (image * width + first) * size
            last = min(first + together, width)
            for channel in range(first, last):
                plane = words[image, channel]
                top, most, least = _bounds(plane)
                signed, largest = max(signed, top), max(largest, most)
                smallest = min(smallest, least)
                if apart:
                    bounds[0, channel] = np.uint32(max(np.int32(bounds[0, channel]), top))
                    bounds[1, channel] = max(bounds[1, channel], most)
                    bounds[2, channel] = min(bounds[2, channel], least)
                if channel == due:
                    fetch_cells(cells, channel, most)
                if every > 1:
                    _count(plane[(channel // TOGETHER + turns[image]) % every :: every], tables)
                if channel == due:
                    for i in range(0, size, stride):
                        count_cell(plane[i], cells, channel)
                    due += spread
            if every == 1:
                _count(flat[start : start + (last - first) * size], tables)
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
def _count(block: Any, tables: Any) -> None:
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    one = np.uint32(1)
    whole = block.size // 4 * 4
    for i in range(0, whole, 4):
        first[block[i] >> _BITS] += one
        second[block[i + 1] >> _BITS] += one
        third[block[i + 2] >> _BITS] += one
        fourth[block[i + 3] >> _BITS] += one
    for i in range(whole, block.size):
        first[block[i] >> _BITS] += one


@compiled(AS_WRITTEN)
def fetch_cells(cells: Any, channel: Any, most: Any) -> None:
    """Begin to fetch a channel's cells, which were last used an image ago or longer.

    Args:
        cells: (2, C, CELLS) uint16.
        channel: Of these.
        most: The channel's largest word: whether anything is negative.
    """
    for row in range(1 + (most >> np.uint32(31))):
        for cell in range(0, CELLS, _LINE):
            prefetch(cells[row, channel], cell)


@compiled(AS_WRITTEN)
def count_cell(word: Any, cells: Any, channel: Any) -> None:
    """Add 1 to the cell of a word: in one of a channel's two rows, by its sign."""
    # All unsigned, and no branch: an index that could be negative costs as much as the count.
    cell: Any = (word & np.uint32(0x7FFFFFFF)) >> np.uint32(COARSE)
    cell = min(max(cell, np.uint32(BASE)), np.uint32(BASE + CELLS - 1)) - np.uint32(BASE)
    cells[word >> np.uint32(31), channel, cell] += np.uint16(1)


@compiled(AS_WRITTEN)
def keep_where(values: Any, passed: Any) -> None:
    """Set values to zero where ``passed`` is, (K,) float32 each; what is not finite stays."""
    for i in range(values.size):
        value = values[i]
        counts = passed[i] != np.float32(0) or value - value != np.float32(0)
        values[i] = value if counts else np.float32(0)
