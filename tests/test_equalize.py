"""Channels that are scaled: which can be, what becomes of the graph, and what it is good for."""

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from foreign_nets import NETS, images
from onnx import parser
from resnet_graph import resnet

from core.errors import GraphError, InputError
from core.metrics import sqnr_db
from exporter.calibration.counts.channels import ChannelCounts
from exporter.calibration.counts.tally import Tally
from exporter.calibration.statistics import Statistics
from exporter.graph_file import to_proto
from exporter.optimize import optimize
from exporter.quantization.activity import Activity
from exporter.quantization.auto import output_sqnr_db
from exporter.quantization.channel_classes import find_channel_classes
from exporter.quantization.channel_steps import STEPS, factors_of, steps_from_json, steps_to_json
from exporter.quantization.equalize import choose_steps, require_consistent
from exporter.quantization.held_names import EQUALIZED
from exporter.quantization.placement import named_graph, plan_quantization
from exporter.quantization.recipe import Recipe, TableMaker
from exporter.quantization.scale_channels import scale_channels
from exporter.quantization.table import CalibrationTable
from exporter.quantize import quantize_graph
from exporter.session import open_session

every_net = pytest.mark.parametrize("name", NETS)


@cache
def network(name):
    return optimize(NETS[name]())[0] if name in NETS else resnet((2, 1, 1, 1))


def random_steps(model, seed=0):
    """Return factors from a quarter to four for every class."""
    classes = find_channel_classes(named_graph(model).graph)
    rng = np.random.default_rng(seed)
    number = np.append(rng.integers(-2 * STEPS, 2 * STEPS + 1, classes.count), 0)
    chosen = {name: number[ids] for name, ids in classes.of.items()}
    return {name: steps for name, steps in chosen.items() if steps.any()}


def scaled(model, steps):
    graph = named_graph(copy.deepcopy(model))
    scale_channels(graph.graph, {name: factors_of(own) for name, own in steps.items()})
    return to_proto(graph)


