"""Comparing a network that holds tensors over a factor of each channel (equalization)."""

import numpy as np
import onnx_ir as ir
import pytest
from comparing import compare, noise_request, rows_of
from resnet_graph import resnet

from core.errors import InputError
from deploy.comparison.graphs.holding import Holding, holdings_of
from deploy.comparison.values.measures import Status
from exporter.graph_file import to_proto
from exporter.onnx_file import Card, save
from exporter.quantization.channel_classes import find_channel_classes
from exporter.quantization.channel_steps import factors_of
from exporter.quantization.scale_channels import scale_channels
from exporter.quantization.shift import shift_tensors
from exporter.quantization.shifts import find_shifts

MODEL = resnet((1, 1, 1, 1))


def some_steps():
    """Factors between 1/4 and 4 for every class of channels of the network."""
    classes = find_channel_classes(ir.from_proto(MODEL).graph)
    chosen = np.append(np.random.default_rng(1).integers(-16, 17, classes.count), 0)
    return {name: chosen[ids] for name, ids in classes.of.items() if chosen[ids].any()}


STEPS = some_steps()


def test_there_is_something_to_compare():
    assert len(STEPS) > 8


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    return noise_request(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(MODEL, folder / "plain.onnx")
    graph = ir.from_proto(MODEL)
    scale_channels(graph.graph, {name: factors_of(own) for name, own in STEPS.items()})
    save(to_proto(graph), folder / "equalized.onnx", Card(equalized=STEPS))
    off = {name: k + 1 if name == "layer1.0.relu2" else k for name, k in STEPS.items()}
    save(to_proto(graph), folder / "mislabelled.onnx", Card(equalized=off))
    short = {name: k[:-1] if name == "layer1.0.relu2" else k for name, k in STEPS.items()}
    save(to_proto(graph), folder / "short.onnx", Card(equalized=short))
    found = find_shifts(graph.graph, borders=True)
    shifts = found.constants({"layer1.0.relu2.equalized": 0.5, "maxpool.equalized": 1.5})
    shift_tensors(graph.graph, shifts)
    own = {name.removesuffix(".equalized"): c for name, c in shifts.items()}
    save(to_proto(graph), folder / "both.onnx", Card(equalized=STEPS, shifts=own))
    return folder


@pytest.mark.parametrize(
    "pair", [("plain", "equalized"), ("equalized", "plain"), ("plain", "both")]
)
def test_an_equalized_tensor_is_compared_as_it_is(files, request_, pair):
    found = rows_of(files, request_, *pair)
    assert STEPS.keys() <= found.keys()
    assert all(row.status is Status.COMPARED for row in found.values())
    assert min(row.inherited.sqnr_db for row in found.values()) > 90
    assert min(row.own.sqnr_db for row in found.values()) > 90


def test_its_weights_are_the_references_in_the_units_of_the_tensors(files, request_):
    report = compare(files / "plain.onnx", files / "equalized.onnx", request_)
    assert not report.verdict.blame


def test_factors_that_are_not_the_graphs_show(files, request_):
    """The twin: the factors matter to the measurement."""
    found = rows_of(files, request_, "plain", "mislabelled")
    assert found["layer1.0.relu2"].inherited.sqnr_db < 30
    assert found["layer3.0.relu"].inherited.sqnr_db > 90


def test_factors_of_other_channels_are_refused(files, request_):
    with pytest.raises(InputError, match=r"short.*layer1\.0\.relu2.*channels.*factors"):
        rows_of(files, request_, "plain", "short")


def test_there_and_back_again():
    held = Holding("x.equalized.shifted", 0.5, np.array([0.5, 4.0]))
    whole = np.array([[[1.0, 2.0], [8.0, -4.0]]], np.float32)
    inside = held.inside(whole)
    np.testing.assert_array_equal(inside, [[[1.5, 3.5], [1.5, -1.5]]])
    np.testing.assert_array_equal(held.whole(inside), whole)
    np.testing.assert_array_equal(held.inside(whole[0].T), inside[0].T)


def test_a_huge_constant_makes_infinities_and_no_warning():
    held = Holding("x.equalized.shifted", 3e38, np.array([8.0]))
    assert np.isinf(held.whole(np.ones((1, 1, 2), np.float32))).all()
    assert np.isfinite(held.inside(np.ones((1, 1, 2), np.float32))).all()


def test_a_tensor_is_held_otherwise_only_where_the_graph_has_its_name():
    card = Card(equalized={"a": np.array([8]), "b": np.array([8])}, shifts={"b": 1.0, "c": 2.0})
    there = {"a.equalized", "b.equalized.shifted", "c"}
    found = holdings_of(card, there)
    assert {name: held.name for name, held in found.items()} == {
        "a": "a.equalized", "b": "b.equalized.shifted",
    }  # fmt: skip
    assert (found["b"].factors[0], found["b"].shift) == (2.0, 1.0)
