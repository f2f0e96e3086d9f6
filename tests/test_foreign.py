"""Networks of other shapes and other exporters: planned, quantized, linted, built, as good."""

import contextlib
import io
import logging
from collections import Counter
from functools import cache

import numpy as np
import onnx
import pytest
from foreign_nets import NETS, images

from deploy.engines.build import build
from deploy.engines.target import BuildTarget, parse_batch, parse_targets
from exporter.calibration.counts.tally import Tally
from exporter.calibration.statistics import Statistics
from exporter.lint import lint
from exporter.onnx_file import check, save
from exporter.optimize import check_optimized, optimize
from exporter.precision import to_float16
from exporter.quantization.activity import Activity
from exporter.quantization.auto import choose_best, output_sqnr_db
from exporter.quantization.placement import plan_quantization
from exporter.quantization.recipe import Recipe, TableMaker
from exporter.quantize import quantize_graph
from exporter.session import open_session

# What is quantized, by the rule that asks for it. By hand from the drawings: each distinct
# input of a layer, each shortcut whose addition is a convolution's, each mean before a layer,
# what a Concat joins beside that.
PAIRS = {
    "densenet": {"Conv": 14, "GlobalAveragePool": 1, "Gemm": 1},
    "vovnet": {"Conv": 11, "Concat": 2, "GlobalAveragePool": 3, "Gemm": 1},
    "cspnet": {"Conv": 17, "Concat": 4, "GlobalAveragePool": 1, "Gemm": 1},
    "mobilenet": {"Conv": 11, "GlobalAveragePool": 1, "Gemm": 1},
    "resnext": {"Conv": 7, "Add": 2, "GlobalAveragePool": 1, "Gemm": 1},
    "preactivation": {"Conv": 5, "Add": 2, "GlobalAveragePool": 1, "Gemm": 1},
    "senet": {"Conv": 9, "GlobalAveragePool": 3, "Gemm": 1},
    "caffe": {"Conv": 4, "Add": 1, "GlobalAveragePool": 1, "Gemm": 1},
    "keras": {"Conv": 4, "GlobalAveragePool": 1, "Gemm": 1},
}
CONVOLUTIONS = {
    **{"densenet": 14, "vovnet": 11, "cspnet": 19, "mobilenet": 11, "resnext": 9},
    **{"preactivation": 6, "senet": 9, "caffe": 5, "keras": 4},
}
every_net = pytest.mark.parametrize("name", NETS)


@cache
def optimized(name, *, opset=None):
    model = NETS[name]() if opset is None else NETS[name](opset)
    check(model)
    return optimize(model)[0]


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


