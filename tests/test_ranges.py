"""Ranges of quantizers: which are called too wide or too narrow, and which are let be."""

from types import SimpleNamespace

import numpy as np
import pytest

from deploy.comparison.graphs.holding import Holding
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.judging.ranges import Ranges
from deploy.comparison.sums.codes import Rounding
from deploy.comparison.sums.folding import Into, Rule, fold
from deploy.comparison.values.verdict import Reason

# Never negative, and well spread, as behind a ReLU: 1/128 as a scale fills the codes from 0 to 2.
VALUES = np.random.default_rng(0).uniform(0, 1.99, size=(32, 4, 16, 16)).astype(np.float32)


def fault(scale, shift, told=None):
    """Judge the quantizer of x, of these values less a constant."""
    quantizer = Quantizer("x", scale, scale, 0, "int8", -128, 127, Holding("x.shifted", shift))
    rounding = Rounding()
    into, rule = Into(rounding=rounding), Rule(quantizer.held, quantizer)
    fold(VALUES, VALUES, np.arange(32), into, rule)
    step = SimpleNamespace(
        quantizers={"x": quantizer},
        seen={"x": None},
        counted={"x": rounding},
        amaxes={} if told is None else {"x": told},
        images=32,
    )
    return Ranges.of(step).fault("x")


def test_a_range_that_fits_its_constant_is_let_be():
    assert fault(1 / 128, 1.0) is None


@pytest.mark.parametrize(("by", "reason"), [(2.0, Reason.TOO_WIDE), (0.5, Reason.CLIPPING)])
def test_one_that_does_not_and_costs_noise_is_named(by, reason):
    found = fault(by / 128, 1.0)
    assert found is not None
    assert found[0] is reason
    assert "does not fit the constant 1 " in found[2]


def test_a_constant_need_not_fit_the_widest_of_the_tensors_that_have_it():
    """The values reach 2, twice what the constant of a narrower tensor stands for."""
    assert fault(1.5 / 128, 0.5) is None  # 1.99 is code 127


def test_the_table_is_believed():
    wide = 2.0 / 128
    assert fault(wide, 1.0, told=127 * wide) is None
    reason, _, text = fault(wide, 1.0, told=127 * wide / 2)
    assert reason is Reason.TOO_WIDE
    assert "calibration.json chose 0.9922" in text
