"""What rounding explains of a sum behind which a ReLU follows: what comes out of that."""

import numpy as np
import pytest
from click.testing import CliRunner
from onnx_text import parse

from deploy.cli import cli
from deploy.comparison.run import compare_models
from deploy.images import ImageRequest
from exporter.onnx_file import Card, save

TEXT = """g (float[N,3,16,16] image) => (float[N,4] y) {
    stem = Conv(image, w1, b1)
    relu = Relu(stem)
    main = Conv(relu, w2, b2)
    side = Conv(relu, w3, b3)
    sum = Add(main, side)
    act = Relu(sum)
    pool = GlobalAveragePool(act)
    flat = Flatten(pool)
    y = Gemm<transB=1>(flat, w4, b4)
}"""
COUNT = 32


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    # In the first two channels one takes away what the other adds, and a little more: of their
    # sum the ReLU passes nothing but what rounding makes of it.
    # The other two reach further: nothing of the first is clipped.
    side = rng.normal(size=(4, 8, 1, 1)) * np.array([1, 1, 6, 6])[:, None, None, None]
    main = np.concatenate([-side[:2], rng.normal(size=(2, 8, 1, 1))])
    weights = {
        "w1": rng.normal(size=(8, 3, 1, 1)),
        "b1": np.zeros(8),
        "w2": main,
        "b2": np.array([-0.01, -0.02, 0, 0]),
        "w3": side,
        "b3": np.zeros(4),
        "w4": np.eye(4),
        "b4": np.zeros(4),
    }
    save(parse(TEXT, **weights), tmp_path / "optimized.onnx", Card())
    images = rng.normal(size=(2 * COUNT, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", images=images)
    for words in (
        ["calibrate", tmp_path / "optimized.onnx", "--data", tmp_path / "x.npz", "--images", COUNT],
        ["quantize", tmp_path / "optimized.onnx", "--method", "max"],
    ):
        done = CliRunner().invoke(cli, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    return tmp_path


def test_what_a_relu_passes_of_rounding_is_measured(folder, monkeypatch):
    def never(*_):
        raise AssertionError("there is nothing to look at again")

    monkeypatch.setattr("deploy.comparison.run.look_again", never)
    names = [str(folder / name) for name in ("optimized.onnx", "int8.onnx")]
    report = compare_models(names, ImageRequest(str(folder / "x.npz"), COUNT))
    rows = {row.tensor: row.cells[0] for row in report.rows}
    assert {rows[name].codes is not None for name in ("main", "side")} == {True, False}
    explained = rows["sum"].explained
    assert rows["sum"].own.sqnr_db > 30
    assert -0.1 < explained.excess_db < 0.1
    assert report.verdicts[0].blame == ()
