"""Verdicts that chance or a neighbour could turn: biases on a few images, a layer behind a clip."""

import numpy as np
import pytest

from deploy.comparison.graphs.layer_facts import Kind, LayerFacts
from deploy.comparison.graphs.layer_weights import Weights
from deploy.comparison.graphs.lineage import Source
from deploy.comparison.judging.parameters import OwnError, parameter_fault
from deploy.comparison.judging.ranking import behind_its_cause
from deploy.comparison.values.verdict import Blame, Reason

NOISE = np.full(4, 1e-4)  # a standard deviation of 0.01 in each channel
MOVED = np.array([0.004, -0.004, 0.004, 0.004])
BIAS = np.array([1.0, 0.5, -0.5, 0.25])


def layer(bias=None):
    weights = Weights(np.ones((4, 2, 1), np.float32), None, bias, 1, None)
    return LayerFacts("y", "conv", Kind.PRODUCT, (Source("x", True),), "FP32", weights)


def bias_fault(bias, drift, images, noise=NOISE):
    error = OwnError(drift, noise, images)
    return parameter_fault(layer(BIAS), layer(bias), shifted=False, error=error)


@pytest.mark.parametrize("images", [1, 8, 32])
def test_a_bias_that_makes_up_for_rounding_is_let_be(images):
    """The mean of what rounding adds to so few images may be as large as the bias was moved."""
    assert bias_fault(BIAS + MOVED, MOVED * 0.9, images) is None


def test_over_many_images_the_same_error_is_the_bias():
    found = bias_fault(BIAS + MOVED, MOVED * 0.9, 1000)
    assert found is not None
    assert found.reason is Reason.BIAS


@pytest.mark.parametrize("noise", [NOISE, None])
def test_a_bias_that_moved_by_more_than_rounding_is_told_from_one_image(noise):
    found = bias_fault(BIAS * [0, 1, 1, 1], np.array([-1.0, 0, 0, 0]), 1, noise)
    assert found is not None
    assert (found.reason, found.channel) == (Reason.BIAS, 0)


def test_one_that_moved_and_does_not_show_is_let_be():
    assert bias_fault(BIAS + MOVED, MOVED * 0.1, 100_000) is None


def test_a_missing_bias_need_not_show():
    assert bias_fault(None, np.zeros(4), 1).reason is Reason.BIAS


def blamed(tensor, reason, excess_db):
    return Blame(tensor, tensor, reason, excess_db, "", "")


def test_a_layer_ranks_no_higher_than_the_clipping_of_what_it_reads():
    clip = blamed("x", Reason.CLIPPING, 6.0)
    reader = blamed("y", Reason.ERROR, 9.5)
    assert behind_its_cause(reader, layer(), [clip]).excess_db == 6.0
    elsewhere = blamed("w", Reason.CLIPPING, 6.0)
    assert behind_its_cause(reader, layer(), [elsewhere]) is reader
    wide = blamed("x", Reason.TOO_WIDE, 6.0)
    assert behind_its_cause(reader, layer(), [wide]) is reader
    assert behind_its_cause(reader, None, [clip]) is reader


def test_what_is_surely_wrong_keeps_its_rank():
    clip = blamed("x", Reason.CLIPPING, 6.0)
    weight = blamed("y", Reason.WEIGHT, 9.5)
    assert behind_its_cause(weight, layer(), [clip]) is weight
