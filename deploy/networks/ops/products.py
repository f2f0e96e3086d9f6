"""Matrix products of convolutions: in blocks, spread over the CPUs, bias included."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from deploy.networks.ops.base import Array
from deploy.networks.ops.threads import spread, workers

__all__ = ["FEWEST_COLUMNS", "pointwise", "product", "spread_product"]

FEWEST_COLUMNS = 256  # of a product; with fewer, BLAS spends its time on fetching the factors
_FEWEST_STEPS = 1 << 22  # multiplications worth waking another thread for


def product(factors: Array, columns: Array, bias: Array | None, out: Array) -> None:
    """Write factors · columns + bias.

    Args:
        factors: (groups, K, D).
        columns: (groups, D, N).
        bias: (groups, K), or None.
        out: (groups, K, N); rows may lie apart.
    """
    np.matmul(factors, columns, out=out)
    if bias is not None:
        out += bias[..., None]


def spread_product(factors: Array, columns: Array, bias: Array | None, out: Array) -> None:
    """Write the same as :func:`product`, with the work spread over the CPUs."""
    groups, filters, depth = factors.shape
    count = columns.shape[2]
    if groups * filters * depth * count < _FEWEST_STEPS:
        product(factors, columns, bias, out)
        return
    axis = max(range(3), key=(groups, filters, count).__getitem__)

    def work(part: slice) -> None:
        g, k, n = (part if axis == at else slice(None) for at in range(3))
        some = None if bias is None else bias[g, k]
        product(factors[g, k], columns[g, :, n], some, out[g, k, n])

    spread(work, cuts((groups, filters, count)[axis], workers()))


def pointwise(x: Array, kernel: Array, bias: Array | None, out: Array) -> None:
    """Write the 1×1 convolution of (n, C, H, W) by (K, C) to ``out``, (n, K, H, W)."""
    n, channels, *size = x.shape
    positions = size[0] * size[1]
    factors, offset = kernel[None], None if bias is None else bias[None]
    flat = out.reshape(n, 1, len(kernel), positions)

    def one(image: int) -> None:
        product(factors, x[image].reshape(1, channels, positions), offset, flat[image])

    def several(part: slice) -> None:
        some = x[part].transpose(1, 0, 2, 3)
        work = np.empty((1, len(kernel), some[0].size), np.float32)
        product(factors, some.reshape(1, channels, -1), offset, work)
        out[part] = work.reshape(-1, *some.shape[1:]).transpose(1, 0, 2, 3)

    if positions < FEWEST_COLUMNS and n > 1:
        most = -(-n * positions // (4 * FEWEST_COLUMNS))
        spread(several, cuts(n, max(most, workers())))
    elif n < workers():
        for image in range(n):
            columns = x[image].reshape(1, channels, positions)
            spread_product(factors, columns, offset, flat[image])
    else:
        spread(one, range(n))


def cuts(length: int, parts: int) -> Sequence[slice]:
    """Cut ``range(length)`` into at most ``parts`` slices of nearly one length."""
    parts = max(1, min(parts, length))
    ends = [length * part // parts for part in range(parts + 1)]
    return [slice(first, last) for first, last in pairwise(ends)]
