"""Comparing a network that holds tensors less a constant (full-range INT8)."""

from dataclasses import replace

import onnx_ir as ir
import pytest
from comparing import noise_request, rows_of
from resnet_graph import resnet

from deploy.comparison.values.measures import Status
from exporter.graph_file import to_proto
from exporter.onnx_file import Card, save
from exporter.quantization.shift import shift_tensors
from exporter.quantization.shifts import find_shifts

MODEL = resnet((1, 1, 1, 1))
SHIFTS = find_shifts(ir.from_proto(MODEL).graph).constants(
    {"maxpool": 1.5, "layer1.0.relu2": 0.5, "layer2.0.relu": -0.75, "layer2.0.downsample.1": 2.0}
)


@pytest.fixture(scope="module")
def request_(tmp_path_factory):
    return noise_request(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    save(MODEL, folder / "plain.onnx")
    graph = ir.from_proto(MODEL)
    shift_tensors(graph.graph, SHIFTS)
    save(to_proto(graph), folder / "shifted.onnx", Card(shifts=SHIFTS))
    off = {name: c + 0.25 if name == "layer1.0.relu2" else c for name, c in SHIFTS.items()}
    save(to_proto(graph), folder / "mislabelled.onnx", Card(shifts=off))
    return folder


@pytest.mark.parametrize("pair", [("plain", "shifted"), ("shifted", "plain")])
def test_a_shifted_tensor_is_compared_under_its_own_name(files, request_, pair):
    found = rows_of(files, request_, *pair)
    assert SHIFTS.keys() <= found.keys()
    assert all(row.status is Status.COMPARED for row in found.values())
    assert min(row.inherited.sqnr_db for row in found.values()) > 90
    assert min(row.own.sqnr_db for row in found.values()) > 90


def test_a_constant_that_is_not_the_graphs_shows(files, request_):
    """The twin: the constants matter to the measurement."""
    found = rows_of(files, request_, "plain", "mislabelled")
    assert found["layer1.0.relu2"].inherited.sqnr_db < 30
    assert found["layer1.0.bn3"].own.sqnr_db < 60
    assert replace(found["layer3.0.relu"].inherited).sqnr_db > 90
