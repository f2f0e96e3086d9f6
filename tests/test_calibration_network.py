"""The network that calibration runs makes the numbers of the plain one, however it holds them."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from test_statistics import Arrays

from core.errors import CalibrationError, GraphError, InputError, OutputError, StrataError
from exporter import session
from exporter.calibrate import calibrate
from exporter.calibration import network as network_module
from exporter.calibration.blocks import Found, find_tensors, images_apart, keep_needed
from exporter.calibration.counts.tally import Tally
from exporter.calibration.network import Activation, Network
from exporter.calibration.work import CalibrationOptions, ImageSet, Taps
from exporter.session import open_session, write_optimized

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
    network = Network(path, Taps(TENSORS, passed))
    for image in IMAGES[:, None]:
        found = own(network, image)
        assert set(found) == set(TENSORS)
        wanted = plain(path, image, TENSORS)
        for name in TENSORS:
            np.testing.assert_array_equal(
                found[name].reshape(-1), wanted[name].reshape(-1), err_msg=name
            )


def test_images_that_run_together_are_what_they_are_alone(tmp_path):
    network = Network(net(tmp_path / "net.onnx"), Taps(IN_BLOCKS))
    if not any(activation.channels for _, activation in network.run(IMAGES[:1])):
        assert network.together == 1  # a CPU without blocks
        return
    assert network.together == 16
    together = own(network, IMAGES)
    for i, image in enumerate(IMAGES[:, None]):
        for name, values in own(network, image).items():
            np.testing.assert_array_equal(together[name][i], values[0], err_msg=name)


def test_large_images_run_one_at_a_time(tmp_path):
    network = Network(net(tmp_path / "net.onnx", size=900), Taps(("r0",)))
    assert network.together == 1


def test_one_at_a_time_where_they_could_change_each_other(tmp_path):
    assert Network(net(tmp_path / "net.onnx"), Taps(("r0", "y"))).together == 1


def nodes(body):
    domains = '"" : 17, "com.microsoft.nchwc" : 1, "com.example" : 1'
    head = f"<ir_version: 8, opset_import: [{domains}]> g (float[N,4] x) => (float[N,4] y)"
    graph = onnx.parser.parse_model(f"{head} {{ {body} }}").graph
    shapes = {"one": (1, 4), "row": (4,), "rows": (2, 4), "cube": (1, 1, 4)}
    for name, shape in shapes.items():
        graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return graph


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
        ("y = Max(x, x)", False),  # of 0 and -0 now one, now the other
        ("y = Add(x, x)", True),
        ("y = Mul(x, one)", True),
        ("y = Mul(x, row)", True),
        ("y = Mul(x, rows)", False),  # a row for each image
        ("y = Mul(x, cube)", False),
        ("a = com.microsoft.nchwc.Conv(x, w) y = Add(x, a)", False),  # of another rank
        ("a = Relu(x) y = Add(x, a)", False),  # of a rank that nothing says
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
    assert [info.name for info in graph.value_info] == ["y"]  # its shape may say what is apart


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


class InOrder(Arrays):
    """Images that are worked through in their own order."""

    def digest(self, index):
        return f"{index:064x}"


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_image_is_blamed_whatever_runs_with_it(tmp_path, order):
    """Of two bad images in a run, one goes bad earlier in the network."""
    path = net(tmp_path / "net.onnx", gain=100)
    values = [1e38 * step for step in np.arange(1, 3.4, 0.1)]
    images = [np.full((3, 9, 9), value, np.float32) for value in values]
    made = [plain(path, image[None], ["r0", "r2"]) for image in images]
    finite = [tuple(bool(np.isfinite(m[name]).all()) for name in ("r0", "r2")) for m in made]
    pair = [images[finite.index((True, False))], images[finite.index((False, False))]][::order]
    blamed = ("r2", "r0")[::order][0]
    source = InOrder([*pair, *IMAGES])  # by one thread, the first two in one run
    data = ImageSet(source, np.arange(len(source)), None)
    with pytest.raises(CalibrationError, match=rf"tensor '{blamed}'.* image 0"):
        calibrate(path, data, ["r0", "r2"], CalibrationOptions(threads=1))


def test_no_copy_of_the_model_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    Path(tempfile.tempdir).mkdir()
    network = Network(net(tmp_path / "net.onnx"), Taps(TENSORS))
    own(network, IMAGES[:1])
    assert list(Path(tempfile.tempdir).iterdir()) == []
    network.close()


def test_no_room_for_what_onnx_runtime_makes_of_it(tmp_path, monkeypatch):
    path, nowhere = net(tmp_path / "net.onnx"), tmp_path / "a folder"
    nowhere.mkdir()
    with pytest.raises(GraphError):
        write_optimized(path, nowhere, ["r0"])
    monkeypatch.setattr(session.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match=r"no room for what"):
        write_optimized(path, nowhere, ["r0"])


def saved(path, body, head="float[N,3,8,8] x", **shapes):
    """Write a network; (C,) and larger weights are random."""
    text = f'<ir_version: 8, opset_import: ["" : 17]> net ({head}) => (float[N,K] y) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    rng = np.random.default_rng(1)
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, path)
    return path


PHOTOS = np.random.default_rng(4).normal(size=(6, 3, 8, 8)).astype(np.float32)


def counted(path, tensors, passed=None, images=PHOTOS, threads=2):
    data = ImageSet(Arrays(images), np.arange(len(images)), None)
    taps = Taps(tuple(tensors), passed or {})
    return calibrate(path, data, taps, CalibrationOptions(threads=threads))


def test_a_mask_may_wait_for_a_mask_of_its_own(tmp_path):
    """The stream of a residual network: each ReLU masks what the one before it let through."""
    body = """s = Conv(x, u) m = Conv(x, v) a = Add(m, s) r = Relu(a)
              n = Conv(x, w) b = Add(n, r) t = Relu(b) y = ReduceMean<axes=[2,3],keepdims=0>(t)"""
    shapes = dict.fromkeys("uvw", (8, 3, 1, 1))
    path = saved(tmp_path / "net.onnx", body, **shapes)
    found = counted(path, ["s", "r"], {"s": "r", "r": "t"})
    for name, mask in (("s", "r"), ("r", "t")):
        tally = Tally()
        for image in PHOTOS[:, None]:
            made = plain(path, image, ["s", "r", "t"])
            tally.add(np.where(made[mask] != 0, made[name], 0).astype(np.float32))
        np.testing.assert_array_equal(found.tensors[name].counts, tally.histogram().counts)
        assert found.tensors[name].minimum == tally.histogram().minimum


def test_only_the_input_is_counted(tmp_path):
    path = saved(tmp_path / "net.onnx", "c = Conv(x, w) y = Flatten(c)", w=(4, 3, 8, 8))
    assert counted(path, ["x"]).tensors["x"].count == PHOTOS.size


def test_weights_of_a_branch(tmp_path):
    """Those over a kilobyte lie beside what ONNX Runtime writes, like all others."""
    body = """c = Conv(x, w) r = Relu(c) z = Flatten(r) y = If(flag) <
        then_branch = one () => (float[N,K] p) { p = Gemm(z, m) },
        else_branch = two () => (float[N,K] q) { q = Identity(z) }>
        """
    path = saved(tmp_path / "net.onnx", body, w=(8, 3, 1, 1), m=(512, 3))
    model = onnx.load(path)
    branch = model.graph.node[-1].attribute[0].g
    weight = next(w for w in model.graph.initializer if w.name == "m")
    branch.initializer.append(weight)
    model.graph.initializer.remove(weight)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(True), "flag"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("flag", 9, []))
    onnx.save(model, path)
    found = counted(path, ["r", "y"])
    made = [plain(path, image, ["y"])["y"] for image in PHOTOS[:, None]]
    assert found.tensors["y"].maximum == max(y.max() for y in made)


def test_sequences_go_from_node_to_node(tmp_path):
    body = """r = Relu(x) q = SplitToSequence<axis=1>(r) t = ConcatFromSequence<axis=1>(q)
              y = Flatten(t)"""
    path = saved(tmp_path / "net.onnx", body)
    assert counted(path, ["r", "t"]).tensors["t"].count == PHOTOS.size


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_images_of_other_sizes(tmp_path, threads):
    images = [PHOTOS[0], PHOTOS[1, :, :, :5], *PHOTOS[2:]]
    data = ImageSet(InOrder(images), np.arange(6), None)
    options = CalibrationOptions(threads=threads)
    fixed = saved(tmp_path / "fixed.onnx", "r = Relu(x) y = Flatten(r)")
    with pytest.raises(InputError, match=r"N×3×8×8, fed float32 1×3×8×5"):
        calibrate(fixed, data, ["r"], options)
    body = "r = Relu(x) y = ReduceMean<axes=[2,3],keepdims=0>(r)"
    free = saved(tmp_path / "free.onnx", body, "float[N,3,H,W] x")
    found = calibrate(free, data, ["x", "r"], options)
    assert found.tensors["r"].count == sum(image.size for image in images)
    four = saved(tmp_path / "four.onnx", body, "float[4,3,H,W] x")
    with pytest.raises(InputError, match=r"image 0: of another size"):
        calibrate(four, data, ["x", "r"], options)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("bad", ["first", "last"])
def test_the_first_image_is_blamed_whatever_is_wrong_with_the_others(tmp_path, threads, bad):
    class Broken(InOrder):
        def tensor(self, index, spec):
            if index == (0 if bad == "last" else 5):
                raise InputError("cannot be read", hint="")
            return super().tensor(index, spec)

    images = PHOTOS.copy()
    images[0 if bad == "first" else 5, 0, 0, 0] = np.inf
    data = ImageSet(Broken(images), np.arange(6), None)
    path = saved(tmp_path / "net.onnx", "r = Relu(x) y = Flatten(r)")
    with pytest.raises(StrataError) as caught:
        calibrate(path, data, ["x", "r"], CalibrationOptions(threads=threads))
    assert isinstance(caught.value, CalibrationError if bad == "first" else InputError)


@pytest.mark.parametrize(("size", "together"), [(8, 16), (900, 1)])
def test_what_is_not_counted_takes_memory_too(tmp_path, size, together):
    body = "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p)"
    head = f"float[N,3,{size},{size}] x"
    path = saved(tmp_path / "net.onnx", body, head, w=(16, 3, 1, 1))
    network = Network(path, Taps(("p", "r")))
    blocks = any(found.channels for found in network._found.values())
    assert network.together == (together if blocks else 1)
    assert Network(path, Taps(("p",))).together == network.together


def test_the_input_may_wait_for_a_mask(tmp_path, monkeypatch):
    """What reads it after that reads it as it was."""
    monkeypatch.setattr(network_module, "_PIECE_BYTES", 1)  # each node by itself
    path = saved(tmp_path / "net.onnx", "r = Relu(x) z = Add(x, r) y = Flatten(z)")
    found = counted(path, ["x", "z"], {"x": "r"}).tensors
    assert found["x"].minimum == 0
    assert found["z"].minimum == PHOTOS.min()


def test_a_tensor_that_is_never_made_is_told(tmp_path):
    path = saved(tmp_path / "net.onnx", "k = Relu(w) c = Add(x, k) y = Flatten(c)", w=(1, 3, 8, 8))
    with pytest.raises(GraphError, match=r"'k' does not depend on the images"):
        counted(path, ["k", "c"])


@pytest.mark.parametrize("width", [8, 16])
def test_blocks_of_any_width_are_taken_apart(monkeypatch, width):
    monkeypatch.setattr(network_module, "_block_width", lambda: width)
    planes = np.arange(2 * 32 * 15, dtype=np.float32).reshape(2, 32, 3, 5)
    held = planes.reshape(2, 32 // width, width, 3, 5).transpose(0, 1, 3, 4, 2)
    said = np.ascontiguousarray(held).reshape(planes.shape)  # as ONNX Runtime says its shape is
    activation = Activation(network_module._in_blocks(said), channels=29)
    for i in range(2):
        np.testing.assert_array_equal(activation.image(i), planes[i].reshape(32, 15)[:29])
    assert len(activation.of(1).values) == 1
