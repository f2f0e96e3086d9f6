"""The error that a layer's precision and scales account for, computed channel by channel.

A layer that is fed the reference's tensors and only rounds makes noise of three kinds:

- its inputs are codes: what the quantizer makes of the reference's tensor was measured, its
  mean μ and variance σ² in each channel. Through weights w it becomes
  Σ w²·σ² + (Σ w·μ)²; through a sum, Σσ² + (Σμ)²; through a mean over K values, σ²/K + μ²;
- its weights are codes: step²/12 a weight, times the mean square of what it multiplies;
- its numbers have so many bits: u = 2⁻²⁴ or 2⁻¹¹ of each product and of the result.

Where the reference computes with the same codes, the first two fall away.

Source: B. Widrow, I. Kollár, *Quantization Noise* (2008), chapters 4 and 5 (uniform rounding
noise of variance step²/12, added up as if independent).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.layer_facts import Kind, LayerFacts
from deploy.comparison.graphs.layer_weights import Weights
from deploy.comparison.graphs.lineage import Source
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.pair_sums import PairSums
from deploy.comparison.sums.step_sums import StepSums, read_of
from deploy.comparison.values.measures import Explained

__all__ = ["CHANNEL_DB", "Reference", "channels_beyond", "expected_noise", "explain"]

Array = npt.NDArray[Any]

# One channel's noise scatters about its expectation: with inputs that go up and down together
# its rounding errors add up to one number, whose square is 24 times its mean once in a million.
CHANNEL_DB = 14.0
_FLIPPED = 1e-4  # of the codes, when two right evaluations of one quantizer meet an edge
_UNIT = {"float16": 2.0**-11, "FP16": 2.0**-11, "bfloat16": 2.0**-8, "BF16": 2.0**-8}
_UNIT_32 = 2.0**-24


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """What the reference quantizes alike: nothing of that is the candidate's error.

    Attributes:
        quantizers: Of its activations.
        facts: Of the layer that makes the same tensor; None when there are none.
    """

    quantizers: Mapping[str, Quantizer]
    facts: LayerFacts | None

    def same_steps(self, weights: Weights) -> bool:
        """Tell whether the reference's layer has weights of the same codes."""
        own = self.facts.weights if self.facts else None
        if own is None or own.step is None or weights.step is None:
            return False
        return own.values.shape == weights.values.shape and np.array_equal(own.step, weights.step)


def explain(own: PairSums, expected: Array | None) -> Explained:
    """Hold the own error of a tensor against its expectation.

    Args:
        own: Sums of the error; of some elements.
        expected: Mean square to expect, (channels,); None when it is unknown.
    """
    if expected is None or own.nonfinite:
        return Explained(None, None)
    noise = own.noise / own.elements
    total, signal = float(expected.sum()), float(own.signal.sum()) / own.elements
    if not (total > 0 and math.isfinite(total)):
        return Explained(None, None)
    decibels = 10.0 * math.log10(signal / total) if signal else -math.inf
    excess = _decibels(float(noise.sum()) / total)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(noise > 0, noise / np.maximum(expected, total * 1e-12), 0.0)
    channel = int(np.argmax(ratios))
    alone = _decibels(float(ratios[channel])) - CHANNEL_DB
    if alone > excess and len(ratios) > 1:
        return Explained(decibels, alone, channel)
    return Explained(decibels, excess)


def channels_beyond(own: PairSums, expected: Array, excess_db: float) -> tuple[int, ...]:
    """Return the channels whose own error is larger than one channel's may be by chance.

    Args:
        own: Sums of the error.
        expected: Mean square to expect, (channels,).
        excess_db: What is allowed beyond that.
    """
    noise = own.noise / own.elements
    most = np.maximum(expected, float(expected.sum()) * 1e-12)
    beyond = noise > most * 10.0 ** ((CHANNEL_DB + excess_db) / 10.0)
    return tuple(map(int, np.flatnonzero(beyond)))


def _decibels(ratio: float) -> float:
    return 10.0 * math.log10(ratio) if ratio > 0 else -math.inf


def expected_noise(
    facts: LayerFacts, step: StepSums, reference: Reference, codes: Array | None = None
) -> Array | None:
    """Return the mean square of the own error to expect, (channels,); None when unknown.

    Args:
        facts: Of a layer whose own error was measured.
        step: The sums.
        reference: What the reference makes alike.
        codes: What the codes of its inputs were seen to do, (channels,), on some images; where
            that is more than is computed, it takes its place.
    """
    computed = _expected(facts, step, reference, None)
    if computed is None or codes is None or len(codes) != len(computed):
        return computed
    seen = _expected(facts, step, reference, codes)
    return computed if seen is None else np.maximum(computed, seen)


def _expected(
    facts: LayerFacts, step: StepSums, reference: Reference, codes: Array | None
) -> Array | None:
    """Return what is to be expected if codes do this; None to compute it."""
    if not facts.sources or facts.kind is Kind.UNKNOWN:
        return None
    if any(source.tensor not in step.inherited for source in facts.sources):
        return None
    own = step.own[facts.tensor]
    inputs = [_Input.of(s, step, reference, facts) for s in facts.sources]
    if codes is not None:
        inputs = [replace(i, mean=0.0 * i.mean, variance=0.0 * i.variance) for i in inputs]
    unit = max(_unit(facts.precision), *map(_unit, step.seen[facts.tensor].dtypes))
    made = own.signal / own.elements
    last_bit = unit**2 * (made + _taken_off(facts.tensor, step, len(made)) ** 2)
    noise = _passed(facts, inputs, step, reference, unit)
    if noise is None or len(noise) != len(made):
        return None
    return np.asarray(noise + last_bit + (0.0 if codes is None else codes))


