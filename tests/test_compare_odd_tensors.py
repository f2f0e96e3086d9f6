"""Comparisons of tensors that residual networks have none of: they are told, and break nothing."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx_text import parse

from deploy.comparison.graphs.holding import Holding
from deploy.comparison.graphs.quantizers import Quantizer, quantizers_of
from deploy.comparison.graphs.units_kernel import to_rounded
from deploy.comparison.run import CompareOptions, compare_models
from deploy.comparison.sides.subjects import open_side
from deploy.comparison.sums.codes import Rounding
from deploy.comparison.sums.folding import Into, Rule, fold
from deploy.comparison.sums.step_sums import Batch, StepSums
from deploy.comparison.values.measures import Status
from deploy.comparison.values.verdict import Reason
from deploy.images import ImageRequest

HEAD = "g (float[N,3,8,8] input) => "
SCALES = {"s": np.float32(0.03), "z": np.int8(0)}
WEIGHTS = {"w": (5, 3, 1, 1), "v": (1, 3, 1, 1), "u": (5, 3, 1, 1)}


def quantized(*names):
    """Return the Q and DQ of tensors as text."""
    return "".join(
        f"{n}_q = QuantizeLinear({n}, s, z)\n {n}_d = DequantizeLinear({n}_q, s, z)\n"
        for n in names
    )


@pytest.fixture
def compare(tmp_path):
    def compare(reference, candidate, images=None, batch=4, **options):
        if images is None:
            images = np.random.default_rng(0).normal(size=(6, 3, 8, 8))
        np.savez(tmp_path / "x.npz", images=images.astype(np.float32))
        names = []
        for at, model in enumerate((reference, candidate)):
            names.append(str(tmp_path / f"{at}.onnx"))
            onnx.save(model, names[-1])
        request = ImageRequest(str(tmp_path / "x.npz"), len(images), batch=batch)
        report = compare_models(names, request, CompareOptions(**options))
        return {row.tensor: row.cells[0] for row in report.rows}, report.verdicts[0]

    return compare


def test_a_tensor_of_no_values(compare):
    body = """(float[N,5,8,8] y, float[M,3] e) {
        y = Conv(input, w)
        m = GlobalAveragePool(input)
        f = Flatten(m)
        above = Greater(f, big)
        as_number = Cast<to=1>(above)
        any = ReduceMax<axes=[1], keepdims=0>(as_number)
        which = Cast<to=9>(any)
        e = Compress<axis=0>(f, which)
    }"""
    model = parse(HEAD + body, opset=17, **WEIGHTS, big=np.float32(1e9))
    rows, verdict = compare(model, model)
    assert rows["e"].status is Status.COMPARED
    assert not verdict.blame


def test_a_shape_that_depends_on_the_image(compare):
    body = """(float[N,5,8,8] y, float[4,K] f) {
        above = Greater(input, big)
        e = NonZero(above)
        f = Cast<to=1>(e)
        y = Conv(input, w)
    }"""
    model = parse(HEAD + body, **WEIGHTS, big=np.float32(1.5))
    images = np.zeros((6, 3, 8, 8))
    images[0, 0, 0, 0], images[4:] = 9, 9
    rows, verdict = compare(model, model, images, batch=2)
    assert rows["e"].status is Status.SHAPE_VARIES
    assert rows["y"].status is Status.COMPARED
    assert not verdict.blame


@pytest.mark.parametrize("own", [True, False])
def test_a_summand_of_one_channel(compare, own):
    text = (
        HEAD
        + """(float[N,5,8,8] y) {
        a = Conv(input, w)
        b = Conv(input, v)
        %s t = Add(%s)
        y = Relu(t)
    }"""
    )
    reference = parse(text % ("", "a, b"), **WEIGHTS)
    candidate = parse(text % (quantized("a", "b"), "a_d, b_d"), **WEIGHTS, **SCALES)
    rows, verdict = compare(reference, candidate, own=own)
    assert rows["b"].codes is not None
    assert not verdict.blame


def test_a_summand_of_one_channel_is_counted_as_it_is():
    """The sum has more channels than it, and than the factors that it is held by."""
    held = Holding("b.equalized", 0.0, np.full(1, 0.5))
    quantizer = Quantizer("b", 0.03, 0.03, 0, "int8", -128, 127, held)
    names = frozenset({"b", "t"})
    step = StepSums({"b": quantizer}, {"b": held}, {}, {}, names, {}, passed={"b": "t"})
    b, t = np.ones((2, 1, 4, 4), np.float32), np.ones((2, 5, 4, 4), np.float32)
    step.free(["b"], {"b": b, "t": t}, {"b": b}, Batch(np.arange(2), first=True))
    assert step.counted["b"] is step.rounding["b"]
    assert not step.behind


def test_a_summand_of_one_value_a_channel_is_no_excuse(compare):
    """What its rounding does is seen in all values of the sum; it is no more noise for that."""
    text = (
        HEAD
        + """(float[N,5,8,8] y) {
        a = Conv(input, w)
        p = GlobalAveragePool(input)
        b = Conv(p, u)
        %s t = Add(%s)
        y = Relu(t)
    }"""
    )
    reference = parse(text % ("", "a, b"), **WEIGHTS)
    candidate = parse(text % (quantized("a", "b"), "a_d, b_d"), **WEIGHTS, **SCALES)
    rows, _ = compare(reference, candidate)
    assert -1 < rows["t"].explained.excess_db < 1


@pytest.mark.parametrize("until_first", [False, True])
@pytest.mark.parametrize("shape", [[-1, 5, 2], [5, -1, 64]])
def test_a_first_axis_that_is_not_the_images(compare, until_first, shape):
    text = (
        HEAD
        + """(float[M,A,B] y) {
        a0 = Conv(input, w)
        a = Reshape(a0, shape)
        b0 = Conv(input, u)
        b = Reshape(b0, shape)
        %s t = Add(%s)
        y = Neg(t)
    }"""
    )
    more = WEIGHTS | {"shape": np.array(shape)}
    reference = parse(text % ("", "a, b"), **more)
    candidate = parse(text % (quantized("a", "b"), "a_d, a_d"), **more, **SCALES)
    _, verdict = compare(reference, candidate, until_first=until_first)
    if shape[0] == -1:
        assert verdict.first == "t"


def test_other_codes_than_int8_have_their_own_range(compare, tmp_path):
    text = (
        HEAD
        + """(float[N,5,8,8] y) {
        %s a0 = Conv(%s, w)
        a = Relu(a0)
        %s b0 = Conv(%s, k)
        b = Relu(b0)
        %s y = Conv(%s, k)
    }"""
    )
    more = WEIGHTS | {"k": (5, 5, 1, 1)}
    reference = parse(text % ("", "input", "", "a", "", "b"), opset=21, **more)
    wide = quantized("a").replace(", s, z", ", s16, z16")
    words = quantized("input"), "input_d", wide, "a_d", quantized("b"), "b_d"
    scales = {"s": np.float32(0.1), "z": np.int8(0)}
    scales |= {"s16": np.float32(16 / 32767), "z16": np.int16(0)}
    candidate = parse(text % words, opset=21, **more, **scales)
    rows, verdict = compare(reference, candidate)
    assert rows["a"].codes.best_amax == pytest.approx(16)
    assert rows["a"].codes.regret_db == 0
    assert not verdict.blame


def test_scales_of_a_tensor_that_is_not_counted_are_named(compare):
    text = HEAD + "(float[N,5,8,8] y) {a = Conv(input, w)\n %s y = Relu(%s)}"
    q = "q = QuantizeLinear<axis=1>(a, s, z)\n d = DequantizeLinear<axis=1>(q, t, z)\n"
    some = {"s": np.full(5, 0.03), "t": np.full(5, 0.05), "z": np.zeros(5, np.int8)}
    _, verdict = compare(
        parse(text % ("", "a"), **WEIGHTS), parse(text % (q, "d"), **WEIGHTS, **some)
    )
    assert Reason.SCALES in {blame.reason for blame in verdict.blame}


def test_the_type_of_codes_may_be_said_without_a_zero_point(tmp_path):
    text = """g (float[N,3,8,8] input) => (float[N,3,8,8] y) {
        a = Relu(input)
        q = QuantizeLinear<output_dtype=3>(a, s)
        y = DequantizeLinear(q, s)
    }"""
    onnx.save(parse(text, opset=21, s=np.float32(0.1)), tmp_path / "x.onnx")
    side = open_side(str(tmp_path / "x.onnx"))
    assert quantizers_of(side.graph, {})["a"].dtype == "int8"


@given(st.sampled_from([(0, 3), (2, 3, 0), (0, 3, 4, 4)]))
def test_no_values_are_converted_to_none(shape):
    nothing = np.zeros(shape, np.float32)
    holding = Holding("x", 1.0, np.ones(3))
    for made in (
        holding.inside(nothing),
        holding.whole(nothing),
        to_rounded(nothing, np.ones(3, np.float32), 1.0, (0.1, 0.1, -128, 127)),
        fold(nothing, nothing, np.arange(shape[0]), Into(), Rule(holding), inside=True),
    ):
        assert made.shape == shape


def test_whether_values_are_one_sided_does_not_depend_on_how_many_come_at_a_time():
    values = np.random.default_rng(0).uniform(0, 1, (4, 2, 5)).astype(np.float32)
    values[3] -= 2
    held = Holding("x.shifted", 0.5)
    rule = Rule(held, Quantizer("x", 0.01, 0.01, 0, "int8", -128, 127, held))
    found = []
    for step in (1, 4):
        into = Into(rounding=Rounding())
        for at in range(0, 4, step):
            some = values[at : at + step]
            fold(some, some, np.arange(at, at + step), into, rule)
        found.append((into.rounding.one_sided, into.rounding.best()))
    assert found[0] == found[1]


def test_noise_beyond_all_numbers_is_no_traceback():
    big = np.full((1, 2, 3), 1e200)
    into = Into()
    fold(np.ones((1, 2, 3)), big, np.arange(1), into)
    assert into.pair.errors().sqnr_db == -np.inf


def test_a_chain_holds_the_image_against_the_first_model_too(tmp_path):
    model = parse(HEAD + "(float[N,5,8,8] y) {y = Conv(input, w)}", **WEIGHTS)
    onnx.save(model, tmp_path / "x.onnx")
    images = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "x.npz", images=images)
    names = [str(tmp_path / "x.onnx")] * 3
    report = compare_models(names, ImageRequest(str(tmp_path / "x.npz"), 2))
    assert {row.cells[1].total_db for row in report.rows} == {np.inf}


def test_shapes_that_do_not_go_together_are_refused():
    """The compiled loops look at no bounds: beyond them is other memory."""
    three, four = (np.zeros((1, n, 2), np.float32) for n in (3, 4))
    with pytest.raises(ValueError, match="held against"):
        fold(three, four, np.arange(1), Into())
    into = Into()
    fold(three, three, np.arange(1), into)
    with pytest.raises(ValueError, match="3 channels so far"):
        fold(four, four, np.arange(1), into)
