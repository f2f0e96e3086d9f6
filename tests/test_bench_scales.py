"""The benchmark of scales that are off: which are planted, and what is called what."""

import numpy as np
from click.testing import CliRunner
from onnx import numpy_helper
from tiny_nets import SPEC, resnet, with_qdq

from bench.scales import Case, cases_of, main, outcome_of, scaled
from deploy.gate.baseline import Layers
from exporter.onnx_file import Card, save


def test_every_scale_is_planted_twice_and_only_it_moves():
    model = with_qdq(resnet())
    cases = cases_of(model)
    scales = {weight.name for weight in model.graph.initializer if weight.name.endswith(".scale")}
    assert {case.scale for case in cases} == scales
    assert len(cases) == 2 * len(scales)
    (case,) = (c for c in cases if c.scale == "layer1.0.relu1.scale" and c.factor == 1.05)
    assert (case.kind, case.tensor) == ("activation", "layer1.0.relu1")
    assert {"layer1.0.relu1", "layer1.0.conv2"} <= case.near
    assert "layer1.1.conv1" not in case.near
    weights = [c for c in cases if c.scale == "layer1.0.conv2.weight.scale"]
    assert {c.kind for c in weights} == {"weight"}
    assert "layer1.0.conv2" in weights[0].near
    moved = scaled(model, case)
    for before, after in zip(model.graph.initializer, moved.graph.initializer, strict=True):
        ratio = 1.05 if before.name == case.scale else 1.0
        wanted = numpy_helper.to_array(before) * np.float32(ratio)
        np.testing.assert_array_equal(numpy_helper.to_array(after), wanted)


def test_what_is_called_what():
    case = Case("a.scale", 1.05, "activation", "a", frozenset({"a", "b"}))

    def layers(b, c, scale):
        return Layers(32, "0" * 64, {"b": b, "c": c}, {"a": scale})

    before = layers(40.0, 40.0, 1.0)
    assert outcome_of(case, before, layers(39.0, 40.0, 1.05), 0.3) == ("failed", False)
    assert outcome_of(case, before, layers(39.9, 40.0, 1.05), 0.3) == ("noted", False)
    assert outcome_of(case, before, layers(39.9, 39.0, 1.0), 0.3) == ("missed", True)
    assert outcome_of(case, before, layers(41.0, 40.0, 1.0), 0.3) == ("missed", False)


def test_it_runs(tmp_path):
    images = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "d.npz", images=images, labels=np.arange(40) % 10)
    save(resnet(), tmp_path / "float.onnx", Card(SPEC))
    save(with_qdq(resnet()), tmp_path / "int8.onnx", Card(SPEC))
    words = [tmp_path / "float.onnx", tmp_path / "int8.onnx", "--data", tmp_path / "d.npz"]
    done = CliRunner().invoke(main, [*map(str, words), "--cases", "3", "--seed", "1"])
    assert done.exit_code == 0, done.output
    assert "3 of " in done.stdout
    assert sum(map(int, [w for w in done.stdout.split("weights")[1].split() if w.isdigit()])) == 3
