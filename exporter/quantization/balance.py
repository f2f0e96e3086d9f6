"""How far each of the tensors that share their channels' factors should reach.

The tensors T of a residual stream are all divided by the same factors f. With mᵢ(T) the magnitude
of channel i and R(T) the magnitude that T keeps after the division, the factors must be at least

    fᵢ = maxₜ mᵢ(T) / R(T),

and the rounding of T, which keeps maxᵢ mᵢ(T) / fᵢ ≤ R(T), adds noise of the square of that times
fᵢ² / (12·127²) to channel i. Equal reaches let the one tensor with the largest channels widen the
factors of all. What all of them add together,

    J(R) = Σᵢ fᵢ² · Σₜ maxᵢ (mᵢ(T) / fᵢ)²,

is searched for its least instead, one reach after the other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["balanced"]

_FIRST_STEP, _LAST_STEP = 1.0, 1 / 16  # octaves of a reach

_Floats = npt.NDArray[np.float64]


def balanced(magnitudes: _Floats) -> _Floats:
    """Return the magnitude that each channel's factor goes by.

    Args:
        magnitudes: mᵢ(T), (tensors, channels) float64, ≥ 0; 0 where a tensor lacks a channel.

    Returns:
        (channels,) float64: maxₜ mᵢ(T) / R(T) at the least J; the largest magnitude itself of
        one tensor alone.
    """
    octaves = np.zeros(len(magnitudes))
    best = _noise(magnitudes, octaves)
    step = _FIRST_STEP if len(magnitudes) > 1 else 0.0
    while step >= _LAST_STEP:
        better = False
        for at in range(len(octaves)):
            for move in (step, -step):
                tried = octaves.copy()
                tried[at] += move
                noise = _noise(magnitudes, tried)
                if noise < best * (1 - 1e-9):
                    best, octaves, better = noise, tried, True
        if not better:
            step /= 2
    return np.asarray((magnitudes / np.exp2(octaves)[:, None]).max(axis=0))


def _noise(magnitudes: _Floats, octaves: _Floats) -> float:
    factors = (magnitudes / np.exp2(octaves)[:, None]).max(axis=0)
    used = factors > 0
    kept = (magnitudes[:, used] / factors[used]).max(axis=1, initial=0.0)
    return float(np.sum(factors**2) * np.sum(kept**2))
