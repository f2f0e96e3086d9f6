"""What rounding explains of a grouped convolution: each group has inputs of its own."""

import numpy as np
from click.testing import CliRunner
from onnx_text import parse

from deploy.cli import cli
from deploy.comparison.run import compare_models
from deploy.images import ImageRequest
from exporter.onnx_file import Card, save

# Each group reads channels 4 times as large as those of the group before.
TEXT = """g (float[N,3,16,16] image) => (float[N,4] y) {
    stem = Conv(image, w1, b1)
    relu = Relu(stem)
    conv = Conv<group=4, pads=[1,1,1,1], kernel_shape=[3,3]>(relu, w2, b2)
    act = Relu(conv)
    pool = GlobalAveragePool(act)
    flat = Flatten(pool)
    y = Gemm<transB=1>(flat, w3, b3)
}"""
COUNT = 32


def test_each_group_is_explained_by_its_own_inputs(tmp_path):
    rng = np.random.default_rng(0)
    size = np.repeat([1.0, 4, 16, 64], 4)
    weights = {
        "w1": rng.normal(size=(16, 3, 1, 1)) * size[:, None, None, None],
        "b1": np.zeros(16),
        "w2": rng.normal(size=(16, 4, 3, 3)),
        "b2": np.zeros(16),
        "w3": rng.normal(size=(4, 16)),
        "b3": np.zeros(4),
    }
    save(parse(TEXT, **weights), tmp_path / "optimized.onnx", Card())
    images = rng.normal(size=(2 * COUNT, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "x.npz", images=images)
    model, data = tmp_path / "optimized.onnx", tmp_path / "x.npz"
    for words in (
        ["calibrate", model, "--data", data, "--images", COUNT],
        ["quantize", model, "--method", "max", "--full-range", "off"],
    ):
        done = CliRunner().invoke(cli, [str(word) for word in words])
        assert done.exit_code == 0, done.output
    names = [str(model), str(tmp_path / "int8.onnx")]
    report = compare_models(names, ImageRequest(str(data), COUNT))
    explained = next(row for row in report.rows if row.tensor == "conv").cells[0].explained
    assert -0.5 < explained.excess_db < 0.5
    assert report.verdicts[0].blame == ()
