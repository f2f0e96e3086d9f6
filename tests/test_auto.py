"""Full-range INT8 from statistics to graph, and the choice on held-out images."""

from dataclasses import replace

import numpy as np
import pytest
from resnet_graph import resnet

from core.errors import GraphError, InputError
from deploy.held_out import held_out_batches
from exporter.auto import choose_best, output_sqnr_db
from exporter.calibration_table import CalibrationTable, TensorAmax, choose_amaxes
from exporter.histogram import Tally
from exporter.placement import plan_quantization
from exporter.quantize import movable_classes, quantize_graph
from exporter.session import open_session
from exporter.statistics import ImageRecord, Statistics
from exporter.thresholds import Method

MODEL = resnet((1, 1, 1, 1))
PLAN = plan_quantization(MODEL)
CALIBRATION, HELD_OUT = (
    np.random.default_rng(seed).normal(size=(16, 3, 32, 32)).astype(np.float32) for seed in (0, 1)
)


def outputs(model):
    return [open_session(model)({"input": HELD_OUT})["logits"]]


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    names = [activation.tensor for activation in PLAN.activations]
    seen = open_session(MODEL, outputs=[n for n in names if n != "input"])({"input": CALIBRATION})
    histograms = {}
    for name in names:
        tally = Tally()
        tally.add(CALIBRATION if name == "input" else seen[name])
        histograms[name] = tally.histogram()
    path = tmp_path_factory.mktemp("statistics") / "statistics.npz"
    image = ImageRecord("0" * 64, (0.0,) * 3, (1.0,) * 3)
    Statistics("0" * 64, "", (image,), histograms).write(path)
    return path


def table(statistics, method="mse", reach="on"):
    classes = {
        "off": (),
        "on": movable_classes(MODEL),
        "all": movable_classes(MODEL, borders=True),
    }[reach]
    return choose_amaxes(PLAN, statistics, Method.parse(method), classes)


def test_full_range_is_worth_more_than_a_bit_where_it_applies(statistics):
    reference = outputs(MODEL)
    plain = quantize_graph(MODEL, PLAN, table(statistics, reach="off"))
    full = quantize_graph(MODEL, PLAN, table(statistics))
    assert plain.shifts == {}
    assert {"maxpool", "layer1.0.relu2", "layer1.0.relu"} <= full.shifts.keys()
    everywhere = quantize_graph(MODEL, PLAN, table(statistics, reach="all"))
    assert {"layer1.0.relu1"} <= everywhere.shifts.keys() - full.shifts.keys()
    off, on, all_ = (
        output_sqnr_db(reference, outputs(made.model)) for made in (plain, full, everywhere)
    )
    assert on > off + 1.5
    assert all_ > on


def test_a_constant_that_is_off_ruins_the_network(statistics):
    """The twin: the gain comes from the right constants, not from moving."""
    right = table(statistics)
    choice = right.tensors["layer1.0.relu2"]
    wrong = {**right.tensors, "layer1.0.relu2": replace(choice, shift=3 * choice.shift)}
    after = quantize_graph(MODEL, PLAN, replace(right, tensors=wrong)).model
    assert output_sqnr_db(outputs(MODEL), outputs(after)) < 10


def test_a_table_that_moves_what_cannot_move_is_refused(statistics):
    right = table(statistics)
    tensors = {**right.tensors, "input": TensorAmax(1.0, "max", "input", 0.0, 40.0, shift=0.5)}
    with pytest.raises(GraphError, match="'input' cannot be moved"):
        quantize_graph(MODEL, PLAN, replace(right, tensors=tensors))


def test_shifts_survive_the_file(statistics, tmp_path):
    before = table(statistics)
    before.write(tmp_path / "calibration.json")
    after = CalibrationTable.read(tmp_path / "calibration.json")
    assert {n: (t.amax, t.shift) for n, t in after.tensors.items()} == {
        n: (t.amax, t.shift) for n, t in before.tensors.items()
    }


def test_the_best_candidate_wins(statistics):
    feeds = [{"input": HELD_OUT}]
    best = choose_best(MODEL, PLAN, lambda method, reach: table(statistics, method, reach), feeds)
    assert {"max", "percentile:99.99", "mse"} < best.sqnr_db.keys()
    winner = max(best.sqnr_db, key=best.sqnr_db.get)
    assert any("full range" in name for name in best.sqnr_db)
    assert best.table.method == f"auto: {winner}"


def test_a_better_method_would_be_chosen(statistics):
    """The twin: cripple all but one candidate, and that one wins."""

    def make(method, reach):
        made = table(statistics, method, reach)
        if method == "percentile:99.99" and reach == "off":
            return made
        tensors = {n: replace(t, amax=t.amax / 16) for n, t in made.tensors.items()}
        return replace(made, tensors=tensors)

    best = choose_best(MODEL, PLAN, make, [{"input": HELD_OUT}])
    assert best.table.method == "auto: percentile:99.99"


def test_held_out_images_are_not_those_calibrated_with(tmp_path):
    images = np.random.default_rng(0).normal(size=(24, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", images=images)
    from calib_data.open import open_data

    source = open_data(str(tmp_path / "x.npz"))
    seen = [source.digest(i) for i in range(14)]
    batches = held_out_batches(str(tmp_path / "x.npz"), None, seen)
    found = np.concatenate(batches)
    assert len(found) == 10
    assert all(any(np.array_equal(x, y) for y in images[14:]) for x in found)
    with pytest.raises(InputError, match="only 4 images are left"):
        held_out_batches(str(tmp_path / "x.npz"), None, [source.digest(i) for i in range(20)])
