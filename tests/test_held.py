"""Tensors in a network's own units: brought there and back, and summed up as they stand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from deploy.comparison.graphs.holding import AS_IT_IS, Held, Holding, whole_of
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.sums.codes import Rounding, Same
from deploy.comparison.sums.folding import Into, Rule, fold
from deploy.comparison.sums.pair_sums import PairSums, SideSums
from exporter.quantization.channel_steps import factors_of

IMAGES = np.arange(3)
shapes = st.sampled_from([(3, 4), (3, 5, 7), (3, 2, 8, 9), (3, 1, 1, 1), (3, 6, 40)])
odd = st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, -3e38])


@st.composite
def tensors(draw, special=False):
    """Draw a reference, what a candidate holds, and how."""
    shape, rng = draw(shapes), np.random.default_rng(draw(st.integers(0, 2**16)))
    steps = rng.integers(-16, 17, shape[1]) if draw(st.booleans()) else None
    shift = draw(st.sampled_from([0.0, 1.5, -0.3]))
    holding = Holding("T.held", shift, None if steps is None else factors_of(steps))
    reference = rng.normal(size=shape).astype(np.float32)
    held = holding.inside(reference) + rng.normal(size=shape).astype(np.float32) * 0.1
    if special:
        for array in (reference, held):
            for value in draw(st.lists(odd, max_size=4)):
                array.reshape(-1)[draw(st.integers(0, array.size - 1))] = value
    return reference, held.astype(np.float32), holding


def in_numpy(holding, array, *, back):
    along = holding.each(array.shape[1]).astype(np.float32)
    along = along.reshape(-1, *[1] * (array.ndim - 2))
    shift = np.float32(holding.shift)
    with np.errstate(all="ignore"):
        return (array + shift) * along if back else array / along - shift


@given(tensors(special=True), st.sampled_from([np.float32, np.float64, np.float16]))
def test_there_and_back_as_numpy_goes(drawn, kind):
    reference, held, holding = drawn
    with np.errstate(over="ignore"):
        reference, held = reference.astype(kind), held.astype(kind)
    if holding.as_it_is:
        assert holding.inside(reference) is reference
        assert holding.whole(held) is held
        return
    inside, whole = holding.inside(reference), holding.whole(held)
    assert inside.dtype == whole.dtype == np.result_type(kind, np.float32)
    np.testing.assert_array_equal(inside, in_numpy(holding, reference, back=False))
    np.testing.assert_array_equal(whole, in_numpy(holding, held, back=True))


def test_other_channels_are_refused():
    holding = Holding("T.equalized", 0.0, np.ones(4), "int8.onnx")
    for convert in (holding.inside, holding.whole):
        with pytest.raises(InputError, match="5 channels, and factors of 4"):
            convert(np.zeros((1, 5, 2), np.float32))
    with pytest.raises(InputError, match="5 channels"):
        held = Held(np.zeros((1, 5)), holding)
        fold(np.zeros((1, 5)), held, np.zeros(1, np.int64), Into(), Rule(holding))


def sums_of(reference, candidate, least, *, apart):
    """Return all that is summed up of a pair; bounds on the way, or apart."""
    pair, sides = PairSums(), (SideSums(), SideSums())
    into = Into(pair, (None, None) if apart else sides, least=least)
    rule = Rule(candidate.holding) if isinstance(candidate, Held) else Rule()
    fold(reference, candidate, IMAGES, into, rule)
    if apart:
        for side, array in zip(sides, (reference, whole_of(candidate)), strict=True):
            side.add(array)
    facts = (pair.largest, pair.at, pair.elements, pair.nonfinite)
    arrays = (pair.sums, pair.worst, np.array(pair.noises), *(side.found for side in sides))
    return facts, arrays


@given(tensors(special=True), st.sampled_from([-math.inf, 0.0]))
def test_what_is_held_is_summed_up_as_what_it_stands_for(drawn, least):
    reference, held, holding = drawn
    with np.errstate(all="ignore"):
        whole = np.maximum(holding.whole(held), np.float32(least))
        floored = np.maximum(reference, np.float32(least))
    expected = sums_of(floored, whole, -math.inf, apart=True)
    found = sums_of(reference, Held(held, holding), least, apart=False)
    assert found[0] == expected[0]
    for ours, theirs in zip(found[1][:3], expected[1][:3], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    # Bounds are of the values themselves.
    _, bounds = sums_of(reference, holding.whole(held), -math.inf, apart=True)
    for ours, theirs in zip(found[1][3:], bounds[3:], strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(tensors())
def test_two_types_are_summed_up_in_the_wider(drawn):
    reference, held, holding = drawn
    pairs = [PairSums(), PairSums()]
    whole = holding.whole(held).astype(np.float64)
    inside = fold(
        *(reference.astype(np.float64), Held(held, holding), IMAGES, Into(pairs[0])),
        *(Rule(holding),),
        inside=True,
    )
    fold(reference.astype(np.float64), whole, IMAGES, Into(pairs[1]))
    np.testing.assert_array_equal(inside, holding.inside(reference.astype(np.float64)))
    np.testing.assert_array_equal(pairs[0].sums, pairs[1].sums)


@given(tensors())
def test_what_is_brought_there_has_the_codes_of_what_it_was(drawn):
    reference, _, holding = drawn
    quantizer = Quantizer("T", 0.03, 0.03, 0, "int8", -128, 127, holding)
    same, rule = Same(), Rule(holding, quantizer)
    fold(reference, Held(holding.inside(reference), holding), IMAGES, Into(same=same), rule)
    assert (same.share, same.largest, same.count) == (1.0, 0, reference.size)


@given(tensors())
def test_codes_are_those_that_the_network_takes(drawn):
    reference, held, holding = drawn
    quantizer = Quantizer("T", 0.03, 0.03, 0, "int8", -128, 127, holding)
    codes = [
        np.clip(np.rint(array / np.float32(0.03)), -128, 127)
        for array in (holding.inside(reference), held)
    ]
    same, rule = Same(), Rule(holding, quantizer)
    fold(reference, Held(held, holding), IMAGES, Into(same=same), rule)
    assert same.equal == np.count_nonzero(codes[0] == codes[1])
    assert same.largest == np.abs(codes[0] - codes[1]).max()
    # Of what it stands for they are the same, but for roundings.
    other = Same()
    fold(reference, holding.whole(held), IMAGES, Into(same=other), rule)
    assert abs(other.equal - same.equal) <= 1 + held.size // 50


@given(tensors(special=True), st.integers(1, 3))
def test_what_a_quantizer_adds_and_cuts_off(drawn, images):
    """Held against numpy, image by image or together, and whatever else is asked for."""
    reference, held, holding = drawn
    reference = np.nan_to_num(reference, posinf=9.0, neginf=-9.0)
    reference = np.clip(reference, -9, 9)
    quantizer = Quantizer("T", 0.03, 0.031, 0, "int8", -128, 127, holding)
    into, rule, made = Into(rounding=Rounding()), Rule(holding, quantizer), []
    for at in range(0, len(reference), images):
        some = slice(at, at + images)
        candidate = Held(held[some], holding)
        made.append(fold(reference[some], candidate, IMAGES[some], into, rule, inside=True))
    inside = holding.inside(reference)
    np.testing.assert_array_equal(np.concatenate(made), inside)
    with np.errstate(over="ignore"):
        codes = np.clip(np.rint(inside / np.float32(0.03)), -128, 127)
    added = np.moveaxis(codes * np.float32(0.031) - inside, 1, 0).reshape(inside.shape[1], -1)
    added = added.astype(np.float64) * holding.each(inside.shape[1])[:, None]
    found = into.rounding
    np.testing.assert_allclose(found.sums[:, 0], added.sum(axis=1), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.sums[:, 1], np.square(added).sum(axis=1), rtol=1e-5)
    ends = (np.float32(-128.5) * np.float32(0.03), np.float32(127.5) * np.float32(0.03))
    assert found.saturated == np.count_nonzero((inside < ends[0]) | (inside > ends[1]))
    assert (found.count, found.images) == (reference.size, len(reference))


@given(tensors(special=True), st.sampled_from([np.float32, np.float64]))
def test_what_codes_stand_for(drawn, kind):
    reference, _, holding = drawn
    reference = reference.astype(kind)
    quantizer = Quantizer("T", 0.01, 0.011, 0, "int8", -128, 127, holding)
    with np.errstate(all="ignore"):
        codes = np.clip(np.rint(holding.inside(reference) / kind(np.float32(0.01))), -128, 127)
        expected = holding.whole(codes * kind(np.float32(0.011)))
    np.testing.assert_array_equal(quantizer.rounded(reference), expected)


def test_as_it_is_needs_nothing():
    array = np.ones((1, 2), np.float32)
    assert whole_of(array) is array
    assert Held(array, AS_IT_IS).whole() is array
