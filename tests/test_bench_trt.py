"""What bench/trt counts, and that it notices a network that computes something else."""

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tensorrt_nets import net

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # bench/ is run from the repository, never installed

from bench.trt import __main__ as table  # noqa: E402
from bench.trt import worker  # noqa: E402
from bench.trt.nets import foreign_nets, random_feeds  # noqa: E402
from deploy.networks.network import read_network  # noqa: E402


@pytest.fixture
def file(tmp_path):
    def written(kind):
        onnx.save(net(kind), tmp_path / f"{kind}.onnx")
        return tmp_path / f"{kind}.onnx"

    return written


def test_codes_are_counted_tensor_by_tensor():
    codes = worker.Codes()
    assert (codes.lowest, codes.apart) == (None, None)
    codes.add("a", np.array([1, 2, 3, -128], np.int8), np.array([1, 2, 3, 127], np.int8))
    codes.add("a", np.zeros(4, np.int8), np.zeros(4, np.int8))
    codes.add("b", np.zeros(2, np.int8), np.array([0, 1], np.int8))
    assert codes.lowest == 0.5  # b; a has 7 of 8
    assert codes.apart == 255


def test_the_same_arithmetic_on_both_sides(file):
    found = worker.layers(file("fp32"), 2)
    assert found["free_db"] > 110
    assert found["own_db"] > 110
    assert (found["quantizers"], found["equal"], found["apart"]) == (0, None, None)
    found = worker.layers(file("int8"), 2)
    assert found["free_db"] is None
    assert (found["quantizers"], found["own_equal"], found["apart"]) == (2, 1.0, 0)
    assert worker.layers(file("fp16"), 2)["own_db"] > 55


def test_another_scale_is_noticed(file, monkeypatch):
    right, other = file("int8"), net("int8")
    scale = next(w for w in other.graph.initializer if w.name == "fc.in.scale")
    scale.CopyFrom(numpy_helper.from_array(np.array(0.051, np.float32), scale.name))
    monkeypatch.setattr(worker, "read_network", lambda _: read_network(other.SerializeToString()))
    found = worker.layers(right, 8)
    assert found["own_equal"] < 0.99
    assert found["own_db"] < 60


@pytest.mark.parametrize("kind", ["network", "onnxruntime"])
def test_time_is_that_of_a_batch(file, kind):
    found = worker.speed(kind, file("fp32"), 1)
    assert found["batch"] == 8
    assert 0 <= found["cpu_s"] < 10


def test_noise_fills_free_dimensions_only():
    feeds = random_feeds(net(shape=("N", 3, 8, 8)), 5)
    assert feeds["input"].shape == (5, 3, 8, 8)
    assert random_feeds(net(shape=(2, 3, 8, 8)), 5)["input"].shape == (2, 3, 8, 8)
    assert (random_feeds(net(), 1, seed=1)["input"] != random_feeds(net(), 1)["input"]).all()


def test_foreign_networks_come_in_three_precisions(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.trt.nets._FOREIGN", tmp_path / "some.py")
    (tmp_path / "some.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r})\n"
        "import tensorrt_nets\nNETS = {'small': tensorrt_nets.net}\n"
    )
    (found,) = foreign_nets(tmp_path)
    made = [found.file(kind).stat().st_mtime_ns for kind in ("fp32", "fp16", "int8")]
    kinds = {i.data_type for i in onnx.load(found.file("int8")).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    (again,) = foreign_nets(tmp_path)  # made once
    assert [again.file(k).stat().st_mtime_ns for k in ("fp32", "fp16", "int8")] == made


def test_a_table_is_printed_as_it_grows_and_kept(capsys):
    rows = [
        {"network": "a", "cpu_s": 1.2345, "equal": None},
        {"network": "b", "cpu_s": 2.0, "equal": 0.9999},
    ]
    assert table._table({"cpu_s": ".2f", "equal": ".2%"}, rows) == rows
    head, one, other = capsys.readouterr().out.split("\n")[1:4]
    assert head.split() == ["network", "cpu_s", "equal"]
    assert one.split() == ["a", "1.23", "–"]
    assert other.split() == ["b", "2.00", "99.99%"]
    json.dumps(rows)
