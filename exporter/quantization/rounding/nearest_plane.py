"""Round the weights of a layer together, so that their errors make up for one another.

A layer's output errs by Σᵢ eᵢxᵢ where its weights err by e = w − q, steps of their codes. With C
the covariance of what it reads, the variance of that is

    eᵀ·C·e = ‖R·e‖² = Σₖ (Rₖₖeₖ + Σⱼ﹥ₖ Rₖⱼeⱼ)²,      C = RᵀR, R upper triangular.

Taken from the last to the first, each weight can make up for those that were rounded before it:

    qₖ = the nearest code of  wₖ + Σⱼ﹥ₖ (Rₖⱼ / Rₖₖ)·eⱼ.

Those of inputs that vary most go first: the others correct them, and cost little themselves.
The mean of the error is the bias's to take up; where it does not, C is taken about 0.

Only the two codes next to a weight are taken. That costs nothing that could be measured, no
weight goes far from where it was trained, and few images suffice: what they do not show, they
cannot spoil. C has 1 + ``_DAMPING`` times its variances on its diagonal, for the same reason.

Sources: L. Babai, *On Lovász' lattice reduction and the nearest lattice point problem*,
Combinatorica 1986; E. Frantar et al., *GPTQ*, ICLR 2023 (the same of weights of networks);
M. Nagel et al., *Up or Down?*, ICML 2020 (the two neighbours).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.int8 import QMAX, Int8Array

__all__ = ["round_together"]

_DAMPING = 0.1
_BLOCK = 128  # weights of a row that are worked on one by one; the others by products of matrices

_Floats = npt.NDArray[np.float32]


def round_together(weights: _Floats, reads: _Floats, *, centred: bool) -> Int8Array:
    """Return the codes of a layer's weights.

    Args:
        weights: In steps of their codes, (M, K) float32: row by row the weights of one output.
        reads: Samples of what they are multiplied by, (P, K) float32; any units.
        centred: Whether the bias takes up the mean of the error.

    Returns:
        (M, K) int8 within ±127: of each weight one of the two codes next to it, the nearest one
        where its input never varies, or is never other than 0.
    """
    codes = np.clip(np.rint(weights), -QMAX, QMAX)
    if centred:
        reads = reads - reads.mean(axis=0, dtype=np.float64).astype(np.float32)
    spread = np.sqrt(np.mean(np.square(reads), axis=0, dtype=np.float64)).astype(np.float32)
    order = np.argsort(spread, kind="stable")
    order = order[np.isfinite(spread[order]) & (spread[order] > 0)]
    if len(order):
        spread = spread[order]
        root = _root(reads[:, order] / spread)
        codes[:, order] = _nearest_plane(weights[:, order].T, root, spread).T
    return codes.astype(np.int8)


def _root(unit: _Floats) -> _Floats:
    """Return R of samples whose columns have variance 1, (K, K) upper triangular."""
    covariance = unit.T @ unit
    covariance /= np.float32(len(unit))
    covariance[np.diag_indices(len(covariance))] += np.float32(_DAMPING)
    _factorize(covariance)
    return covariance.T


def _factorize(matrix: _Floats) -> None:
    """Put L of a matrix C = L·Lᵀ into its lower triangle, (K, K), positive definite.

    Block column after block column, mostly products of matrices: for 4,608 weights eight times as
    fast as ``np.linalg.cholesky`` of numpy 2.4, and in place. What is above the diagonal stays.
    """
    for start in range(0, len(matrix), _BLOCK):
        stop = min(start + _BLOCK, len(matrix))
        matrix[start:, start:stop] -= matrix[start:, :start] @ matrix[start:stop, :start].T
        corner = np.linalg.cholesky(matrix[start:stop, start:stop])
        matrix[start:stop, start:stop] = corner
        matrix[stop:, start:stop] = matrix[stop:, start:stop] @ np.linalg.inv(corner).T


def _nearest_plane(weights: _Floats, root: _Floats, spread: _Floats) -> _Floats:
    """Return the codes, (K, M), of weights (K, M), whose input k is ``spread[k]`` units wide."""
    low = np.clip(np.floor(weights), -QMAX, QMAX)
    high = np.clip(np.ceil(weights), -QMAX, QMAX)
    steps = np.diag(root) * spread
    codes, errors = np.empty_like(low), np.zeros_like(low)  # errors in units of the inputs
    for stop in range(len(weights), 0, -_BLOCK):
        start = max(0, stop - _BLOCK)
        pulls = root[start:stop, stop:] @ errors[stop:]
        for k in range(stop - 1, start - 1, -1):
            pull = pulls[k - start] + root[k, k + 1 : stop] @ errors[k + 1 : stop]
            target = np.rint(weights[k] + pull / steps[k])
            codes[k] = np.clip(target, low[k], high[k])
            errors[k] = (weights[k] - codes[k]) * spread[k]
    return codes
