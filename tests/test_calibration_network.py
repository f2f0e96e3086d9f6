"""The network that calibration runs makes the numbers of the plain one, however it holds them."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from test_statistics import Arrays

from calib_data.sources import array_digest
from core.errors import CalibrationError, OutputError
from exporter import session
from exporter.calibrate import calibrate
from exporter.calibration import collector
from exporter.calibration.blocks import Found, find_tensors, images_apart, keep_needed
from exporter.calibration.counts.tally import Tally
from exporter.calibration.network import Network
from exporter.calibration.work import CalibrationOptions, ImageSet, Taps
from exporter.session import open_session

# Widths that fill no block, a depthwise and a grouped convolution, a join, a sum, and tensors that
# operators without blocks read.
TEXT = """<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3,{size},{size}] x) => (float[N,5] y) {
  c0 = Conv<pads=[1,1,1,1]>(x, w0)
  r0 = Relu(c0)
  c1 = Conv<pads=[1,1,1,1], group=20>(r0, w1)
  r1 = Relu(c1)
  c2 = Conv(r1, w2)
  s2 = Conv(r0, w3)
  a2 = Add(c2, s2)
  r2 = Relu(a2)
  c3 = Conv<pads=[1,1,1,1], group=2>(r2, w4)
  r3 = Relu(c3)
  j = Concat<axis=1>(r2, r3)
  p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(j)
  g = GlobalAveragePool(p)
  f = Flatten(g)
  h = HardSigmoid(r1)
  m = ReduceMean<axes=[2,3], keepdims=0>(h)
  z = Gemm(f, w5)
  v = Gemm(m, w6)
  y = Add(z, v)
}"""
SHAPES = {
    "w0": (20, 3, 3, 3), "w1": (20, 1, 3, 3), "w2": (24, 20, 1, 1), "w3": (24, 20, 1, 1),
    "w4": (24, 12, 3, 3), "w5": (48, 5), "w6": (20, 5),
}  # fmt: skip
TENSORS = ("x", "r0", "r1", "s2", "r2", "r3", "j", "p", "f", "h")
IN_BLOCKS = ("r0", "r1", "s2", "r2")  # on a CPU with AVX
IMAGES = np.random.default_rng(3).normal(size=(5, 3, 9, 9)).astype(np.float32)


def net(path, *, size=9, gain=1.0):
    model = onnx.parser.parse_model(TEXT.replace("{size}", str(size)))
    rng = np.random.default_rng(0)
    for name, shape in SHAPES.items():
        values = (rng.normal(size=shape) / 4 * gain ** (name == "w3")).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


def plain(path, image, names):
    made = open_session(path, optimize=True, outputs=[n for n in names if n != "x"], threads=1)
    return made({"x": image}) | {"x": image}


def own(network, images):
    return {
        name: np.stack([activation.image(i) for i in range(len(images))])
        for name, activation in network.run(images)
    }


@pytest.mark.parametrize("size", [9, "S"])
@pytest.mark.parametrize("passed", [{}, {"s2": "r2"}])
def test_every_bit_is_that_of_the_plain_network(tmp_path, size, passed):
    path = net(tmp_path / "net.onnx", size=size)
    network = Network(path, Taps(TENSORS, passed), 1)
    for image in IMAGES[:, None]:
        found = own(network, image)
        assert set(found) == set(TENSORS)
        wanted = plain(path, image, TENSORS)
        for name in TENSORS:
            np.testing.assert_array_equal(
                found[name].reshape(-1), wanted[name].reshape(-1), err_msg=name
            )


def test_images_that_run_together_are_what_they_are_alone(tmp_path):
    network = Network(net(tmp_path / "net.onnx"), Taps(IN_BLOCKS), 1)
    if not any(activation.channels for _, activation in network.run(IMAGES[:1])):
        assert network.together == 1  # a CPU without blocks
        return
    assert network.together == 16
    together = own(network, IMAGES)
    for i, image in enumerate(IMAGES[:, None]):
        for name, values in own(network, image).items():
            np.testing.assert_array_equal(together[name][i], values[0], err_msg=name)


def test_large_images_run_one_at_a_time(tmp_path):
    network = Network(net(tmp_path / "net.onnx", size=900), Taps(("r0",)), 1)
    assert network.together == 1


def test_one_at_a_time_where_they_could_change_each_other(tmp_path):
    assert Network(net(tmp_path / "net.onnx"), Taps(("r0", "y")), 1).together == 1


def nodes(body):
    domains = '"" : 17, "com.microsoft.nchwc" : 1, "com.example" : 1'
    head = f"<ir_version: 8, opset_import: [{domains}]> g (float[N,4] x) => (float[N,4] y)"
    return onnx.parser.parse_model(f"{head} {{ {body} }}").graph


@pytest.mark.parametrize(
    ("body", "apart"),
    [
        ("y = Relu(x)", True),
        ("y = Concat<axis=1>(x, x)", True),
        ("y = Concat<axis=0>(x, x)", False),
        ("y = Concat<axis=-2>(x, x)", False),  # which may be the first
        ("y = Flatten<axis=0>(x)", False),
        ("y = com.microsoft.nchwc.Conv(x, w)", True),
        ("y = Gemm(x, w)", False),
        ("y = com.example.Relu(x)", False),
    ],
)
def test_what_makes_of_an_image_the_same_whatever_is_beside_it(body, apart):
    assert images_apart(nodes(body)) is apart


REORDERED = nodes("""
    a = com.microsoft.nchwc.ReorderOutput<channels=3>(p)
    b = com.microsoft.nchwc.ReorderOutput<channels=5, channels_last=1>(q)
    c = com.microsoft.nchwc.ReorderOutput<channels=7>(r)
    d = Relu(c)
    y = Relu(d)""")


def test_a_tensor_is_found_in_blocks_where_its_planes_are_made_of_them():
    found = find_tensors(REORDERED, ["a", "b", "c", "d"], {})
    assert found == {
        "a": Found("p", 3), "b": Found("b"), "c": Found("r", 7), "d": Found("d"),
    }  # fmt: skip


def test_tensors_that_are_held_to_each_other_lie_alike():
    assert find_tensors(REORDERED, ["a", "c"], {"a": "c"})["a"] == Found("p", 3)
    found = find_tensors(REORDERED, ["a", "c", "d"], {"a": "c", "c": "d"})
    assert {found[name] for name in "acd"} == {Found("a"), Found("c"), Found("d")}


def test_only_what_is_needed_is_run():
    graph = nodes("a = Relu(x) b = Sigmoid(a) c = Tanh(a) y = Add(b, c)")
    keep_needed(graph, ["b"])
    assert [node.op_type for node in graph.node] == ["Relu", "Sigmoid"]
    assert [output.name for output in graph.output] == ["b"]


def test_values_behind_a_relu_that_stops_them_are_zeros_in_blocks_too(tmp_path):
    path = net(tmp_path / "net.onnx")
    data = ImageSet(Arrays(IMAGES), np.arange(5), None)
    found = calibrate(path, data, Taps(("s2",), {"s2": "r2"}))
    tally = Tally()
    for image in IMAGES[:, None]:
        made = plain(path, image, ["s2", "r2"])
        tally.add(np.where(made["r2"] != 0, made["s2"], 0).astype(np.float32))
    wanted = tally.histogram()
    assert (found.tensors["s2"].minimum, found.tensors["s2"].maximum) == (
        wanted.minimum,
        wanted.maximum,
    )
    np.testing.assert_array_equal(found.tensors["s2"].counts, wanted.counts)


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_image_is_blamed_whatever_runs_with_it(tmp_path, monkeypatch, order):
    """Of two bad images in a run, one goes bad earlier in the network."""
    path = net(tmp_path / "net.onnx", gain=100)
    monkeypatch.setattr(collector, "_JOBS", 1)  # both in one run
    values = [1e38 * step for step in np.arange(1, 3.4, 0.1)]
    images = [np.full((3, 9, 9), value, np.float32) for value in values]
    made = [plain(path, image[None], ["r0", "r2"]) for image in images]
    finite = [tuple(bool(np.isfinite(m[name]).all()) for name in ("r0", "r2")) for m in made]
    pair = [images[finite.index((True, False))], images[finite.index((False, False))]][::order]
    blamed = ("r2", "r0")[::order][0]
    while not array_digest(pair[0]) < array_digest(pair[1]):  # the order they are worked through
        pair[0][0, 0, 0] *= np.float32(0.99)
    data = ImageSet(Arrays(np.stack(pair)), np.arange(2), None)
    with pytest.raises(CalibrationError, match=rf"tensor '{blamed}'.* image 0"):
        calibrate(path, data, ["r0", "r2"], CalibrationOptions(threads=1))


def test_no_copy_of_the_model_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path(tempfile.tempdir).mkdir()
    network = Network(net(tmp_path / "net.onnx"), Taps(TENSORS), 1)
    own(network, IMAGES[:1])
    assert list(Path(tempfile.tempdir).iterdir()) == []
    network.close()


def test_no_room_for_a_copy_of_the_model(tmp_path, monkeypatch):
    path = net(tmp_path / "net.onnx")
    monkeypatch.setattr(session.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"0 MB free"):
        Network(path, Taps(TENSORS), 1)
