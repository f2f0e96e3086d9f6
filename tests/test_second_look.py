"""Rounding errors that go together are no fault; a layer that computes something else is one."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_text import parse

from deploy.cli import cli
from deploy.comparison.graphs.lineage import Source
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.judging.judgement import Unexplained
from deploy.comparison.run import CompareOptions, compare_models
from deploy.comparison.second_look import Seen, look_again, noise_of_codes
from deploy.comparison.sides.subjects import open_side
from deploy.comparison.sums.folding import Into, fold
from deploy.comparison.sums.pair_sums import PairSums
from deploy.comparison.values.verdict import Reason
from deploy.images import ImageRequest, open_images
from exporter.onnx_file import Card, save
from exporter.session import open_session

# Eight channels alike, and a filter of ones: on flat images all 72 rounding errors are one.
TEXT = """g (float[N,3,16,16] image) => (float[N,4] y) {
    stem = Conv(image, w1, b1)
    relu = Relu(stem)
    conv = Conv<pads=[1,1,1,1], kernel_shape=[3,3]>(relu, w2, b2)
    act = Relu(conv)
    pool = GlobalAveragePool(act)
    flat = Flatten(pool)
    y = Gemm<transB=1>(flat, w3, b3)
}"""
COUNT = 16


def strata(*words):
    done = CliRunner().invoke(cli, [str(word) for word in words])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alike")
    weights = {
        "w1": np.full((8, 3, 1, 1), 1 / 3),
        "b1": np.zeros(8),
        "w2": np.full((4, 8, 3, 3), 0.1),
        "b2": np.zeros(4),
        "w3": np.eye(4),
        "b3": np.zeros(4),
    }
    save(parse(TEXT, **weights), folder / "optimized.onnx", Card())
    random = np.random.default_rng(0)
    flat = np.ones((1, 3, 16, 16)) * random.uniform(0.1, 1, (4 * COUNT, 1, 1, 1))
    np.savez(folder / "x.npz", images=flat.astype(np.float32))
    model = folder / "optimized.onnx"
    strata("calibrate", model, "--data", folder / "x.npz", "--images", 4 * COUNT)
    strata("quantize", model, "--method", "max", "--full-range", "off")
    return folder


def verdict(reference, candidate, folder, *, until_first=False):
    report = compare_models(
        [str(reference), str(candidate)],
        ImageRequest(str(folder / "x.npz"), COUNT),
        CompareOptions(until_first=until_first),
    )
    return report, report.verdicts[0]


@pytest.mark.parametrize("until_first", [False, True])
def test_errors_that_go_together_are_explained(folder, monkeypatch, until_first):
    pair = folder / "optimized.onnx", folder / "int8.onnx"
    report, found = verdict(*pair, folder, until_first=until_first)
    assert found.blame == ()
    explained = next(row for row in report.rows if row.tensor == "conv").cells[0].explained
    assert -1 < explained.excess_db < 1
    # Without the second look this layer is blamed: that is what it is for.
    monkeypatch.setattr("deploy.comparison.run.look_again", lambda *_, **__: {})
    _, found = verdict(*pair, folder, until_first=until_first)
    assert found.first == "conv"
    assert found.blame[0].reason is Reason.ERROR


@pytest.mark.parametrize("until_first", [False, True])
def test_wrong_padding_is_not_excused(folder, tmp_path, until_first):
    model = onnx.load(folder / "int8.onnx")
    (node,) = (n for n in model.graph.node if n.output[0] == "conv")
    (pads,) = (a for a in node.attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 2, 2]
    onnx.save(model, tmp_path / "int8.onnx")
    report, found = verdict(
        folder / "optimized.onnx", tmp_path / "int8.onnx", folder, until_first=until_first
    )
    assert found.first == "conv"
    assert found.blame[0].reason is Reason.ERROR
    assert found.blame[0].excess_db > 6
    assert not report.holds


@pytest.mark.parametrize("together", [1, 3, 100])
@pytest.mark.parametrize("ends", [(None,), ("relu", None), ("stem", "conv", None)])
def test_it_sums_what_codes_do_to_the_reference(folder, together, ends):
    side = open_side(str(folder / "optimized.onnx"))
    quantizer = Quantizer("relu", 0.02, 0.02, 0, "int8", -128, 127)
    images = open_images(ImageRequest(str(folder / "x.npz"), 12, batch=5), {"": None})
    layers = {"conv": (Source("relu", True),), "pool": (Source("act", False),)}
    found = noise_of_codes(side, {"relu": quantizer}, layers, ends, images, together=together)
    x = np.concatenate([batch for _, batch in images.batches()])
    model = onnx.load(folder / "optimized.onnx")
    made = open_session(model, outputs=["relu", "conv"])({"image": x})
    rounded = np.clip(np.rint(made["relu"] / np.float32(0.02)), -128, 127) * np.float32(0.02)
    del model.graph.node[:2]
    model.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info("relu", 1, ["N", 8, 16, 16]))
    error = open_session(model, outputs=["conv"])({"relu": rounded})["conv"] - made["conv"]
    np.testing.assert_allclose(found["conv"], np.square(error).mean(axis=(0, 2, 3)), rtol=1e-4)
    np.testing.assert_array_equal(found["pool"], 0)  # it reads no codes


def test_a_network_of_a_fixed_batch_is_not_held_twice(folder, tmp_path):
    """It runs a batch at a time, as in the comparison itself, and sums up the same."""
    model = onnx.load(folder / "optimized.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "fixed.onnx")
    quantizers = {"relu": Quantizer("relu", 0.02, 0.02, 0, "int8", -128, 127)}
    images = open_images(ImageRequest(str(folder / "x.npz"), 12, batch=4), {"": None})
    found, runs = [], []
    for path in (folder / "optimized.onnx", tmp_path / "fixed.onnx"):
        side = open_side(str(path))
        opened = side.open

        def note(cuts, outputs, at_once, opened=opened):
            runs.append(at_once)
            return opened(cuts, outputs, at_once)

        side.open = note
        layers = {"conv": (Source("relu", True),)}
        found.append(noise_of_codes(side, quantizers, layers, (None,), images, together=4))
    assert runs == [2, 1]
    np.testing.assert_allclose(found[0]["conv"], found[1]["conv"], rtol=1e-6)


def test_a_tensor_the_reference_does_not_make_is_left_out(folder):
    side = open_side(str(folder / "optimized.onnx"))
    images = open_images(ImageRequest(str(folder / "x.npz"), 2), {"": None})
    layers = {"elsewhere": (Source("relu", True),)}
    assert noise_of_codes(side, {}, layers, (None,), images, together=1) == {}


def test_layers_that_a_stopped_run_kept_from_images_are_looked_at_all_the_same(folder):
    side = open_side(str(folder / "optimized.onnx"))
    images = open_images(ImageRequest(str(folder / "x.npz"), 12), {"": None})
    quantizers = {"relu": Quantizer("relu", 0.02, 0.02, 0, "int8", -128, 127)}
    random = np.random.default_rng(0)
    layers = {}
    for name, count, worst in (("conv", 12, 11), ("act", 6, 0)):
        sums = PairSums()
        error = random.normal(size=(count, 4, 16, 16)).astype(np.float32)
        error[worst] *= 100
        fold(np.zeros_like(error), error, np.arange(count), Into(sums))
        layers[name] = Unexplained((Source("relu", True),), sums, (2,))
        assert layers[name].images == {worst}
    found = look_again(side, quantizers, layers, Seen((None,), images, 3))
    assert found.keys() == {"conv", "act"}
    assert all(np.isfinite(noise).all() for noise in found.values())
    assert found["conv"].sum() > 0
    assert found["act"].sum() == 0  # it reads conv, which is not rounded
