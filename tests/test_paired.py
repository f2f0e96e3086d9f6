"""The gate's statistics: by hand, by enumeration, by symmetry; and how often they err."""

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from deploy.gate.medians import fall_of_median, median_interval
from deploy.gate.paired import Pairs, _score_of, mcnemar_p

COUNTS = st.integers(0, 40)


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1),  # nothing changed
        (1, 0, 1 / 2),
        (3, 0, 1 / 8),  # HHH of eight
        (2, 1, 4 / 8),  # HHH and three of two heads
        (5, 1, (1 + 6) / 64),
        (8, 2, (1 + 10 + 45) / 1024),
        (2, 8, (1024 - 1 - 10) / 1024),
        (0, 9, 1),
    ],
)
def test_mcnemar_counts_the_ways_of_coins(lost, gained, p):
    assert mcnemar_p(lost, gained) == p


def test_mcnemar_of_many_is_near_the_normal_distribution():
    expected = 1 - NormalDist().cdf((5200 - 4800 - 1) / math.sqrt(10_000))
    assert mcnemar_p(5200, 4800) == pytest.approx(expected, rel=0.01)


def test_pairs_count_what_changed():
    before = np.array([1, 1, 1, 0, 0, 0, 1, 0], bool)
    now = np.array([1, 0, 0, 1, 0, 0, 1, 0], bool)
    pairs = Pairs.of(before, now)
    assert pairs == Pairs(lost=2, gained=1, images=8)
    assert pairs.loss == 1 / 8


def test_no_change_bounds_the_loss_as_the_docstring_says():
    pairs = Pairs(0, 0, 1000)
    assert pairs.loss == 0
    assert pairs.at_most(0.05) == pytest.approx(0.0036, abs=5e-5)
    assert pairs.at_most(0.05) > 1 - 0.05 ** (1 / 1000)  # the exact bound, "rule of three"
    assert pairs.at_least(0.05) < 0


def test_bounds_of_many_changes_are_those_of_the_normal_distribution():
    """200 lost and 100 gained of 10,000: a loss of 1 point, ± 1.645·√300/10,000."""
    pairs = Pairs(200, 100, 10_000)
    assert pairs.at_most(0.05) == pytest.approx(0.01 + 1.645 * math.sqrt(300) / 1e4, abs=1.5e-4)
    assert pairs.at_least(0.05) == pytest.approx(0.01 - 1.645 * math.sqrt(300) / 1e4, abs=2e-4)
    # The twin: a quarter of the images changing as often is a bound twice as far.
    few = Pairs(50, 25, 2_500)
    assert few.at_most(0.05) - 0.01 == pytest.approx(2 * (pairs.at_most(0.05) - 0.01), rel=0.1)


@given(lost=COUNTS, gained=COUNTS, unchanged=COUNTS, alpha=st.sampled_from([0.01, 0.05, 0.2]))
def test_bounds_hold_the_loss_between_them_and_p_agrees_with_them(lost, gained, unchanged, alpha):
    assume(lost + gained + unchanged > 0)
    pairs = Pairs(lost, gained, lost + gained + unchanged)
    low, high = pairs.at_least(alpha), pairs.at_most(alpha)
    assert -1 <= low <= pairs.loss <= high <= 1
    assert pairs.at_most(alpha / 2) >= high
    assert pairs.p_beyond(0.01) >= pairs.p_beyond(0.0) or low < 0.01
    if pairs.p_beyond(max(low, 0.0) + 1e-6) < alpha:
        pytest.fail("a loss beyond its own bound")


def distribution(images, changed, loss):
    """All outcomes of at most some changes: lost, gained, and how probable each is."""
    rates = np.array([(changed + loss) / 2, (changed - loss) / 2, 1 - changed])
    tops = [int(images * rate + 8 * math.sqrt(images * rate) + 12) for rate in rates[:2]]
    lost, gained = (x.ravel() for x in np.meshgrid(*map(np.arange, tops), indexing="ij"))
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, images + 1)))])
    rest = images - lost - gained
    ways = logs[images] - logs[lost] - logs[gained] - logs[rest]
    with np.errstate(divide="ignore", invalid="ignore"):
        powers = [
            np.where(n > 0, n * np.log(r), 0.0)
            for n, r in zip((lost, gained, rest), rates, strict=True)
        ]
    return lost, gained, np.exp(ways + sum(powers))


