import json
import math
from functools import reduce
from operator import add

import numpy as np
import pytest

from core.artifacts import sha256_file
from core.errors import CalibrationError, InputError
from exporter.calibration.counts.histogram import Histogram
from exporter.calibration.counts.tally import Tally
from exporter.calibration.statistics import ImageRecord, Statistics
from exporter.quantization.activity import Activity
from exporter.quantization.plan import Activation, QuantizationPlan
from exporter.quantization.table import CalibrationTable, choose_amaxes
from exporter.quantization.thresholds import Method, choose_amax

RNG = np.random.default_rng(0)
VALUES = {
    "x": RNG.normal(size=20_000),
    "b": np.maximum(RNG.normal(size=20_000), 0),
    "d": np.maximum(RNG.normal(size=20_000), 0) * 3,
}
PLAN = QuantizationPlan(
    (
        Activation("x", "input of Conv conv1", ("conv1",), "x"),
        Activation("b", "input of Concat cat", ("cat",), "b"),
        Activation("d", "input of Concat cat", ("cat",), "b"),
    ),
    (),
    {},
)


def of(values) -> Histogram:
    tally = Tally()
    tally.add(np.asarray(values, np.float32))
    return tally.histogram()


def statistics(**values):
    image = ImageRecord("0" * 64, (0.0,), (1.0,))
    tensors = {name: of(array) for name, array in values.items()}
    return Statistics("ab" * 32, '{"resize":232}', (image,), tensors)


@pytest.fixture
def path(tmp_path):
    statistics(**VALUES).write(tmp_path / "statistics.npz")
    return tmp_path / "statistics.npz"


def test_a_group_gets_the_amax_of_all_its_values(path):
    table = choose_amaxes(PLAN, Activity.read(path), Method("mse"))
    together = reduce(add, (of(VALUES[name]) for name in "bd"))
    expected = np.float32(choose_amax(together, Method("mse"))[0])
    assert table.tensors["b"].amax == table.tensors["d"].amax == expected
    assert (table.tensors["b"].scale, table.tensors["x"].scale) == ("b", "x")
    assert table.tensors["b"].clipped == 0.0 < table.tensors["d"].clipped
    assert table.tensors["d"].sqnr_db > table.tensors["b"].sqnr_db + 6


def test_it_is_bound_to_what_it_was_made_from(path):
    table = choose_amaxes(PLAN, Activity.read(path), Method("max"))
    assert table.statistics == sha256_file(path)
    assert (table.model, table.images, table.method) == ("ab" * 32, 1, "max")


def test_write_and_read(path, tmp_path):
    table = choose_amaxes(PLAN, Activity.read(path), Method.parse("percentile:99.9"))
    table.write(tmp_path / "calibration.json")
    back = CalibrationTable.read(tmp_path / "calibration.json")
    assert {n: c.amax for n, c in back.tensors.items()} == {
        n: c.amax for n, c in table.tensors.items()
    }
    assert back.preprocess == table.preprocess
    back.write(tmp_path / "again.json")
    text = (tmp_path / "calibration.json").read_text()
    assert (tmp_path / "again.json").read_text() == text
    assert json.loads(text)["tensors"]["x"]["method"] == "percentile:99.9"


def test_data_that_came_preprocessed_and_no_error_at_all(tmp_path):
    exact = Statistics("ab" * 32, "", (), {"x": of([127.0, -3.0, 0.0])})
    exact.write(tmp_path / "s.npz")
    plan = QuantizationPlan(PLAN.activations[:1], (), {})
    table = choose_amaxes(plan, Activity.read(tmp_path / "s.npz"), Method("max"))
    table.write(tmp_path / "calibration.json")
    assert CalibrationTable.read(tmp_path / "calibration.json").preprocess == ""
    assert table.tensors["x"].sqnr_db < math.inf


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros(9), "'x' holds nothing but zeros"),
        (np.empty(0), "'x' holds nothing but zeros"),
        (np.array([1.0, np.nan, np.inf]), "'x' holds 2 NaN or Inf"),
    ],
)
def test_no_scale_can_be_taken(tmp_path, values, words):
    statistics(**{**VALUES, "x": values}).write(tmp_path / "s.npz")
    with pytest.raises(CalibrationError, match=words):
        choose_amaxes(PLAN, Activity.read(tmp_path / "s.npz"), Method("max"))


def test_a_tensor_that_was_not_counted(tmp_path):
    statistics(x=VALUES["x"]).write(tmp_path / "s.npz")
    with pytest.raises(InputError, match="no statistics of 2 tensors to quantize, such as 'b'"):
        choose_amaxes(PLAN, Activity.read(tmp_path / "s.npz"), Method("max"))


@pytest.mark.parametrize(
    "edit",
    [
        lambda v: v.update(kind="recipe"),
        lambda v: v.update(version=2),
        lambda v: v.pop("parents"),
        lambda v: v.update(images="many"),
        lambda v: v["tensors"]["x"].update(amax=0.0),
        lambda v: v["tensors"]["x"].update(amax=1e60),
        lambda v: v["tensors"]["x"].pop("scale"),
        lambda v: v.update(tensors=[]),
    ],
)
def test_a_table_that_was_edited_badly(path, tmp_path, edit):
    table = tmp_path / "calibration.json"
    choose_amaxes(PLAN, Activity.read(path), Method("max")).write(table)
    value = json.loads(table.read_text())
    edit(value)
    table.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"calibration\.json"):
        CalibrationTable.read(table)
