"""Choose the factors that make the channels of a tensor alike, from statistics alone.

One scale serves all channels of a tensor: channels that stay far below the largest are left
with few codes. Divided by

    fᵢ = mᵢ^strength,   mᵢ: the magnitude that 99.99 % of channel i's values do not exceed, or a
                        quarter of its largest if that is more,

they come closer together, and what follows takes the factors back exactly
(:mod:`exporter.quantization.scale_channels`). At strength 1 all channels would reach equally far,
and the weights that read them would have to span all of it; one half to three quarters
serves both.

Source: G. Xiao et al., *SmoothQuant*, ICML 2023 (difficulty moved from activations to
weights by a power of the range), with quantiles in place of maxima.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from exporter.calibration.counts.channels import ChannelCounts
from exporter.quantization.balance import balanced
from exporter.quantization.channel_classes import ChannelClasses
from exporter.quantization.channel_steps import STEPS, Steps

__all__ = ["choose_steps", "require_consistent"]

_SHARE = 0.9999
# A channel that is zero but for a few large values would be divided by next to nothing, and these
# few dictate the range of the whole tensor.
_OF_LARGEST = 0.25
_LEAST = 1e-3  # of a tensor's largest channel: dead channels need no code


def choose_steps(
    classes: ChannelClasses,
    channels: Mapping[str, ChannelCounts],
    strength: float,
    *,
    balance: bool = False,
) -> dict[str, Steps]:
    """Return the factors of every tensor that changes, as exponents.

    Args:
        classes: Which channels must have one factor.
        channels: Quantized tensor → its channels. A class takes its largest magnitude over
            all of them; one that is in none keeps its scale.
        strength: 0 for none of it, 1 for channels that reach equally far.
        balance: Let the tensors of a class reach as far as leaves least noise
            (:mod:`exporter.quantization.balance`), not all equally far.

    Returns:
        Tensor → k of f = 2^(k / ``STEPS``) for each channel, (C,) int64; tensors without
        any other than 0 are left out.
    """
    found: list[tuple[Steps, npt.NDArray[np.float64]]] = []
    for name, counts in channels.items():
        ids = classes.of.get(name)
        if ids is None or len(ids) != len(counts):
            continue
        reach = np.maximum(counts.quantile(_SHARE), _OF_LARGEST * counts.amax)
        reach = np.maximum(reach, _LEAST * reach.max(initial=0.0))
        free = ids >= 0
        found.append((ids[free], reach[free]))
    magnitude = np.zeros(classes.count)
    for group in _related(found) if balance else [[pair] for pair in found]:
        ids, reaches = _table(group)
        magnitude[ids] = np.maximum(magnitude[ids], balanced(reaches))
    steps = np.zeros(classes.count)
    known = magnitude > 0
    steps[known] = np.rint(STEPS * strength * np.log2(magnitude[known]))
    return _spread(classes, steps.astype(np.int64))


def require_consistent(classes: ChannelClasses, steps: Mapping[str, Steps]) -> None:
    """Refuse factors that do not fit a graph: it would compute something else.

    Args:
        classes: Of the graph.
        steps: What :func:`choose_steps` returned, perhaps edited since.

    Raises:
        ValueError: A tensor has other channels, or some that keep their scale or are tied to
            channels with another factor.
    """
    found = np.zeros(classes.count, np.int64)
    for name, own in steps.items():
        ids = classes.of.get(name)
        if ids is None or len(ids) != len(own):
            raise ValueError(f"{name!r} has no {len(own)} channels that can be divided")
        found[ids[ids >= 0]] = own[ids >= 0]
    whole = _spread(classes, found)
    for name in sorted(whole.keys() | steps.keys()):
        if name not in steps or name not in whole or not np.array_equal(whole[name], steps[name]):
            raise ValueError(f"those of {name!r} are not divided as others that they are tied to")


def _related(
    found: Sequence[tuple[Steps, npt.NDArray[np.float64]]],
) -> list[list[tuple[Steps, npt.NDArray[np.float64]]]]:
    """Return tensors in groups that share classes with no other group."""
    groups: list[tuple[set[int], list[tuple[Steps, npt.NDArray[np.float64]]]]] = []
    for pair in found:
        ids, members = set(pair[0].tolist()), [pair]
        apart = []
        for other, theirs in groups:
            if ids.isdisjoint(other):
                apart.append((other, theirs))
            else:
                ids, members = ids | other, theirs + members
        groups = [*apart, (ids, members)]
    return [members for _, members in groups]


def _table(
    group: Sequence[tuple[Steps, npt.NDArray[np.float64]]],
) -> tuple[Steps, npt.NDArray[np.float64]]:
    """Return the classes of a group, and what each of its tensors has of each of them."""
    ids = np.unique(np.concatenate([own for own, _ in group]))
    table = np.zeros((len(group), len(ids)))
    for row, (own, reach) in zip(table, group, strict=True):
        np.maximum.at(row, np.searchsorted(ids, own), reach)
    return ids, table


def _spread(classes: ChannelClasses, steps: Steps) -> dict[str, Steps]:
    """Return the steps of each tensor from those of each class, without tensors of zeros."""
    known = np.append(steps, 0)  # −1, a channel that keeps its scale, reads the last one
    chosen = {name: known[ids] for name, ids in classes.of.items()}
    return {name: own for name, own in chosen.items() if own.any()}
