"""A shortcut counts as far as a ReLU passes it on: as it is planned, counted and compared."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_text import parse

from deploy.cli import cli
from deploy.comparison.graphs.wiring import passed_by, wiring_of
from deploy.comparison.run import compare_models
from deploy.images import ImageRequest
from exporter.calibration.counts.tally import keep_passed
from exporter.calibration.statistics import read_statistics
from exporter.onnx_file import Card, save
from exporter.quantization.placement import plan_quantization
from exporter.quantization.plan import QuantizationPlan
from exporter.session import open_session

TEXT = """g (float[N,3,16,16] image) => (float[N,4] y) {{
    main = Conv(image, w1)
    projection = Conv(image, w2)
    {body}
    pool = GlobalAveragePool(relu)
    flat = Flatten(pool)
    y = Gemm<transB=1>(flat, w3)
}}"""
BLOCK = "add = Add(main, projection) relu = Relu(add)"
WEIGHTS = {"w1": (8, 3, 1, 1), "w2": (8, 3, 1, 1), "w3": (4, 8)}


def network(body=BLOCK):
    return parse(TEXT.format(body=body), **WEIGHTS)


def passed(body):
    return plan_quantization(network(body)).passed


def test_a_projection_counts_as_far_as_the_relu_passes_it():
    plan = plan_quantization(network())
    assert plan.passed == {"projection": "relu"}
    assert {a.tensor: a.passed for a in plan.activations}["image"] == ""
    assert passed(BLOCK.replace("Add(main, projection)", "Sum(projection, main)")) in (
        {"projection": "relu"},
        {"main": "relu"},
    )


@pytest.mark.parametrize(
    "body",
    [
        BLOCK.replace("Relu(add)", "Sigmoid(add)"),  # passes on something of everything
        "add = Add(main, projection) low = Relu(add) relu = Add(low, add)",  # the sum is read twice
        "add = Add(main, projection) low = Relu(add) relu = Add(low, projection)",
    ],
)
def test_where_more_becomes_of_it_all_of_it_counts(body):
    assert passed(body) == {}


def test_a_plan_without_the_field_is_read(tmp_path):
    plan = plan_quantization(network())
    value = str(plan).replace('"passed": "relu"', '"passed": ""')
    (tmp_path / "old.json").write_text(value.replace(',\n      "passed": ""', ""))
    assert QuantizationPlan.read(tmp_path / "old.json").passed == {}
    (tmp_path / "new.json").write_text(str(plan))
    assert QuantizationPlan.read(tmp_path / "new.json") == plan


def test_what_is_not_passed_is_zero_and_what_is_not_finite_stays():
    values = np.array([[-3, 2, np.nan, np.inf, -0.0, 5]], np.float32)
    keep_passed(values, np.array([[0, 1, 0, 0, 0, np.nan]], np.float32))
    np.testing.assert_array_equal(values, [[0, 2, np.nan, np.inf, 0, 5]])
    assert not np.signbit(values[0, 4])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("passed")
    save(network(), folder / "optimized.onnx", Card())
    random = np.random.default_rng(0)
    images = random.normal(size=(64, 3, 16, 16)).astype(np.float32)
    np.savez(folder / "x.npz", images=images)
    for words in (
        ["calibrate", folder / "optimized.onnx", "--data", folder / "x.npz", "--images", "64"],
        ["quantize", folder / "optimized.onnx", "--method", "max", "--full-range", "on"],
    ):
        done = CliRunner().invoke(cli, list(map(str, words)))
        assert done.exit_code == 0, done.output
    return folder


def test_statistics_are_of_what_is_passed(folder):
    found = read_statistics(folder / "statistics.npz")
    assert found.passed == {"projection": "relu"}
    images = np.load(folder / "x.npz")["images"]
    names = ["projection", "relu"]
    made = open_session(folder / "optimized.onnx", outputs=names)({"image": images})
    counted = np.where(made["relu"] == 0, 0, made["projection"])
    histogram = found.tensors["projection"]
    assert histogram.count == counted.size
    assert histogram.minimum == pytest.approx(counted.min(), rel=1e-6)
    assert histogram.minimum > made["projection"].min()
    assert histogram.maximum == pytest.approx(counted.max(), rel=1e-6)
    low = counted.min(axis=(0, 2, 3))
    np.testing.assert_allclose(found.channels["projection"].low, low, rtol=1e-5)


def test_the_sum_is_compared_as_far_as_it_is_passed_on(folder):
    images = ImageRequest(str(folder / "x.npz"), 64)
    pair = [str(folder / name) for name in ("optimized.onnx", "int8.onnx")]
    report = compare_models(pair, images)
    rows = {row.tensor: row.cells[0] for row in report.rows}
    assert rows["add"].inherited.sqnr_db == pytest.approx(rows["relu"].inherited.sqnr_db)
    assert -3 < rows["add"].explained.excess_db < 3
    assert report.verdicts[0].blame == ()
    assert rows["projection"].codes.rounding_db > 30
    assert rows["projection"].own.sqnr_db > rows["projection"].codes.rounding_db


def test_a_range_is_judged_by_what_counts(folder, tmp_path):
    """Without the table: values that are never passed on may be clipped."""
    images = ImageRequest(str(folder / "x.npz"), 64)
    model = onnx.load(folder / "int8.onnx")
    onnx.save(model, tmp_path / "int8.onnx")
    pair = [str(folder / "optimized.onnx"), str(tmp_path / "int8.onnx")]
    assert compare_models(pair, images).verdicts[0].blame == ()
    narrow = next(i for i in model.graph.initializer if i.name.startswith("projection")
                  and i.name.endswith(".scale"))  # fmt: skip
    scale = onnx.numpy_helper.to_array(narrow) / np.float32(3)
    narrow.CopyFrom(onnx.numpy_helper.from_array(scale, narrow.name))
    onnx.save(model, tmp_path / "int8.onnx")
    assert compare_models(pair, images).verdicts[0].first == "projection"


def test_wiring_tells_the_same():
    wiring = wiring_of(network())
    assert passed_by(wiring, ["y"]) == {"main": "add", "projection": "add"}
    assert passed_by(wiring, ["y", "add"]) == {}
