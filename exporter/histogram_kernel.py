"""The compiled loops of calibration; the only module that imports numba.

numpy reads an array three times to count and to bound it, at about 2.5 ns an element;
these loops read memory once, at 0.7 ns. They hold no lock while they count, so threads run
side by side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

__all__ = ["TABLES", "tally"]

# Equal neighbours (the zeros behind a ReLU) would each wait for the store of the one before;
# four tables in turn keep four counts of the same bucket under way.
TABLES = 4

_BLOCK = 8192  # words, 32 KiB: bounded and then counted while they lie in the first cache

_Words = npt.NDArray[np.uint32]


def _jit(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile when first called, or take the code from numba's cache on disk."""
    try:
        compiled: Callable[..., Any] = numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # nowhere to keep a cache: a read-only package and no home
        compiled = numba.njit(nogil=True)(function)
    return compiled


def tally(words: _Words, tables: _Words, shift: int) -> tuple[int, int, int]:
    """Add 1 to bucket ``word >> shift`` for each word, and bound the words.

    Args:
        words: Bits of the values, (N,) uint32, N ≥ 1, contiguous.
        tables: Counts, (4, buckets) uint32, added to in place; their sum is the histogram.
        shift: How many low bits a bucket does not tell apart.

    Returns:
        Largest word as a signed integer, largest and smallest as an unsigned one.
    """
    signed, largest, smallest = _tally(words, tables, np.uint32(shift))
    return int(signed), int(largest), int(smallest)


@_jit
def _tally(words: Any, tables: Any, shift: Any) -> Any:
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    one = numba.uint32(1)
    signed = numba.int32(words[0])
    largest = words[0]
    smallest = words[0]
    for start in range(0, words.size, _BLOCK):
        block = words[start : start + _BLOCK]
        for i in range(block.size):  # this loop is vectorized, the other one cannot be
            word = block[i]
            signed = max(signed, numba.int32(word))
            largest = max(largest, word)
            smallest = min(smallest, word)
        whole = block.size // 4 * 4
        for i in range(0, whole, 4):
            first[block[i] >> shift] += one
            second[block[i + 1] >> shift] += one
            third[block[i + 2] >> shift] += one
            fourth[block[i + 3] >> shift] += one
        for i in range(whole, block.size):
            first[block[i] >> shift] += one
    return signed, largest, smallest
