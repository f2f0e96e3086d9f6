"""Weights and biases of one layer on both sides: do they agree up to their rounding?

Only where both sides make a tensor by a product of the same tensor: what they compute is the
same function then, so their parameters must be the same, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.layer_facts import LayerFacts
from deploy.comparison.graphs.layer_weights import Weights
from deploy.comparison.values.verdict import Reason

__all__ = ["OwnError", "ParameterFault", "parameter_fault"]

Array = npt.NDArray[Any]

_ROUNDED = 1.0 / math.sqrt(12.0)  # steps: the rounding of a weight in the mean
_MOST = 0.6  # steps: what learned rounding comes to, which may round to the farther code
_UNITS = {"FP16": 2.0**-11, "BF16": 2.0**-8}
_UNIT_32 = 2.0**-24
_SUBNORMAL = 2.0**-24  # the last bit of float16's smallest numbers
_LAST_BITS = 16.0  # of a float weight, folded in another order
_MOVED = 1e-3  # of the largest bias
_DROPPED = 0.5  # how much of a missing bias must show in the error
_SURE = 4.0  # standard deviations: what rounding does to a few images by chance is less


@dataclass(frozen=True, slots=True, eq=False)
class OwnError:
    """What was measured of a layer that is fed the reference's tensors, and what to expect.

    Attributes:
        drift: Its mean, (outputs,).
        noise: Its mean square to expect, (outputs,); None when unknown.
        images: How many it was measured on.
    """

    drift: Array
    noise: Array | None
    images: int


@dataclass(frozen=True, slots=True)
class ParameterFault:
    """Parameters that do not agree.

    Attributes:
        reason: A weight, a channel of it, or the bias.
        excess_db: By how much they are farther apart than rounding leaves them.
        text: What was seen.
        channel: The one that is farthest.
    """

    reason: Reason
    excess_db: float
    text: str
    channel: int


def parameter_fault(
    reference: LayerFacts | None,
    candidate: LayerFacts,
    *,
    shifted: bool,
    error: OwnError | None,
) -> ParameterFault | None:
    """Return how the parameters of a layer differ beyond rounding; None when they agree.

    Args:
        reference: The layer that makes the tensor there.
        candidate: The layer that makes it here.
        shifted: Whether a constant was taken off what it reads or makes: its bias makes up
            for that, and is not the reference's.
        error: Its own error; None when that was not measured.
    """
    ours, theirs = candidate.weights, reference.weights if reference else None
    if reference is None or ours is None or theirs is None:
        return None
    if [s.tensor for s in reference.sources] != [s.tensor for s in candidate.sources]:
        return None
    if ours.values.shape != theirs.values.shape or ours.groups != theirs.groups:
        return None
    unit = max(_UNITS.get(side.precision, _UNIT_32) for side in (reference, candidate))
    fault = _weights(theirs, ours, unit)
    if fault is None and not shifted:
        fault = _bias(theirs, ours, error)
    return fault


def _weights(theirs: Weights, ours: Weights, unit: float) -> ParameterFault | None:
    """Compare weights in steps of their codes, or in last bits."""
    apart, size = np.empty(len(ours.values)), np.empty(len(ours.values))
    for part in ours.parts():
        own, there = (w.values[part].astype(np.float64) for w in (ours, theirs))
        apart[part] = np.sqrt(np.mean((own - there) ** 2, axis=(1, 2)))
        size[part] = np.sqrt(np.mean(there**2, axis=(1, 2)))
    if ours.step is not None:
        step = np.sqrt(np.mean(ours.step.astype(np.float64) ** 2, axis=1))
        allowed = step * _MOST
        # Codes of a step that suits the channel: a larger one would explain anything.
        allowed = np.minimum(allowed, np.maximum(size, np.finfo(np.float32).tiny))
        usual = step * _ROUNDED
    else:
        smallest = _SUBNORMAL if unit == _UNITS["FP16"] else float(np.finfo(np.float32).tiny)
        allowed = usual = _LAST_BITS * unit * size + smallest
    beyond = np.flatnonzero(~(apart <= allowed))
    if not len(beyond):
        return None
    ratios = apart[beyond] / np.maximum(usual[beyond], np.finfo(np.float64).tiny)
    channel = int(beyond[int(np.argmax(np.nan_to_num(ratios, nan=np.inf)))])
    excess = 20.0 * math.log10(max(float(np.max(ratios)), 1.0))
    share = apart[channel] / max(float(size[channel]), np.finfo(np.float64).tiny)
    alone = len(beyond) <= max(2, len(apart) // 16)
    what = f"channel {channel}" if alone else f"{len(beyond)} of {len(apart)} channels"
    text = f"the weights of {what} are not the reference's (off by {share:.0%} of their size)"
    return ParameterFault(Reason.CHANNEL if alone else Reason.WEIGHT, excess, text, channel)


def _bias(theirs: Weights, ours: Weights, error: OwnError | None) -> ParameterFault | None:
    """Compare biases; one that was moved to make up for rounding is no fault."""
    zeros = np.zeros(len(ours.values))
    b, a = (zeros if w.bias is None else w.bias.astype(np.float64) for w in (ours, theirs))
    delta = b - a
    largest = float(np.abs(a).max()) if len(a) else 0.0
    power = float(delta @ delta)
    if not power > 0 or float(np.abs(delta).max()) <= _MOVED * largest:
        return None
    dropped = not b.any()
    if not (dropped or (error is not None and _shows(delta, error))):
        return None
    channel = int(np.argmax(np.abs(delta)))
    noise = None if error is None else error.noise
    expected = float(noise.sum()) if noise is not None else 0.0
    excess = 10.0 * math.log10(power / expected) if expected > 0 else 0.0
    seen = "is missing" if dropped else "is not the reference's"
    text = f"the bias {seen} (channel {channel}: {b[channel]:.4g}, there {a[channel]:.4g})"
    return ParameterFault(Reason.BIAS, max(excess, 0.0), text, channel)


def _shows(delta: Array, error: OwnError) -> bool:
    """Tell whether the outputs moved as far as the bias did, and not by chance.

    A bias that makes up for rounding leaves a mean error of nought over many images; over a few,
    the mean of what rounding adds is as large as such a bias. An image counts once, and channels
    as if they erred together: the errors within one image do.
    """
    shown = float(error.drift @ delta)
    if error.noise is None:
        chance = 0.0
    else:
        chance = float(np.abs(delta) @ np.sqrt(error.noise)) / math.sqrt(max(error.images, 1))
    return shown > max(_DROPPED * float(delta @ delta), _SURE * chance)
