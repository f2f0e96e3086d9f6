"""Pick images by a seed, and stream them in batches.

What is picked depends on the data and the seed, never on the batch size; what a batch holds
depends on its images, never on their neighbours or on timing.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from calib_data.pixels import Tensor
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import InputError

__all__ = ["Indices", "batches", "data_digest", "sample"]

Indices = npt.NDArray[np.int64]
_Parts = deque[Future[list[Tensor]]]

_MAX_THREADS = 4  # decoding must not crowd out the network it feeds
_MAX_PART = 8  # images a job; small, so that leaving early waits for little


def sample(source: Source, count: int | None, *, seed: int = 0) -> Indices:
    """Pick images at random, without replacement.

    Args:
        source: The images.
        count: How many; None for all of them, in the source's own order.
        seed: Another seed, another choice. With the same seed, fewer images are the first
            ones of more.

    Returns:
        Indices into the source, (count,) int64; the same with every version of numpy.

    Raises:
        InputError: Fewer than one image, more than there are, or a negative seed.
    """
    total = len(source)
    if count is None:
        return np.arange(total, dtype=np.int64)
    if not 1 <= count <= total:
        raise InputError(
            f"{count} images asked of {source.name}, which has {total}",
            hint=f"ask for 1 to {total} images",
        )
    if seed < 0:
        raise InputError(f"seed {seed} is negative", hint="give a seed of 0 or more")
    # numpy keeps the bits of PCG64 as they are, but not what Generator makes of them: sorting
    # 64 random bits an image is a permutation that stays. A tie is settled by the image's number.
    keys = np.random.PCG64(seed).random_raw(total)
    return np.argsort(keys, kind="stable")[:count].astype(np.int64)


def data_digest(source: Source, indices: npt.ArrayLike) -> str:
    """Return a SHA-256 that identifies a set of images, in any order: 64 hexadecimal digits.

    Args:
        source: The images.
        indices: Which of them, (N,) integers.

    Raises:
        InputError: An image cannot be read.
    """
    digests = sorted(source.digest(int(index)) for index in np.asarray(indices))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def batches(
    source: Source, indices: npt.ArrayLike, spec: PreprocessSpec | None, *, batch: int
) -> Iterator[tuple[Indices, Tensor]]:
    """Stream images in the order of ``indices``.

    A few threads prepare the next batch while the caller works on this one, and no further
    ones, however slow the caller is: at most three batches are in memory. The threads end with
    the iterator: at its end, at an error, when it is closed or dropped, and at Ctrl-C.

    Args:
        source: The images.
        indices: Which of them, (N,) integers.
        spec: How to prepare them; None when the source is preprocessed.
        batch: Images a batch; the last one may have fewer.

    Yields:
        The indices of a batch, (n,) int64, and its tensor, float32 (n, 3, h, w).

    Raises:
        InputError: ``batch`` is no positive number; or, when its turn comes, an image that is
            broken or does not have the size of the others.
    """
    if batch < 1:
        raise InputError(f"batch size {batch}", hint="give a batch size of 1 or more")
    wanted = np.array(indices, np.int64)
    return _stream(source, [wanted[i : i + batch] for i in range(0, len(wanted), batch)], spec)


def _stream(
    source: Source, chunks: Sequence[Indices], spec: PreprocessSpec | None
) -> Iterator[tuple[Indices, Tensor]]:
    """Yield each chunk of indices with its tensor, one chunk ahead."""
    threads = min(_MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="strata-data")

    def start(chunk: Indices) -> _Parts:
        size = min(_MAX_PART, -(-len(chunk) // threads))
        parts = [chunk[i : i + size] for i in range(0, len(chunk), size)]
        return deque(pool.submit(_prepare, source, part, spec) for part in parts)

    try:
        ahead = start(chunks[0]) if chunks else deque()
        for number, chunk in enumerate(chunks):
            parts, ahead = ahead, start(chunks[number + 1]) if number + 1 < len(chunks) else deque()
            # Not kept in a variable here: the caller alone decides how long a batch lives.
            yield chunk, _join(source, chunk, parts)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _prepare(source: Source, indices: Indices, spec: PreprocessSpec | None) -> list[Tensor]:
    return [source.tensor(int(index), spec) for index in indices]


def _join(source: Source, indices: Indices, parts: _Parts) -> Tensor:
    """Join the parts of a batch, letting go of each: float32, (N, 3, h, w)."""
    joined = np.empty(0, np.float32)
    done = 0
    while parts:
        for tensor in parts.popleft().result():
            if not done:
                joined = np.empty((len(indices), *tensor.shape), np.float32)
            if tensor.shape != joined.shape[1:]:
                raise InputError(
                    f"{source.where(int(indices[done]))} is {_size(tensor)} pixels when prepared, "
                    f"{source.where(int(indices[0]))} {_size(joined[0])}",
                    hint="add a crop to the preprocessing, or resize to a (height, width)",
                )
            joined[done] = tensor
            done += 1
    return joined


def _size(tensor: Tensor) -> str:
    return f"{tensor.shape[2]}×{tensor.shape[1]}"
