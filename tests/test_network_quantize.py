"""Quantize, Dequantize and float16: equal to the last code and the last bit."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from network_nets import FP32_DB, difference_db, parsed, random_feeds, reference, worst_db
from onnx_text import parse

from core.errors import GraphError
from deploy.networks.ops import quantize
from deploy.networks.ops.half import round_half
from deploy.networks.ops.threads import PART

QDQ = """net (float[N,4,8,8] x) => (float[N,C,H,W] y) {
  q = QuantizeLinear(x, s, z)
  d = DequantizeLinear(q, s, z)
  c = DequantizeLinear<axis=0>(w, ws, wz)
  y = Conv(d, c)
}"""


def qdq():
    generator = np.random.default_rng(1)
    constants = {
        "s": np.float32(0.0173),
        "z": np.int8(0),
        "w": generator.integers(-128, 128, (4, 4, 3, 3)).astype(np.int8),
        "ws": generator.uniform(0.01, 0.1, 4),
        "wz": np.zeros(4, np.int8),
    }
    return parse(QDQ, **constants)


def test_codes_are_equal_to_the_last_one():
    model = qdq()
    # Half steps, the ends of the range and beyond it.
    x = (np.arange(-1024, 1024) * np.float32(0.0173) / 2).astype(np.float32).reshape(8, 4, 8, 8)
    worst, names = worst_db(model, feeds={"x": x})
    assert worst >= FP32_DB
    assert names == {"q", "d", "y", "y (run)"}  # c, of weights alone, is a constant


def test_truncation_in_place_of_rounding_is_noticed(monkeypatch):
    model = qdq()
    with monkeypatch.context() as patch:
        stand_in = SimpleNamespace(**vars(np) | {"rint": np.trunc})
        patch.setattr(quantize, "np", stand_in)
        assert worst_db(model)[0] == -np.inf


def test_activations_by_channel():
    text = """net (float[N,4,8,8] x) => (float[N,4,8,8] y) {
      q = QuantizeLinear<axis=1>(x, s, z) y = DequantizeLinear<axis=1>(q, s, z)
    }"""
    model = parse(text, s=np.array([0.01, 0.02, 0.03, 0.04]), z=np.zeros(4, np.int8))
    assert worst_db(model)[0] == np.inf


def test_float16_quotients_are_those_of_float32():
    """ONNX Runtime divides in float32; a quotient rounded to float16 moves 1 code in 60."""
    text = "net (float16[N] x) => (int8[N] y) { y = QuantizeLinear(x, s, z) }"
    model = parse(text, s=np.float16(0.0173), z=np.int8(0))
    x = np.random.default_rng(0).standard_normal(20000).astype(np.float16)
    assert worst_db(model, feeds={"x": x})[0] == np.inf
    rounded = np.clip(np.rint(x / np.float16(0.0173)), -128, 127).astype(np.int8)
    assert difference_db(rounded, reference(model, {"x": x})["y"]) == -np.inf


def test_a_nan_has_no_code():
    feeds = random_feeds(qdq())
    feeds["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(GraphError, match=r"(?s)QUANTIZE.*NaN"):
        parsed(qdq()).run(feeds)


def test_infinities_are_clamped():
    feeds = random_feeds(qdq())
    feeds["x"][0, 0, 0, :2] = [np.inf, -np.inf]
    tensors = dict(parsed(qdq()).stream(feeds))
    assert tensors["q"][0, 0, 0, :2].tolist() == [127, -128]


@given(st.lists(st.floats(width=32), min_size=1, max_size=50))
def test_rounding_to_float16_is_numpys(values):
    x = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(round_half(x), expected)


def test_rounding_to_float16_at_every_boundary():
    grid = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    grid = grid[np.isfinite(grid)]
    ties = np.sort(grid)
    ties = ties[:-1] + np.diff(ties) / 2
    near = [grid, ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, -np.float32(9))]
    x = np.concatenate(near).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = x.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(round_half(x, x.copy()), expected)
    assert x.size > 2 * PART  # more than one part
