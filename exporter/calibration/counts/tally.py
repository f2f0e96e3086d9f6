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
from exporter.calibration.image_record import record_image

__all__ = ["Tally", "keep_passed", "load_loops"]

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
            from exporter.calibration.counts.block_kernel import tally_blocks
            from exporter.calibration.counts.plane_kernel import TABLES, tally_planes
        except ImportError as err:
            raise MissingBackendError(
                f"numba cannot be imported ({err})", hint="pip install 'strata[export]'"
            ) from err
        self._in_blocks, self._in_planes = tally_blocks, tally_planes
        self._tables = _sparse_table(TABLES, BUCKETS, np.uint32)
        self._cells = np.zeros((2, 0, CELLS), np.uint16)
        self._bounds = np.zeros((3, 0), np.uint32)
        self._channels_known = False
        self._pending = 0  # values in the tables, which could overflow
        self._in_cell = 0  # at most, in any cell
        self._folded = Histogram.empty()
        self._channels = ChannelCounts.empty()
        self._minimum, self._maximum = math.inf, -math.inf
        self._top = 0  # bits of the largest magnitude
        self._signs = False  # whether any sign bit was set, −0 included

    def add(
        self, values: npt.NDArray[np.float32], turns: Sequence[int] = (), *, channels: int = 0
    ) -> bool:
        """Count an array.

        Args:
            values: float32, any shape; axis 1, if there is one, are channels, as many every
                time. Or in blocks of channels, (N, G, P, B).
            turns: Of each image (axis 0), :func:`~exporter.calibration.counts.channels.turn_of`
                its digest; none to count all channels of all images.
            channels: How many there are in the blocks; 0 for an array that is not in blocks.

        Returns:
            Whether all of them are finite.

        Raises:
            ValueError: Other channels than the first time.
        """
        if values.size == 0:
            return True
        shape = (len(values), channels, values.shape[2]) if channels else _planes(values.shape)
        if not self._channels_known:
            self._make_cells(shape[1] if values.ndim > 1 else 0)
        known = self._bounds.shape[1]
        if known not in (0, shape[1]):
            raise ValueError(f"{shape[1]} channels after {known}")
        of_image = -(-shape[2] // stride_of(shape[2])) if known else 0
        at_once = _MOST_CELL // max(of_image, 1)
        if shape[0] > at_once:
            parts = [slice(i, i + at_once) for i in range(0, shape[0], at_once)]
            finite = [self.add(values[p], turns[p], channels=channels) for p in parts]
            return all(finite)
        self._make_room(math.prod(shape), shape[0] * of_image)
        words = np.ascontiguousarray(values).view(np.uint32)
        sampled = _sampled(shape, turns, whole=values.ndim <= 2)
        room = self._tables, self._cells, self._bounds, sampled
        if channels:
            found = self._in_blocks(words, channels, *room)
        else:
            found = self._in_planes(words.reshape(shape), *room)
        signed, largest, smallest = map(int, found)
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

    def _make_cells(self, channels: int) -> None:
        """Make room for the channels of the first array."""
        self._channels_known = True
        if 0 < channels <= _MOST_CHANNELS:
            self._cells = _sparse_table(2 * channels, CELLS, np.uint16).reshape(2, channels, CELLS)
            self._bounds = np.empty((3, channels), np.uint32)
            self._bounds.T[:] = (1 << 31, 0, _MOST)

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
        if not self._pending or not self._bounds.size:
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
        signed, largest, smallest = self._bounds
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


def load_loops() -> None:
    """Load the compiled loops, which takes a moment, before they are needed.

    Raises:
        MissingBackendError: numba is not installed.
    """
    ones = np.ones((1, 1, 1, 16), np.float32)
    Tally().add(ones, [0])
    Tally().add(ones, [0], channels=16)
    keep_passed(ones, ones)
    record_image("", ones[0])


def _sampled(shape: tuple[int, int, int], turns: Sequence[int], *, whole: bool) -> Any:
    """Return which values are counted, as the compiled loops are told it.

    Args:
        shape: Images, channels, values of a channel.
        turns: Of each image; none to count all its channels.
        whole: Whether every value of an image is counted.
    """
    images, channels, plane = shape
    every = 1 if whole else every_of(channels * plane)
    spread = turns_of(plane) if turns else 1
    turn = np.array(turns or [0] * images, np.int64)
    return np.int64(every), np.int64(stride_of(plane)), np.int64(spread), turn


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