@pytest.mark.parametrize("alpha", [0.05, 0.05 / 3])
@pytest.mark.parametrize("loss", [0.0025, 0.01, 0.02])
@pytest.mark.parametrize("spread", [1.0, 1.2, 2.0, 4.0])
def test_neither_verdict_errs_more_often_than_said(alpha, loss, spread):
    """With a true loss of just the tolerance, by summing over all that 400 images may do."""
    images = 400
    lost, gained, probability = distribution(images, loss * spread, loss)
    assert probability.sum() == pytest.approx(1, abs=1e-6)
    likely = probability > 1e-9
    beyond = within = 0.0
    for a, b, p in zip(lost[likely], gained[likely], probability[likely], strict=True):
        pairs = Pairs(int(a), int(b), images)
        beyond += p * (pairs.p_beyond(loss) <= alpha)
        within += p * (pairs.at_most(alpha) <= loss)
    assert beyond <= alpha * 1.02
    assert within <= alpha


def test_without_correction_it_would_err_too_often():
    """The twin: the same sum, with the correction left out."""
    images, loss = 200, 0.01
    lost, gained, probability = distribution(images, loss * 2, loss)
    likely = probability > 1e-9
    beyond = sum(
        p
        for a, b, p in zip(lost[likely], gained[likely], probability[likely], strict=True)
        if _score_of(a, b, images, loss, 0.0) > 1.6449
    )
    assert beyond > 0.07


@given(lost=st.integers(0, 60), gained=st.integers(0, 60))
def test_as_many_images_as_it_says_would_tell(lost, gained):
    images, tolerance, alphas = 1000, 0.0025, (0.05, 0.05)
    needed = Pairs(lost, gained, images).images_needed(tolerance, alphas)
    if needed is None:
        assert abs((lost - gained) / images - tolerance) < 1e-3
        return
    factor = needed / images

    def tells(factor):
        pairs = Pairs(round(lost * factor), round(gained * factor), round(images * factor))
        beyond = pairs.p_beyond(tolerance) <= alphas[0]
        return beyond or pairs.at_most(alphas[1]) <= tolerance

    if factor > 20:  # else rounding to whole images matters
        assert tells(factor * 1.05)
        assert not tells(factor / 1.1)


def test_a_loss_at_the_tolerance_is_never_told():
    assert Pairs(5, 0, 1000).images_needed(0.005, (0.05, 0.05)) is None


def test_a_median_that_fell_is_seen_and_its_twin_is_not():
    random = np.random.default_rng(0)
    before = random.normal(40, 3, 2000)
    fall = fall_of_median(before, before - 1)
    assert fall.value == pytest.approx(1)
    assert fall.at_least(0.05) == pytest.approx(1)  # paired: every draw fell by 1
    noisy = fall_of_median(before, before + random.normal(0, 3, 2000))
    assert noisy.at_least(0.05) < 0 < noisy.at_most(0.05)


def test_equal_logits_fall_by_nothing():
    infinite = np.full(50, np.inf, np.float32)
    assert fall_of_median(infinite, infinite).value == 0
    assert fall_of_median(infinite, np.full(50, 40.0)).value == 110
    assert fall_of_median(np.full(50, -np.inf), infinite).value == -300


def test_draws_are_the_same_on_every_machine():
    values = np.arange(100.0)
    assert median_interval(values, 0.05) == (41.0, 57.5)


def test_the_interval_of_a_median_covers_it_as_often_as_said():
    random = np.random.default_rng(1)
    covered = 0
    for _ in range(100):
        low, high = median_interval(random.exponential(1, 200), 0.05)
        covered += low <= math.log(2) <= high
    assert 84 <= covered <= 96


def test_the_images_that_a_median_needs_grow_with_the_square():
    random = np.random.default_rng(2)
    before = random.normal(40, 3, 400)
    fall = fall_of_median(before, before + random.normal(0, 3, 400))
    far, near = (fall.images_needed(fall.value + gap, (0.05, 0.05)) for gap in (0.2, 0.1))
    assert near == pytest.approx(4 * far, rel=0.01)
    assert fall.images_needed(fall.value, (0.05, 0.05)) is None
