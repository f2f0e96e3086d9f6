"""The compiled loop over tensors that ONNX Runtime holds in blocks of channels.

    in planes:   image, channel, place
    in blocks:   image, block, place, channel of the block

On a CPU with AVX its convolutions compute so, 8 or 16 channels at a time, and to put what they
made in planes costs as much time as to count it. What is counted is the same in both.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from core.compiled import AS_WRITTEN, compiled, prefetch
from exporter.calibration.counts.histogram import SHIFT
from exporter.calibration.counts.plane_kernel import TOGETHER, count_cell, fetch_cells

__all__ = ["tally_blocks"]

_BITS = np.uint32(SHIFT)
_LANES = 16  # words bounded at once: a register of AVX-512, two of AVX
_ROWS = 4 * _LANES
_AHEAD = 8 * _ROWS  # words that are fetched ahead of the one that is bounded


@compiled(AS_WRITTEN)
def tally_blocks(
    words: Any, channels: Any, tables: Any, cells: Any, bounds: Any, sampled: Any
) -> Any:
    """Count words, and bound all of them.

    Args:
        words: Bits of the values, (N, G, P, B) uint32, not empty, contiguous; B divides 16.
        channels: How many there are, ≤ G·B; what fills up the last block is left out.
        tables: Counts of buckets; this and the others as in
            :func:`~exporter.calibration.counts.plane_kernel.tally_planes`.
        cells: Counts of the cells of each channel.
        bounds: Of each channel.
        sampled: What is counted.

    Returns:
        Largest word as a signed integer, largest and smallest as an unsigned one.
    """
    every, stride, spread, turns = sampled
    images, blocks, size, width = words.shape
    apart = cells.shape[1] > 0
    signed, largest, smallest = np.int32(words[0, 0, 0, 0]), words[0, 0, 0, 0], words[0, 0, 0, 0]
    tops = np.empty(_LANES, np.int32)
    mosts, leasts = np.empty(_LANES, np.uint32), np.empty(_LANES, np.uint32)
    for image in range(images):
        turn = turns[image]
        for block in range(blocks):
            begin = block * width
            lanes = min(width, channels - begin)
            rows = words[image, block]
            _bound_lanes(rows.reshape(size * width), width, tops, mosts, leasts)
            for lane in range(lanes):
                signed, largest = max(signed, tops[lane]), max(largest, mosts[lane])
                smallest = min(smallest, leasts[lane])
            due = (turn - begin) % spread if apart else lanes
            if apart:
                _widen(bounds[:, begin : begin + lanes], tops, mosts, leasts)
            for lane in range(due, lanes, spread):
                fetch_cells(cells, begin + lane, mosts[lane])
            _count_lanes(rows[(begin // TOGETHER + turn) % every :: every, :lanes], tables)
            for lane in range(due, lanes, spread):
                for i in range(0, size, stride):
                    count_cell(rows[i, lane], cells, begin + lane)
    return signed, largest, smallest


@compiled(AS_WRITTEN)
def _bound_lanes(flat: Any, width: Any, tops: Any, mosts: Any, leasts: Any) -> None:
    """Bound every width-th word of ``flat``, from each of the first ``width`` on."""
    tops[:], mosts[:], leasts[:] = np.int32(-(2**31)), np.uint32(0), np.uint32(2**32 - 1)
    whole = flat.size // _ROWS * _ROWS
    for i in range(0, whole, _ROWS):
        for j in range(0, _ROWS, _LANES):
            prefetch(flat, i + _AHEAD + j)
        for j in range(_LANES):  # vectorized, and four of a lane at once
            a, b = flat[i + j], flat[i + j + _LANES]
            c, d = flat[i + j + 2 * _LANES], flat[i + j + 3 * _LANES]
            top = max(max(np.int32(a), np.int32(b)), max(np.int32(c), np.int32(d)))
            tops[j] = max(tops[j], top)
            mosts[j] = max(mosts[j], max(max(a, b), max(c, d)))
            leasts[j] = min(leasts[j], min(min(a, b), min(c, d)))
    for i in range(whole, flat.size):
        j = i % _LANES
        tops[j] = max(tops[j], np.int32(flat[i]))
        mosts[j], leasts[j] = max(mosts[j], flat[i]), min(leasts[j], flat[i])
    for j in range(width, _LANES):
        lane = j % width
        tops[lane], mosts[lane] = max(tops[lane], tops[j]), max(mosts[lane], mosts[j])
        leasts[lane] = min(leasts[lane], leasts[j])


@compiled(AS_WRITTEN)
def _widen(bounds: Any, tops: Any, mosts: Any, leasts: Any) -> None:
    """Take each lane's largest word, signed and unsigned, and its smallest into its bounds."""
    for lane in range(bounds.shape[1]):
        bounds[0, lane] = np.uint32(max(np.int32(bounds[0, lane]), tops[lane]))
        bounds[1, lane] = max(bounds[1, lane], mosts[lane])
        bounds[2, lane] = min(bounds[2, lane], leasts[lane])


@compiled(AS_WRITTEN)
def _count_lanes(rows: Any, tables: Any) -> None:
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    one = np.uint32(1)
    lanes = rows.shape[1]
    whole = lanes // 4 * 4
    for i in range(rows.shape[0]):
        row = rows[i]
        for lane in range(0, whole, 4):
            first[row[lane] >> _BITS] += one
            second[row[lane + 1] >> _BITS] += one
            third[row[lane + 2] >> _BITS] += one
            fourth[row[lane + 3] >> _BITS] += one
        for lane in range(whole, lanes):
            first[row[lane] >> _BITS] += one
