"""Count one tensor's values as they come, in one thread."""

from __future__ import annotations

import math
import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import MissingBackendError
from exporter.calibration.counts.channels import CELLS, ChannelCounts, stride_of, turns_of
from exporter.calibration.counts.histogram import BUCKETS, SHIFT, Histogram, every_of

__all__ = ["Tally", "keep_passed"]

_SIGN = BUCKETS // 2
_INF_BITS = 0x7F800000
_MAGNITUDE = 0x7FFFFFFF
_MOST = (1 << 32) - 1  # what one uint32 count holds
_MOST_CELL = (1 << 16) - 1  # what one cell of a channel holds: half the memory is half the misses
_MOST_CHANNELS = 1 << 16  # 32 MiB of cells; a tensor with more has none


class Tally:
    """One thread's counts of one tensor: of all of it, and of each channel (axis 1).

    Costs 2 MiB of address space, but memory only where values fall: some 100 KiB, and 512
    bytes a channel.

    Raises:
        MissingBackendError: numba is not installed.
    """

    def __init__(self) -> None:
        try:  # loads numba, which only those who count need
            from exporter.calibration.counts.plane_kernel import TABLES, tally
        except ImportError as err:
            raise MissingBackendError(
                f"numba cannot be imported ({err})", hint="pip install 'strata[export]'"
            ) from err
        self._kernel = tally
        self._tables = _sparse_table(TABLES, BUCKETS, np.uint32)
        self._cells = np.zeros((2, 0, CELLS), np.uint16)
        self._bounds = np.zeros((0, 3), np.uint32)
        self._channels_known = False
        self._pending = 0  # values in the tables, which could overflow
        self._in_cell = 0  # at most, in any cell
        self._folded = Histogram.empty()
        self._channels = ChannelCounts.empty()
        self._minimum, self._maximum = math.inf, -math.inf
        self._top = 0  # bits of the largest magnitude
        self._signs = False  # whether any sign bit was set, −0 included

    def add(self, values: npt.NDArray[np.float32], turns: Sequence[int] = ()) -> bool:
        """Count an array.

        Args:
            values: float32, any shape; axis 1, if there is one, are channels, as many every
                time.
            turns: Of each image (axis 0), :func:`~exporter.calibration.counts.channels.turn_of` its
                digest; none to count all channels of all images.

        Returns:
            Whether all of them are finite.

        Raises:
            ValueError: Other channels than the first time.
        """
        if values.size == 0:
            return True
        words = np.ascontiguousarray(values).view(np.uint32).reshape(_planes(values.shape))
        if not self._channels_known:
            self._make_cells(values)
        if len(self._bounds) not in (0, words.shape[1]):
            raise ValueError(f"{words.shape[1]} channels after {len(self._bounds)}")
        plane = words.shape[2]
        of_image = -(-plane // stride_of(plane)) if len(self._bounds) else 0
        at_once = _MOST_CELL // max(of_image, 1)
        if len(words) > at_once:
            parts = range(0, len(words), at_once)
            finite = [self.add(values[i : i + at_once], turns[i : i + at_once]) for i in parts]
            return all(finite)
        self._make_room(values.size, len(words) * of_image)
        every = every_of(words[0].size) if values.ndim > 2 else 1
        turn = np.array(turns or [0] * len(words), np.int64)
        sampled = (every, stride_of(plane), turns_of(plane) if turns else 1, turn)
        signed, largest, smallest = self._kernel(
            words, self._tables, SHIFT, self._cells, self._bounds, sampled
        )
        # Bits of positive floats order as the floats do; of negative ones the other way.
        self._maximum = max(self._maximum, _float(signed if signed >= 0 else smallest))
        self._minimum = min(self._minimum, _float(largest if largest >> 31 else smallest))
        self._top = max(self._top, signed, largest & _MAGNITUDE)
        self._signs |= bool(largest >> 31)
        return signed < _INF_BITS and largest & _MAGNITUDE < _INF_BITS

    def histogram(self) -> Histogram:
        """Return what was counted so far."""
        return self._folded + self._in_tables()

    def channels(self) -> ChannelCounts:
        """Return the same, channel by channel."""
        return self._channels + self._in_cells()

    def _make_cells(self, values: npt.NDArray[np.float32]) -> None:
        """Make room for the channels of the first array."""
        self._channels_known = True
        channels = values.shape[1] if values.ndim > 1 else 0
        if 0 < channels <= _MOST_CHANNELS:
            self._cells = _sparse_table(2 * channels, CELLS, np.uint16).reshape(2, channels, CELLS)
            self._bounds = np.empty((channels, 3), np.uint32)
            self._bounds[:] = (1 << 31, 0, _MOST)

    def _in_tables(self) -> Histogram:
        # Only where values can have fallen: to read a page is to make the system map it.
        buckets, counts = [], []
        for start in (0, _SIGN) if self._signs else (0,):
            span = slice(start, start + (self._top >> SHIFT) + 1)
            found = self._tables[:, span].sum(axis=0, dtype=np.int64)
            at = np.flatnonzero(found)
            buckets.append((at + start).astype(np.int32))
            counts.append(found[at])
        joined = np.concatenate(buckets), np.concatenate(counts)
        return Histogram(*joined, self._minimum, self._maximum)

    def _in_cells(self) -> ChannelCounts:
        if not self._pending or not len(self._bounds):
            return ChannelCounts.empty()
        if self._signs:  # of each channel the positive cells, then the negative ones
            cells = self._cells.transpose(1, 0, 2).reshape(-1)
            where = np.flatnonzero(cells).astype(np.int32)
            counts = cells[where]
        else:
            cells = self._cells[0].reshape(-1)
            where = np.flatnonzero(cells).astype(np.int32)
            counts = cells[where]
            where += where // CELLS * CELLS
        signed, largest, smallest = self._bounds.T
        high = np.where(signed >> 31, smallest, signed).astype(np.uint32).view(np.float32)
        low = np.where(largest >> 31, largest, smallest).astype(np.uint32).view(np.float32)
        return ChannelCounts(where, counts.astype(np.int64), low + 0, high + 0)

    def _make_room(self, values: int, in_cell: int) -> None:
        """Empty the tables before a count could overflow."""
        if self._pending + values > _MOST or self._in_cell + in_cell > _MOST_CELL:
            self._folded, self._channels = self.histogram(), self.channels()
            self._tables[:] = 0
            self._cells[:] = 0
            self._pending = self._in_cell = 0
        self._pending += values
        self._in_cell += in_cell


def keep_passed(values: npt.NDArray[np.float32], passed: npt.NDArray[np.float32]) -> None:
    """Set values to zero where a ReLU passes nothing on; NaN and infinities stay.

    Args:
        values: Contiguous, changed in place.
        passed: What the ReLU makes, of the same shape.
    """
    from exporter.calibration.counts.plane_kernel import keep_where

    keep_where(values.reshape(-1), np.ascontiguousarray(passed).reshape(-1))


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Return a shape as (images, channels, values of a channel)."""
    if len(shape) < 2:
        return 1, 1, math.prod(shape)
    return shape[0], shape[1], math.prod(shape[2:])


def _sparse_table(rows: int, columns: int, kind: type[Any]) -> npt.NDArray[Any]:
    """Return zeros, (rows, columns), of which only pages written to take memory."""
    # Private, because reading a page of shared memory allocates it.
    size = rows * columns * np.dtype(kind).itemsize
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        # One value would else bring in 2 MiB where the system prefers huge pages.
        memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype=kind).reshape(rows, columns)


def _float(bits: int) -> float:
    """Return the float32 of these bits; −0 becomes 0."""
    value: Any = np.uint32(bits & 0xFFFFFFFF).view(np.float32)
    return float(value) + 0.0