def _passed(
    facts: LayerFacts,
    inputs: list[_Input],
    step: StepSums,
    reference: Reference,
    unit: float,
) -> Array | None:
    """Return the noise that a layer passes on, and that of its weights."""
    if facts.kind is Kind.PRODUCT and facts.weights is not None:
        same = reference.same_steps(facts.weights)
        coverage = _coverage(facts, step)
        return _product(facts.weights, inputs[0], (unit, coverage), same_weights=same)
    if facts.kind is Kind.CONCAT:
        return np.concatenate([i.variance + i.mean**2 for i in inputs])
    if len({len(i.variance) for i in inputs}) != 1:
        return None
    variance = np.sum([i.variance for i in inputs], axis=0)
    mean = np.sum([np.abs(i.mean) for i in inputs], axis=0)
    energy = np.sum([i.energy for i in inputs], axis=0)
    if facts.kind is Kind.MEAN:
        window = step.inherited[facts.sources[0].tensor].elements / step.own[facts.tensor].elements
        return np.asarray(variance / max(window, 1.0) + mean**2 + unit**2 * energy)
    return np.asarray(variance + mean**2 + unit**2 * energy)


def _coverage(facts: LayerFacts, step: StepSums) -> Array:
    """Return the share of outputs for which each tap reads the input, not its padding."""
    window = facts.weights.window if facts.weights else None
    inputs = step.seen[facts.sources[0].tensor].shapes[0][2:]
    outputs = step.seen[facts.tensor].shapes[0][2:]
    if window is None or not len(inputs) == len(outputs) == len(window.kernel):
        return np.ones(1)
    return window.coverage(tuple(map(int, inputs)), tuple(map(int, outputs)))


def _product(
    weights: Weights, x: _Input, numbers: tuple[float, Array], *, same_weights: bool
) -> Array | None:
    """Return the noise of a convolution or matrix product, (outputs,)."""
    unit, coverage = numbers
    outputs, inner, taps = weights.values.shape
    groups = weights.groups
    if inner * groups != len(x.variance) or outputs % groups:
        return None
    covered = np.broadcast_to(coverage, taps)
    group_of = np.arange(outputs) // (outputs // groups)
    noise, products = np.empty(outputs), np.empty(outputs)
    for part in weights.parts():

        def through(matrix: Array, vector: Array, part: slice = part) -> Array:
            each = vector.reshape(groups, inner)
            if groups == 1:
                return np.asarray(matrix @ each[0])
            return np.asarray(np.einsum("oi,oi->o", matrix, each[group_of[part]]))

        w = weights.values[part].astype(np.float64)
        squares, sums = (w * w) @ covered, w @ covered
        products[part] = through(squares, x.energy)
        noise[part] = through(squares, x.variance) + through(sums, x.mean) ** 2
        if weights.step is not None and not same_weights:
            steps = np.broadcast_to(weights.step, (outputs, inner))[part].astype(np.float64)
            noise[part] += through(steps**2, x.signal) / 12.0 * covered.sum()
    # Inputs and weights are rounded to the type; sums are taken in float32, and their partial
    # sums may be as large as all of it.
    sums_noise = _UNIT_32**2 * (1.0 + math.sqrt(inner * taps)) * products
    return np.asarray(noise + unit**2 * products + sums_noise)


@dataclass(frozen=True, slots=True, eq=False)
class _Input:
    """What a layer reads, channel by channel.

    Attributes:
        mean: Of the noise of its codes.
        variance: Likewise.
        energy: Mean square of what the layer multiplies, a constant taken off or not.
        signal: Mean square of the whole tensor. That is what the errors of weights multiply: the
            bias that makes up for the constant is made of the weights as they are.
    """

    mean: Array
    variance: Array
    energy: Array
    signal: Array

    @classmethod
    def of(cls, source: Source, step: StepSums, reference: Reference, facts: LayerFacts) -> _Input:
        window = facts.weights.window if facts.weights else None
        strided = window is not None and window.skips
        precision = facts.precision
        part = read_of(source.tensor)
        name = part if strided and part in step.inherited else source.tensor
        pair = step.inherited[name]
        shift = _taken_off(source.tensor, step, len(pair.sums))
        average = pair.sums[:, 0] / pair.elements
        signal = pair.signal / pair.elements
        energy = signal - 2.0 * shift * average + shift**2
        zero = np.zeros(len(energy))
        unit = max(_UNIT.get(name, 0.0) for name in (precision, *step.seen[source.tensor].dtypes))
        cast = unit**2 * signal
        quantizer = step.quantizers.get(source.tensor)
        if not source.quantized or quantizer is None or name not in step.rounding:
            return cls(zero, cast, energy, signal)
        if quantizer.same_codes(reference.quantizers.get(source.tensor)):
            return cls(zero, cast + _FLIPPED * quantizer.steps(len(zero)) ** 2, energy, signal)
        sums = step.rounding[name].sums / pair.elements
        if step.passed.get(name) == facts.tensor and name in step.behind:
            # Behind a sum and a ReLU what rounding makes of the ReLU's output is all that counts.
            sums = step.behind[name].sums[:, 3:] / step.behind[name].elements
        variance = np.maximum(sums[:, 1] - sums[:, 0] ** 2, 0.0) + cast
        return cls(sums[:, 0], variance, energy, signal)


def _unit(kind: str) -> float:
    """Return half a last bit, relative, of a type or precision."""
    return _UNIT.get(kind, _UNIT_32)


def _taken_off(tensor: str, step: StepSums, channels: int) -> Array:
    """Return the constant that the candidate takes off a tensor, in real units, (channels,)."""
    held = step.held(tensor)
    return held.shift * held.each(channels)
