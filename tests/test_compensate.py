"""Codes of a whole graph, rounded by what its layers read; the choice and the command."""

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from resnet_graph import resnet

from calib_data.preprocess import PRESETS
from core.errors import GraphError
from deploy.cli import cli
from exporter.onnx_file import Card, load, save
from exporter.quantization.auto import Scope, choose_best, output_sqnr_db
from exporter.quantization.placement import named_graph, plan_quantization
from exporter.quantization.plan import Weight
from exporter.quantization.recipe import Recipe, TableMaker
from exporter.quantization.rounding import compensate
from exporter.quantization.rounding.compensate import compensated_codes
from exporter.quantize import equalized_graph, quantize_graph
from exporter.session import open_session


def strata(*args, code=0):
    """Run a command; return what it printed."""
    result = CliRunner().invoke(cli, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result.output if code else result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network with statistics of 64 images, prepared, and 96 more beside them."""
    folder = tmp_path_factory.mktemp("net")
    card = Card(preprocess=PRESETS["fashion-mnist"], labels=("a", "b"), stage="optimized")
    save(resnet((1, 1), size=32), folder / "optimized.onnx", card)
    strata("calibrate", folder / "optimized.onnx", "--images", 64)
    return folder


@pytest.fixture(scope="module")
def made(folder):
    """The float graph, its plan, the maker of its tables, and images: to round by, to judge by."""
    from deploy.held_out import trial_images
    from exporter.quantization.activity import Activity

    model = load(folder / "optimized.onnx")
    plan = plan_quantization(model)
    maker = TableMaker(model, plan, Activity.read(folder / "statistics.npz"))
    images = trial_images(
        "fashion-mnist:train", PRESETS["fashion-mnist"], (), held_out=96, others=32
    )
    return model, plan, maker, images


def feeds(images):
    return [{"input": image} for image in images]


def decibels(models, images, **options):
    """Return the mean SQNR of the second model's outputs."""
    sessions = [open_session(model, **options) for model in models]
    outputs = [
        [np.concatenate([session(feed)["logits"] for feed in images])] for session in sessions
    ]
    return output_sqnr_db(*outputs)


def rounded(made, recipe, **options):
    model, plan, maker, images = made
    graph = equalized_graph(model, maker.table(recipe))
    return compensated_codes(graph, plan, feeds(images.others), biases=recipe.biases, **options)


def sqnr(made, recipe, codes=None, channels=None):
    model, plan, maker, images = made
    int8 = quantize_graph(model, plan, maker.table(recipe), codes=codes, channels=channels).model
    return decibels((model, int8), feeds(images.held_out))


@pytest.mark.parametrize("recipe", [Recipe("max"), Recipe("mse", "on", 0.75)], ids=str)
def test_outputs_err_less_on_images_that_were_not_seen(made, recipe):
    nearest = sqnr(made, recipe)
    assert sqnr(made, recipe, rounded(made, recipe)) > nearest + 0.5


def test_every_weight_goes_to_a_neighbour(made):
    model, plan, maker, _ = made
    recipe = Recipe("max", strength=0.5)
    codes = rounded(made, recipe)
    nearest = rounded_to_nearest(equalized_graph(model, maker.table(recipe)), plan)
    assert codes.keys() == {weight.tensor for weight in plan.weights}
    moved = {
        name: np.abs(codes[name].astype(int) - nearest[name].astype(int)).max() for name in codes
    }
    assert set(moved.values()) == {1}


def rounded_to_nearest(graph, plan):
    from exporter.quantization.rounding.codes import WeightCodes

    known = WeightCodes(plan)
    values = graph.graph.initializers
    return {w.tensor: known.of(w, values[w.tensor].const_value.numpy())[1] for w in plan.weights}


def test_little_room_changes_nothing(made, monkeypatch):
    whole = rounded(made, Recipe("max"))
    monkeypatch.setattr(compensate, "_MOST_BYTES", 1)
    told = []
    apart = rounded(made, Recipe("max"), progress=lambda *said: told.append(said))
    assert [done for done, _, _ in told] == list(range(1, len(whole) + 1))
    for name, codes in whole.items():
        np.testing.assert_array_equal(apart[name], codes)


def test_half_rounds_by_the_scales_of_float16(made):
    model, plan, maker, images = made
    recipe = Recipe("max")
    graph = quantize_graph(
        model, plan, maker.table(recipe), half=True, codes=rounded(made, recipe, half=True)
    ).model
    scales = [i for i in graph.graph.initializer if i.name.endswith("weight.scale")]
    assert scales
    assert decibels((model, graph), feeds(images.held_out)) > sqnr(made, recipe)


def test_a_weight_that_two_layers_read_is_rounded_for_both():
    model = resnet((2,), size=32)
    second = next(node for node in model.graph.node if node.name == "layer1.1.conv2")
    second.input[1] = "layer1.0.conv2.weight"
    plan = plan_quantization(model)
    shared = next(weight for weight in plan.weights if weight.tensor == second.input[1])
    assert shared.readers == ("layer1.0.conv2", "layer1.1.conv2")
    images = feeds(np.random.default_rng(0).normal(size=(16, 1, 3, 32, 32)).astype(np.float32))
    alone = replace(shared, readers=("layer1.0.conv2",))
    codes = [
        compensated_codes(named_graph(model), replace(plan, weights=(weight,)), images)
        for weight in (shared, alone)
    ]
    assert codes[0].keys() == {shared.tensor}
    assert not np.array_equal(codes[0][shared.tensor], codes[1][shared.tensor])


def test_a_layer_that_reads_the_images_minds_their_mean(made):
    """Its bias is not corrected, so its weights are rounded alike whether others' are or not."""
    plain, corrected = (rounded(made, Recipe("max", biases=biases)) for biases in (False, True))
    same = {name for name, codes in plain.items() if np.array_equal(codes, corrected[name])}
    assert same == {"conv1.weight"}


def test_each_group_is_rounded_by_what_it_reads():
    """Channels go together in each group, in other ways; the outputs err less in all of them."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 8, 1, 1)).astype(np.float32)
    mixed = rng.normal(size=(4, 8, 2)) @ rng.normal(size=(4, 2, 600))
    images = np.float32(mixed.reshape(1, 32, 600).transpose(2, 0, 1)[..., None, None])
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="layer", group=4)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, 1, 1])
        for name, channels in (("x", 32), ("y", 64))
    ]
    graph = helper.make_graph([node], "g", values[:1], values[1:], [from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)
    plan = plan_quantization(model)
    codes = compensated_codes(named_graph(model), plan, [{"x": x} for x in images])["w"]
    scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
    steps = (weight[..., 0, 0] / scale[:, None]).reshape(4, 16, 8)
    read = images.reshape(600, 4, 8)
    noise = [
        np.mean(np.einsum("gmk,ngk->ngm", steps - taken, read) ** 2, axis=(0, 2))
        for taken in (np.rint(steps), codes.reshape(4, 16, 8))
    ]
    assert np.all(noise[1] < noise[0] / 3)


def test_a_fixed_batch_gets_an_image_as_often_as_it_takes():
    model, fixed = resnet((1,), size=32), resnet((1,), size=32)
    for info in (*fixed.graph.input, *fixed.graph.output, *fixed.graph.value_info):
        info.type.tensor_type.shape.dim[0].dim_value = 4
    plan = plan_quantization(model)
    images = feeds(np.random.default_rng(0).normal(size=(8, 1, 3, 32, 32)).astype(np.float32))
    free, four = (compensated_codes(named_graph(m), plan, images) for m in (model, fixed))
    assert free.keys() == four.keys()
    for name, codes in free.items():
        assert np.mean(codes == four[name]) > 0.99  # up to the last bits of a sum


def test_what_the_graph_lacks_is_left_out():
    model = resnet((1,), size=32)
    plan = replace(plan_quantization(model), weights=(Weight("no such weight", 0, ("conv1",)),))
    assert compensated_codes(named_graph(model), plan, []) == {}


def test_codes_of_another_shape_are_refused(made):
    model, plan, maker, _ = made
    wrong = {"conv1.weight": np.zeros((1, 2), np.int8)}
    with pytest.raises(GraphError, match="its codes are"):
        quantize_graph(model, plan, maker.table(Recipe("max")), codes=wrong)


def test_auto_tries_it_and_tells(made):
    model, plan, maker, images = made
    held_out = feeds(images.held_out)
    asked = []

    def make_codes(table, *, biases):
        asked.append((table.method, biases))
        graph = equalized_graph(model, table)
        return compensated_codes(graph, plan, feeds(images.others), biases=biases)

    scope = Scope(strengths=(0.0, 0.5), methods=("max",), reaches=("off",), biases=(False,))
    best = choose_best(model, plan, maker.table, held_out, scope, make_codes=make_codes)
    assert best.recipe.compensate
    assert best.table.method.endswith(", weights compensated")
    assert best.codes
    ways = [method.partition(", weights")[0] for method, biases in asked if not biases]
    assert [way.replace(", balanced", "") for way in ways] == [
        "max, equalized 0.5",
        "max, equalized 0.75",
    ]
    assert len(best.sqnr_db) == scope.most
    # What it returns is what it tried.
    again = quantize_graph(model, plan, best.table, codes=best.codes).model
    told = best.sqnr_db[best.table.method.removeprefix("auto: ")]
    assert decibels((model, again), held_out, threads=1) == told
    # Asked for, it is done, be it good or not.
    spoilt = {name: np.zeros_like(codes) for name, codes in best.codes.items()}
    always = replace(scope, compensates=(True,))
    bad = choose_best(
        model, plan, maker.table, held_out, always, make_codes=lambda *_, **__: spoilt
    )
    assert bad.recipe.compensate
    assert max(bad.sqnr_db, key=bad.sqnr_db.get) != str(bad.recipe)
    without = choose_best(model, plan, maker.table, held_out, scope)
    assert not without.recipe.compensate
    assert not without.codes


def quantized(folder, out, *args, code=0):
    model = folder / "optimized.onnx"
    where = ["--statistics", folder / "statistics.npz", "-o", out / "int8.onnx", "--json"]
    said = strata("quantize", model, *where, *args, code=code)
    return said if code else json.loads(said)


def test_by_the_command(folder, tmp_path):
    data = ["--data", "fashion-mnist:train"]
    auto = quantized(folder, tmp_path, *data)
    assert "weights compensated" in auto["method"]
    assert auto["compensated"] == auto["layers"]
    plain = quantized(folder, tmp_path, *data, "--no-compensate-weights")
    assert plain["compensated"] == 0
    assert not any("compensated" in name for name in plain["tried"])
    named = quantized(folder, tmp_path, "--method", "max", "--compensate-weights", *data)
    assert (named["method"], named["compensated"]) == ("max, weights compensated", named["layers"])
    first = (tmp_path / "int8.onnx").read_bytes()
    given = ["--table", tmp_path / "calibration.json", "--compensate-weights", *data]
    again = quantized(folder, tmp_path, *given)
    assert again["sha256"] == named["sha256"]
    assert (tmp_path / "int8.onnx").read_bytes() == first
    assert quantized(folder, tmp_path, "--method", "max")["sha256"] != named["sha256"]


def test_it_needs_images(folder, tmp_path):
    for method in ("max", "auto"):
        said = quantized(folder, tmp_path, "--method", method, "--compensate-weights", code=2)
        assert "--data" in said
    np.savez(tmp_path / "few.npz", images=np.zeros((5, 3, 32, 32), np.float32))
    few = ["--method", "max", "--compensate-weights", "--data", tmp_path / "few.npz"]
    assert "only 5 images" in quantized(folder, tmp_path, *few, code=2)
    assert not (tmp_path / "int8.onnx").exists()
