"""Full-range INT8 from statistics to graph, and the choice on held-out images."""

from dataclasses import replace

import numpy as np
import pytest
from resnet_graph import resnet

from core.errors import GraphError, InputError
from deploy.held_out import trial_images
from exporter.calibration.counts.tally import Tally
from exporter.calibration.statistics import ImageRecord, Statistics
from exporter.quantization.activity import Activity
from exporter.quantization.auto import Scope, choose_best, output_sqnr_db
from exporter.quantization.placement import plan_quantization
from exporter.quantization.recipe import Recipe, TableMaker
from exporter.quantization.table import CalibrationTable, TensorAmax, choose_amaxes
from exporter.quantization.thresholds import Method
from exporter.quantize import movable_classes, quantize_graph
from exporter.session import open_session

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
    histograms, channels = {}, {}
    for name in names:
        tally = Tally()
        tally.add(CALIBRATION if name == "input" else seen[name])
        histograms[name], channels[name] = tally.histogram(), tally.channels()
    path = tmp_path_factory.mktemp("statistics") / "statistics.npz"
    image = ImageRecord("0" * 64, (0.0,) * 3, (1.0,) * 3)
    Statistics("0" * 64, "", (image,), histograms, channels=channels).write(path)
    return path


def table(statistics, method="mse", reach="on"):
    classes = {
        "off": (),
        "on": movable_classes(MODEL),
        "all": movable_classes(MODEL, borders=True),
    }[reach]
    return choose_amaxes(PLAN, Activity.read(statistics), Method.parse(method), classes)


def maker(statistics):
    return TableMaker(MODEL, PLAN, Activity.read(statistics))


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


def test_the_best_recipe_wins(statistics):
    best = choose_best(MODEL, PLAN, maker(statistics).table, [{"input": HELD_OUT}])
    tried = best.sqnr_db
    assert any("full range" in name for name in tried) > all("full range" in name for name in tried)
    assert {name.partition(",")[0] for name in tried} == {"max", "percentile:99.99", "mse"}
    assert any("equalized 0.5" in name for name in tried)
    assert len(tried) <= Scope().most
    assert best.table.method == f"auto: {max(tried, key=tried.get)}"


def test_a_better_recipe_would_be_chosen(statistics):
    """The twin: cripple all but one, and that one wins."""
    right = maker(statistics).table
    wanted = Recipe("percentile:99.99", "on", 0.75)

    def make(recipe):
        made = right(recipe)
        if recipe == wanted:
            return made
        equalized = (recipe.strength, recipe.balance) == (wanted.strength, wanted.balance)
        worse = 2 if equalized else 16
        tensors = {n: replace(t, amax=t.amax / worse) for n, t in made.tensors.items()}
        return replace(made, tensors=tensors)

    best = choose_best(MODEL, PLAN, make, [{"input": HELD_OUT}])
    assert best.table.method == f"auto: {wanted}"


def test_what_is_not_in_scope_is_not_tried(statistics):
    scope = Scope(strengths=(0.0,), methods=("max",), reaches=("off",))
    best = choose_best(MODEL, PLAN, maker(statistics).table, [{"input": HELD_OUT}], scope)
    assert list(best.sqnr_db) == ["max"]


def test_recipes_that_give_one_table_are_run_once(statistics):
    made = []
    right = maker(statistics)

    def make(recipe):
        table = right.table(replace(recipe, reach="off", method="mse"))
        made.append(table)
        return table

    best = choose_best(MODEL, PLAN, make, [{"input": HELD_OUT}])
    assert len(set(best.sqnr_db.values())) == 4  # one a strength, and the strongest balanced
    assert len(made) > 4


def test_held_out_images_are_not_those_calibrated_with(tmp_path):
    images = np.random.default_rng(0).normal(size=(24, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "x.npz", images=images)
    from calib_data.open import open_data

    source = open_data(str(tmp_path / "x.npz"))
    seen = [source.digest(i) for i in range(14)]
    divided = trial_images(str(tmp_path / "x.npz"), None, seen, held_out=10, others=9)
    found = np.concatenate(divided.held_out)
    assert len(found) == 10
    assert all(any(np.array_equal(x, y) for y in images[14:]) for x in found)
    with pytest.raises(InputError, match="only 4 images are left"):
        seen = [source.digest(i) for i in range(20)]
        trial_images(str(tmp_path / "x.npz"), None, seen, held_out=10)


def test_corrected_biases_are_tried_and_told(statistics):
    seen = Activity.read(statistics)
    scope = Scope(strengths=(0.0,), methods=("max",), reaches=("off",), biases=(True,))
    feeds = [{"input": HELD_OUT}]
    channels = seen.statistics.channels
    best = choose_best(MODEL, PLAN, maker(statistics).table, feeds, scope, channels=channels)
    assert best.recipe.biases
    assert best.table.method == "auto: max, biases corrected"
    corrected = quantize_graph(MODEL, PLAN, best.table, channels=channels)
    plain = quantize_graph(MODEL, PLAN, best.table)
    assert len(corrected.corrected) == len(PLAN.weights) - 1  # not the one that reads pixels
    reference = outputs(MODEL)[0]
    drift = [
        np.abs((outputs(made.model)[0] - reference).mean(axis=0)).mean()
        for made in (plain, corrected)
    ]
    assert drift[1] < drift[0]
    both = replace(scope, biases=(False, True))
    tried = choose_best(
        MODEL, PLAN, maker(statistics).table, feeds, both, channels=channels
    ).sqnr_db
    assert tried["max"] != tried["max, biases corrected"]  # one table, two graphs
    without = choose_best(MODEL, PLAN, maker(statistics).table, feeds, scope)
    assert not without.recipe.biases