def statistics(model, tensors, path, count=16):
    """Write the statistics of random images."""
    session = open_session(model, outputs=tensors)
    tallies = {name: Tally() for name in tensors}
    for feed in images(model, count):
        found = session(feed) | feed
        for name, tally in tallies.items():
            tally.add(found[name])
    histograms = {name: tally.histogram() for name, tally in tallies.items()}
    channels = {name: tally.channels() for name, tally in tallies.items()}
    Statistics("", "", (), histograms, channels=channels).write(path)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A function: network, recipe → its plan and calibration table."""
    folder = tmp_path_factory.mktemp("statistics")

    @cache
    def seen(name):
        plan = plan_quantization(optimized(name))
        tensors = [activation.tensor for activation in plan.activations]
        path = statistics(optimized(name), tensors, folder / f"{name}.npz")
        return plan, TableMaker(optimized(name), plan, Activity.read(path))

    def choose(name, recipe):
        plan, maker = seen(name)
        return plan, maker.table(recipe)

    return choose


@pytest.fixture(scope="module")
def best(table):
    """A function: network → its plan and the table that auto chooses on held-out images."""

    @cache
    def choose(name):
        plan, _ = table(name, Recipe("max"))
        feeds = [joined(images(optimized(name), 32, seed=1))]
        made = choose_best(optimized(name), plan, lambda recipe: table(name, recipe)[1], feeds)
        return plan, made.table

    return choose


def joined(feeds):
    """Put single images into one batch."""
    return {"input": np.concatenate([feed["input"] for feed in feeds])}


@every_net
def test_the_passes_leave_the_numbers_as_they_are(name):
    model = NETS[name]()
    check_optimized(model, optimized(name), images(model, 2))
    assert operators(optimized(name))["Conv"] == CONVOLUTIONS[name]


@every_net
@pytest.mark.parametrize("opset", [13, 17, 21])
def test_what_is_quantized(name, opset):
    model = optimized(name, opset=opset)
    plan = plan_quantization(model)
    assert Counter(activation.reason.split()[2] for activation in plan.activations) == PAIRS[name]
    assert plan.left == {}
    assert sum(len(weight.readers) for weight in plan.weights) == CONVOLUTIONS[name] + 1
    assert {weight.axis for weight in plan.weights} == {0}
    assert not {a.tensor for a in plan.activations} & {o.name for o in model.graph.output}


@pytest.mark.parametrize(("name", "joined"), [("vovnet", [5, 5]), ("cspnet", [3, 3])])
def test_what_a_concat_joins_has_one_scale(name, joined):
    model = optimized(name)
    groups = [members for members in plan_quantization(model).groups.values() if len(members) > 1]
    concats = [{*node.input, *node.output} for node in model.graph.node if node.op_type == "Concat"]
    assert [len(group) for group in groups] == joined
    assert list(map(set, groups)) == concats


def test_what_normalization_reads_stays_float():
    model = optimized("densenet")
    paired = {activation.tensor for activation in plan_quantization(model).activations}
    assert (
        not {name for n in model.graph.node if n.op_type == "Concat" for name in n.output} & paired
    )


def test_the_caffe_born_one_is_a_residual_network_again():
    model = optimized("caffe")
    assert operators(model) == {
        **{"Conv": 5, "Relu": 4, "MaxPool": 1, "Add": 1},
        **{"GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1, "Softmax": 1},
    }
    makers = {output: node for node in model.graph.node for output in node.output}
    (shortcut,) = (a for a in plan_quantization(model).activations if "shortcut" in a.reason)
    # The projection is the shortcut: three layers are behind the other branch.
    assert makers[shortcut.tensor].op_type == "Conv"
    assert makers[makers[shortcut.tensor].input[0]].op_type == "MaxPool"


@every_net
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("recipe", [Recipe(), Recipe("mse", "on", 0.5)], ids=str)
def test_nothing_is_left_for_lint(name, recipe, half, table):
    plan, amaxes = table(name, recipe)
    quantized = quantize_graph(optimized(name), plan, amaxes, half=half).model
    report = lint(to_float16(quantized) if half else quantized)
    assert report.findings == ()
    assert report.int8 == report.layers == CONVOLUTIONS[name] + 1


@every_net
def test_tensorrt_builds_it(name, best, tmp_path):
    plan, amaxes = best(name)
    int8 = quantize_graph(optimized(name), plan, amaxes, half=True).model
    save(to_float16(int8), tmp_path / "int8.onnx")
    target = BuildTarget(profiles=(parse_batch("1"),), capabilities=parse_targets("sm86"))
    manifest = build(tmp_path / "int8.onnx", target, tmp_path / "int8.engine").manifest
    assert manifest.count("int8", "Conv") == CONVOLUTIONS[name]
    assert manifest.count("int8") == CONVOLUTIONS[name] + 1


@pytest.mark.parametrize("name", ["densenet", "mobilenet", "keras"])  # of opset 13
def test_tensorrt_builds_it_in_float32_rest(name, table, tmp_path):
    int8 = quantize_graph(optimized(name), *table(name, Recipe("max"))).model
    save(int8, tmp_path / "int8.onnx")
    target = BuildTarget(profiles=(parse_batch("1"),), capabilities=parse_targets("sm86"))
    manifest = build(tmp_path / "int8.onnx", target, tmp_path / "int8.engine").manifest
    assert manifest.count("int8") == CONVOLUTIONS[name] + 1


def quantized_by_onnxruntime(model, folder):
    """MinMax, symmetric, per channel: what TensorRT can build of what ONNX Runtime makes."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Images(CalibrationDataReader):
        left = images(model, 16)

        def get_next(self):
            return self.left.pop() if self.left else None

    onnx.save(model, folder / "float.onnx")
    with contextlib.redirect_stdout(io.StringIO()):
        logging.disable(logging.WARNING)
        quantize_static(
            folder / "float.onnx",
            folder / "theirs.onnx",
            Images(),
            per_channel=True,
            activation_type=QuantType.QInt8,
            extra_options={
                **{"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
            },
        )
        logging.disable(logging.NOTSET)
    return onnx.load(folder / "theirs.onnx")


def outputs(model, feed):
    return list(open_session(model)(feed).values())


@every_net
def test_as_good_as_onnxruntimes_best(name, best, tmp_path):
    model = optimized(name)
    plan, amaxes = best(name)
    feed = joined(images(model, 48, seed=2))
    expected = outputs(model, feed)
    ours = output_sqnr_db(expected, outputs(quantize_graph(model, plan, amaxes).model, feed))
    theirs = quantized_by_onnxruntime(model, tmp_path)
    # Same images, zero point 0. It may lose 1 dB; a much coarser grid must fail.
    floor = output_sqnr_db(expected, outputs(theirs, feed)) - 1
    assert ours >= floor
    assert output_sqnr_db(expected, outputs(coarse(model, plan, amaxes), feed)) < floor


def coarse(model, plan, amaxes):
    """The same with scales sixteen times as large."""
    int8 = quantize_graph(model, plan, amaxes).model
    for tensor in int8.graph.initializer:
        if tensor.name.endswith(".scale") and not tensor.dims:
            value = onnx.numpy_helper.to_array(tensor) * np.float32(16)
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return int8