@pytest.mark.parametrize("name", [*NETS, "resnet"])
def test_no_result_changes_and_every_tensor_is_divided(name):
    model = network(name)
    steps = random_steps(model)
    after = scaled(model, steps)
    feeds = list(images(model, 2)) if name in NETS else [{"input": noise((2, 3, 32, 32))}]
    some = list(steps)[:: max(1, len(steps) // 12)]
    before = open_session(model, outputs=some)
    divided = open_session(after, outputs=[n + EQUALIZED for n in some])
    for feed in feeds:
        want, got = before(feed), divided(feed)
        for output in model.graph.output:
            assert sqnr_db(want[output.name], got[output.name]) > 100
        for tensor in some:
            factor = factors_of(steps[tensor])
            own = got[tensor + EQUALIZED] * factor.reshape(1, -1, *[1] * (want[tensor].ndim - 2))
            assert sqnr_db(want[tensor], own) > 90


def test_factors_that_are_not_passed_on_are_seen():
    """The twin: without the factors of one tensor another function is computed."""
    model = network("resnet")
    steps = random_steps(model)
    del steps["layer1.0.relu1"]
    feed = {"input": noise((2, 3, 32, 32))}
    want, got = (open_session(m)(feed)["logits"] for m in (model, scaled(model, steps)))
    assert sqnr_db(want, got) < 30


def noise(shape):
    return np.random.default_rng(5).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("name", [*NETS, "resnet"])
def test_most_layers_read_channels_that_can_be_scaled(name):
    model = network(name)
    classes = find_channel_classes(named_graph(model).graph)
    layers = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm")]
    free = [n for n in layers if (classes.of.get(n.input[0], np.array([-1])) >= 0).all()]
    # The first one reads the image; gates and Relu6 hold channels in place.
    share = {"senet": 0.3, "mobilenet": 0.15, "keras": 0.5, "vovnet": 0.5}.get(name, 0.8)
    assert len(free) >= share * len(layers)


def test_a_residual_stream_is_one_class_a_channel():
    of = find_channel_classes(named_graph(network("resnet")).graph).of
    stream = ["layer1.0.downsample.1", "layer1.0.bn3", "layer1.0.add", "layer1.0.relu"]
    for name in (*stream, "layer1.1.bn3", "layer1.1.add", "layer1.1.relu"):
        assert np.array_equal(of[name], of["layer1.0.add"])
    assert not set(of["layer1.0.relu1"]) & set(of["layer1.0.add"])
    assert not set(of["layer2.0.add"]) & set(of["layer1.0.add"])
    assert np.array_equal(of["flatten"], of["layer4.0.relu"])
    assert not {"input", "logits"} & of.keys()


GRAPH = """<ir_version: 9, opset_import: ["" : 18]>
g (float[N,2,4,4] input) => (float[N,2,4,4] output)
<float[3,2,1,1] w = {{1,2,3,4,5,6}}, float[3] b = {{1,2,3}}, float[2,3,1,1] v = {{1,2,3,4,5,6}},
  float zero = {{0}}, float one = {{1}}> {{
  x = Conv(input, w, b)
  {body}
}}"""


def classes_of(body):
    model = onnx.shape_inference.infer_shapes(parser.parse_model(GRAPH.format(body=body)))
    return find_channel_classes(named_graph(model).graph).of


@pytest.mark.parametrize(
    ("body", "free"),
    [
        ("y = Relu(x) output = Conv(y, v)", True),
        ("y = LeakyRelu(x) output = Conv(y, v)", True),
        ("y = Sigmoid(x) output = Conv(y, v)", False),
        ("y = Mul(x, x) output = Conv(y, v)", False),
        ("y = Add(x, one) output = Conv(y, v)", False),
        ("y = Relu(x) z = Add(x, y) output = Conv(z, v)", True),
        ("y = Clip(x, zero) output = Conv(y, v)", True),
        ("y = Clip(x, one) output = Conv(y, v)", False),
        ("y = Relu(x) output = Conv(y, v) unused = Sin(y)", False),
        ("y = Relu(x) s = ReduceSum(v) t = Mul(v, s) output = Conv(y, t)", False),
    ],
)
def test_what_factors_pass_through(body, free):
    assert ("x" in classes_of(body)) is free


def test_weights_that_two_layers_read_hold_their_channels():
    of = classes_of("y = Conv(x, v) z = Relu(x) u = Conv(z, v) output = Add(y, u)")
    assert "x" not in of


def test_steps_follow_magnitudes():
    classes = find_channel_classes(named_graph(network("resnet")).graph)
    tally = Tally()
    x = np.ones((1, 8, 64), np.float32) * np.float32([1, 2, 4, 8, 1, 1, 1, 0])[:, None]
    tally.add(x)
    steps = choose_steps(classes, {"layer1.0.relu1": tally.channels()}, 0.5)
    own = steps["layer1.0.relu1"].tolist()
    # 2 → half an octave, 4 eighths; cells are an eighth wide. A dead one: 1e-3 of the largest.
    assert own[:7] == pytest.approx([0, 4, 8, 12, 0, 0, 0], abs=1)
    assert own[7] == pytest.approx(STEPS * 0.5 * np.log2(8e-3), abs=1)
    assert np.array_equal(steps["layer1.0.bn1"], steps["layer1.0.relu1"])
    assert set(steps) == {"layer1.0.bn1", "layer1.0.relu1"}
    assert choose_steps(classes, {"layer1.0.relu1": tally.channels()}, 0.0) == {}
    assert choose_steps(classes, {"layer1.0.relu1": ChannelCounts.empty()}, 0.5) == {}


def test_a_channel_that_is_seldom_other_than_zero_keeps_its_reach():
    """By its quantile it would be divided by next to nothing, and be all that the codes are for."""
    classes = find_channel_classes(named_graph(network("resnet")).graph)
    values = np.abs(np.random.default_rng(0).normal(size=(4000, 8, 1, 1))).astype(np.float32)
    values[:, 3] = 0
    values[:2, 3] = 8.0  # 1 in 2000
    tally = Tally()
    tally.add(values)
    for strength in (0.5, 1.0):
        steps = choose_steps(classes, {"layer1.0.relu1": tally.channels()}, strength)
        divided = values / factors_of(steps["layer1.0.relu1"])[:, None, None]
        others = np.delete(np.arange(8), 3)
        assert divided[:, 3].max() < 4 * divided[:, others].max()


def test_factors_that_do_not_fit_are_refused():
    model = network("resnet")
    classes = find_channel_classes(named_graph(model).graph)
    steps = random_steps(model)
    require_consistent(classes, steps)
    name = "layer1.0.relu"
    for wrong in (
        {k: v for k, v in steps.items() if k != name},
        steps | {name: steps[name] + 1},
        steps | {name: steps[name][:-1]},
        steps | {"input": np.array([1, 0, 0])},
    ):
        with pytest.raises(ValueError, match="divided"):
            require_consistent(classes, wrong)


def test_steps_survive_their_text():
    steps = random_steps(network("resnet"))
    entries = steps_to_json(steps)
    assert len(entries) < len(steps)  # a stream is one entry
    back = steps_from_json(entries)
    assert back.keys() == steps.keys()
    assert all(np.array_equal(back[name], steps[name]) for name in steps)
    with pytest.raises(ValueError, match="no factors"):
        steps_from_json([{"tensors": ["x"], "eighths": "9999"}])
    with pytest.raises(ValueError, match="no list"):
        steps_from_json([{"tensors": "x", "eighths": "1"}])


@pytest.fixture(scope="module")
def uneven(tmp_path_factory):
    """A network whose channels differ, its plan, and a maker of tables."""
    model = copy.deepcopy(network("resnet"))
    steps = random_steps(model, seed=3)
    model = scaled(model, {name: 2 * own for name, own in steps.items()})
    text = {
        node_output: node_output.removesuffix(EQUALIZED)
        for n in model.graph.node
        for node_output in n.output
    }
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, value in enumerate(names):
                names[at] = text.get(value, value)
    del model.graph.value_info[:]
    model = onnx.shape_inference.infer_shapes(model)
    plan = plan_quantization(model)
    tensors = [activation.tensor for activation in plan.activations]
    feed = {"input": np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)}
    seen = open_session(model, outputs=[t for t in tensors if t != "input"])(feed) | feed
    tallies = {name: Tally() for name in tensors}
    for name, tally in tallies.items():
        tally.add(seen[name])
    path = tmp_path_factory.mktemp("uneven") / "statistics.npz"
    Statistics(
        "0" * 64,
        "",
        (),
        {n: t.histogram() for n, t in tallies.items()},
        channels={n: t.channels() for n, t in tallies.items()},
    ).write(path)
    return model, plan, TableMaker(model, plan, Activity.read(path))


def test_equalized_channels_keep_more(uneven, tmp_path):
    model, plan, maker = uneven
    feed = {"input": noise((8, 3, 32, 32))}
    reference = [open_session(model)(feed)["logits"]]

    def quality(table):
        made = quantize_graph(model, plan, table).model
        return output_sqnr_db(reference, [open_session(made)(feed)["logits"]])

    for reach in ("off", "on", "all"):
        plain, equal = (maker.table(Recipe("mse", reach, strength)) for strength in (0.0, 0.5))
        assert quality(equal) > quality(plain) + 3
    # The table on disk gives the same graph.
    equal.write(tmp_path / "calibration.json")
    again = CalibrationTable.read(tmp_path / "calibration.json")
    made = [quantize_graph(model, plan, t).model.SerializeToString() for t in (equal, again)]
    assert made[0] == made[1]
    # The twin: the same amaxes without the factors.
    assert quality(replace(equal, equalized={})) < quality(equal) - 10


def test_a_graph_says_which_tensors_it_holds_how(uneven):
    model, plan, maker = uneven
    made = quantize_graph(model, plan, maker.table(Recipe("mse", "on", 0.5)))
    names = {name for node in made.model.graph.node for name in node.output}
    both = made.equalized.keys() & made.shifts.keys()
    assert both
    assert {f"{n}.equalized.shifted" for n in both} <= names
    assert {f"{n}.equalized" for n in made.equalized.keys() - both} <= names
    assert {f"{n}.shifted" for n in made.shifts.keys() - both} <= names
    assert not both & names


def test_a_table_that_divides_what_cannot_be_is_refused(uneven):
    model, plan, maker = uneven
    table = maker.table(Recipe("mse", "off", 0.5))
    wrong = {**table.equalized, "input": np.array([1, 1, 1])}
    with pytest.raises(GraphError, match="cannot be: 'input'"):
        quantize_graph(model, plan, replace(table, equalized=wrong))


def test_statistics_without_channels_cannot_equalize(uneven):
    model, plan, maker = uneven
    activity = maker._activity[0.0, False]
    old = replace(activity, statistics=replace(activity.statistics, channels={}))
    with pytest.raises(InputError, match="do not tell channels apart"):
        TableMaker(model, plan, old).table(Recipe("mse", "off", 0.5))


def test_no_strength_beyond_one():
    with pytest.raises(InputError, match=r"1\.5"):
        Recipe(strength=1.5)
