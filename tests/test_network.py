"""Whole networks, parsed by TensorRT and evaluated on the CPU, against ONNX Runtime."""

import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import onnx
import pytest
import tensorrt_nets
from click.testing import CliRunner
from network_nets import (
    FP16_DB,
    FP32_DB,
    difference_db,
    parsed,
    random_feeds,
    reference,
    rtx,
    worst_db,
)
from onnx_text import batchnorm, parse
from refusal import refused
from resnet_graph import resnet

from core.errors import BuildError, GraphError, MissingBackendError
from core.int8 import scale_of
from deploy.cli import cli
from deploy.engines import flavour
from deploy.networks.network import read_network
from deploy.runners import open_model
from exporter.onnx_file import save
from exporter.precision import to_float16
from exporter.quantization.placement import plan_quantization
from exporter.quantization.qdq import insert_qdq

FOREIGN = """foreign (float[N,3,17,15] image) => (float[N,7] p) {
  c1 = Conv<strides=[2,2], auto_pad="SAME_UPPER">(image, w1)
  n1 = BatchNormalization(c1, agamma, abeta, amean, avar)
  r1 = Clip(n1, zero, six)
  d1 = Conv<group=8, pads=[0,1,2,1]>(r1, wd, bd)
  s1 = LeakyRelu<alpha=0.1>(d1)
  p1 = AveragePool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(s1)
  p2 = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0], ceil_mode=1>(s1)
  g1 = Conv<group=4, pads=[1,1,1,1]>(p1, wg, bd)
  x1 = Conv(p2, wx)
  j1 = Concat<axis=1>(p1, g1)
  l1, l2 = Split<axis=1>(j1, halves)
  e1 = Sigmoid(l1)
  e2 = Mul(l2, e1)
  h1 = HardSwish(e2)
  up = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">
      (h1, , scales)
  m1 = ReduceMean<axes=[2,3], keepdims=0>(up)
  m2 = GlobalMaxPool(x1)
  f2 = Flatten(m2)
  j2 = Concat<axis=-1>(m1, f2)
  y1 = MatMul(j2, wm)
  y2 = Add(y1, bm)
  t2 = Tanh(y2)
  y3 = Gemm<alpha=0.5, transB=1>(t2, wf, bf)
  p = Softmax<axis=1>(y3)
}"""


def foreign():
    """A network as other exporters draw them."""
    return parse(
        FOREIGN,
        opset=17,
        w1=(8, 3, 3, 3),
        **batchnorm(8, "a"),
        zero=np.float32(0),
        six=np.float32(6),
        wd=(8, 1, 3, 3),
        bd=(8,),
        wg=(8, 2, 3, 3),
        wx=(6, 8, 1, 1),
        halves=np.array([8, 8]),
        scales=np.array([1, 1, 2, 2.0]),
        wm=(14, 9),
        bm=(9,),
        wf=(7, 9),
        bf=(7,),
    )


def small():
    return resnet((1, 2, 1, 1), size=24)


def quantized(model, *, half=False):
    """Return the INT8 form of a float network, by the amax of one batch."""
    plan = plan_quantization(model)
    feeds = random_feeds(model, batch=4, seed=9)
    tensors = reference(model, feeds) | feeds
    amax = {a.tensor: float(np.abs(tensors[a.tensor]).max()) for a in plan.activations}
    assert all(scale_of(value) > 0 for value in amax.values())
    result = insert_qdq(model, plan, amax, half=half)
    return to_float16(result) if half else result


NETWORKS = {
    "resnet": small,
    "resnet fp16": lambda: to_float16(small()),
    "foreign": foreign,
    "int8": lambda: quantized(small()),
    "int8 fp16": lambda: quantized(small(), half=True),
    **{f"tiny {kind}": lambda kind=kind: tensorrt_nets.net(kind)
       for kind in ("fp32", "fp16", "int8", "int8fp16")},
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in NETWORKS if "16" not in name])
def test_every_tensor_fed_the_references(name):
    worst, names = worst_db(NETWORKS[name](), own=True)
    assert worst >= FP32_DB
    assert len(names) > 5


@pytest.mark.parametrize("name", ["resnet", "foreign", "tiny fp32"])
def test_float32_networks_run_freely(name):
    assert worst_db(NETWORKS[name]())[0] >= FP32_DB


@pytest.mark.parametrize("name", [name for name in NETWORKS if "16" in name])
def test_every_float16_tensor_fed_the_references(name):
    model = NETWORKS[name]()
    feeds = random_feeds(model)
    expected = reference(model, feeds)
    found = dict(parsed(model).stream(feeds, replace=expected))
    assert {array.dtype for array in found.values()} >= {np.dtype(np.float16)}
    for tensor, array in found.items():
        if array.dtype == np.int8:
            np.testing.assert_array_equal(array, expected[tensor])
        else:
            assert difference_db(array, expected[tensor]) >= FP16_DB, tensor


def codes(model, feeds, *, network=None):
    """Return (equal, largest difference) of int8 codes, each layer on the reference's codes.

    Only codes are replaced: what lies between two Q is computed from the codes before it.
    """
    expected = reference(model, feeds)
    given = {name: array for name, array in expected.items() if array.dtype == np.int8}
    assert len(given) > 10
    equal = count = largest = 0
    for name, array in (network or parsed(model)).stream(feeds, names=given, replace=given):
        apart = np.abs(array.astype(int) - given[name])
        equal, count = equal + int((apart == 0).sum()), count + apart.size
        largest = max(largest, int(apart.max()))
    return equal / count, largest


def test_int8_codes_between_the_references():
    model = quantized(resnet((2, 2, 2, 2), size=32))
    equal, largest = codes(model, random_feeds(model, batch=8))
    assert equal >= 0.9999
    assert largest <= 1


def test_a_scale_a_thousandth_off_is_noticed():
    model = quantized(resnet((1, 1, 1, 1), size=32))
    wrong = onnx.ModelProto()
    wrong.CopyFrom(model)
    scale = next(w for w in wrong.graph.initializer if w.name == "layer2.0.relu1.scale")
    value = onnx.numpy_helper.to_array(scale) * np.float32(1.001)
    scale.CopyFrom(onnx.numpy_helper.from_array(value, scale.name))
    feeds = random_feeds(model, batch=8)
    assert codes(model, feeds)[0] >= 0.9999
    assert codes(model, feeds, network=parsed(wrong))[0] < 0.9999


@pytest.mark.parametrize("batch", [1, 2, 7, 33])
def test_any_batch(batch):
    model = small()
    network = parsed(model)
    feeds = random_feeds(model, batch=batch)
    answer = network.run(feeds)["logits"]
    assert difference_db(answer, reference(model, feeds)["logits"]) >= FP32_DB
    alone = network.run({"input": feeds["input"][-1:]})["logits"]
    assert difference_db(answer[-1:], alone) >= FP32_DB


def test_any_image_size():
    model = parse(
        "net (float[N,3,H,W] x) => (float[N,C,A,B] y) {"
        "a = Conv<strides=[2,2], pads=[1,1,1,1]>(x, w) b = Relu(a)"
        "y = MaxPool<kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]>(b) }",
        w=(4, 3, 3, 3),
    )
    network = parsed(model)
    for size in [(9, 9), (24, 17), (5, 64)]:
        x = np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32)
        worst, _ = worst_db(model, network=network, feeds={"x": x})
        assert worst >= FP32_DB


def test_one_layer_alone():
    model = small()
    network, feeds = parsed(model), random_feeds(model)
    tensors = reference(model, feeds)
    given = {name: tensors[name] for name in ("layer2.0.bn3", "layer2.0.downsample.1")}
    made = network.evaluate(given, ["layer2.0.add"])
    np.testing.assert_array_equal(made["layer2.0.add"], sum(given.values()))
    part = network.evaluate({"layer1.0.relu": tensors["layer1.0.relu"]}, ["layer2.0.relu1"])
    assert difference_db(part["layer2.0.relu1"], tensors["layer2.0.relu1"]) >= FP32_DB
    given_back = network.evaluate(given, ["layer2.0.bn3"])
    np.testing.assert_array_equal(given_back["layer2.0.bn3"], tensors["layer2.0.bn3"])
    assert network.evaluate(given, ["logits"])["logits"].shape == (3, 10)
    refused(lambda: network.evaluate(given, ["layer1.0.relu"]), "'input'", hint="input")
    refused(lambda: network.evaluate({"nowhere": feeds["input"]}, ["logits"]), "nowhere")


def test_what_was_handed_out_is_not_written_over():
    model = quantized(small())
    network, feeds = parsed(model), random_feeds(model)
    kept = [(name, array, array.copy()) for name, array in network.stream(feeds)]
    answer = network.run(feeds)["logits"]
    for name, array, copy in kept:
        np.testing.assert_array_equal(array, copy, err_msg=name)
    np.testing.assert_array_equal(answer, kept[-1][1])
    some = {"layer1.0.bn1", "layer2.1.add"}
    for name, array in network.stream(feeds, names=some):
        expected = next(copy for other, _, copy in kept if other == name)
        np.testing.assert_array_equal(array, expected)
        some.remove(name)
    assert not some


def test_feeds_are_left_as_they_are():
    model = parse("net (float[N,4] x) => (float[N,4] y) { a = Relu(x) y = Add(a, x) }")
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    before = x.copy()
    y = parsed(model).run({"x": x})["y"]
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(y, np.maximum(x, 0) + x)


def test_views_are_not_written_over():
    text = """net (float[N,4,2,2] x) => (float[N,16] y, float[N,4,2,2] z) {
      a = Neg(x) f = Flatten(a) g = Relu(f) z = Relu(a) y = Add(g, f)
    }"""
    assert worst_db(parse(text))[0] == np.inf


def chain(length):
    text = " ".join(f"t{i + 1} = Conv<pads=[1,1,1,1]>(t{i}, w)" for i in range(length))
    text = f"net (float[N,8,64,64] t0) => (float[N,8,64,64] t{length}) {{ {text} }}"
    return parse(text, w=(8, 8, 3, 3))


def test_memory_is_that_of_live_tensors():
    peaks = []
    for length in (4, 24):
        network = parsed(chain(length))
        x = np.zeros((4, 8, 64, 64), np.float32)
        network.run({"t0": x})
        tracemalloc.start()
        network.run({"t0": x})
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
        for _ in network.stream({"t0": x}):
            pass
        assert tracemalloc.get_traced_memory()[1] < peaks[-1] + 1.5 * x.nbytes
        tracemalloc.stop()
    assert peaks[1] < 1.05 * peaks[0]
    assert peaks[1] < 4 * x.nbytes + (1 << 22)  # in, padded, out; and the block of columns


def test_names_are_those_of_onnx():
    model = tensorrt_nets.net("int8")
    network = parsed(model)
    nodes = {node.name for node in model.graph.node}
    assert {layer.node for layer in network.layers} - nodes == {
        "ONNXTRT_ShapeTensor", "ONNXTRT_castHelper", "ONNXTRT_ShapeGather", "ONNXTRT_ShapeConcat",
    }  # fmt: skip
    made = [layer.output.name for layer in network.layers]
    # A Gemm is a product and a sum; the product has no name in ONNX.
    assert "fc_output" in made
    assert "fc_output" not in network.known
    assert [name for name, _ in network.stream(random_feeds(model))] == [
        output for node in model.graph.node for output in node.output
        if "weight" not in output
    ]  # fmt: skip
    assert {"conv1.weight.dequantized", "conv1.in.scale", "fc.bias"} <= network.known
    assert "conv1.weight.dequantized" in network.constants
    assert "conv1.weight.quantized" not in network.constants  # nobody reads it any more


def test_a_name_that_tensorrt_would_take_stays_onnxs():
    text = "net (float[N,4] x) => (float[N,5] y) { w_output = Neg(x) y = Gemm(w_output, w) }"
    model = parse(text, w=(4, 5))
    assert worst_db(model)[1] == {"w_output", "y", "y (run)"}


def test_nothing_of_tensorrt_is_kept():
    network = parsed(quantized(small()))
    again = pickle.loads(pickle.dumps(network))
    feeds = random_feeds(small())
    np.testing.assert_array_equal(again.run(feeds)["logits"], network.run(feeds)["logits"])


def test_importing_it_imports_no_tensorrt():
    code = (
        "import sys, deploy.networks.network, deploy.runners.network\n"
        "print([m for m in ('tensorrt', 'tensorrt_rtx', 'onnx', 'onnxruntime', 'torch') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reading_needs_a_tensorrt(monkeypatch):
    monkeypatch.setattr(flavour, "installed_flavours", dict)
    with pytest.raises(MissingBackendError, match="no TensorRT"):
        read_network(tensorrt_nets.net().SerializeToString())


def test_wrong_feeds_are_refused():
    network = parsed(tensorrt_nets.net())
    x = np.zeros((2, 3, 8, 8), np.float32)
    refused(lambda: network.run({"image": x}), "['image']", "['input']")
    refused(lambda: network.run({"input": x[0]}), "N×3×8×8", "3×8×8", hint="preprocessing")
    refused(lambda: network.run({"input": x.astype(np.uint8)}), "float32", "uint8")
    refused(lambda: network.stream({"input": x[:, :2]}), "2×2×8×8")
    fixed = parsed(tensorrt_nets.net(shape=(2, 3, 8, 8)))
    assert fixed.run({"input": x})["logits"].shape == (2, 5)
    refused(lambda: fixed.run({"input": x[:1]}), "2×3×8×8", "1×3×8×8")


def test_other_floats_are_rounded_to_the_networks_type():
    network = parsed(tensorrt_nets.net())
    x = random_feeds(tensorrt_nets.net())["input"]
    answer = network.run({"input": x})["logits"]
    np.testing.assert_array_equal(answer, network.run({"input": x.astype(np.float64)})["logits"])


def test_files_that_cannot_be_read(tmp_path):
    refused(lambda: read_network(tmp_path / "none.onnx", rtx()), "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not ONNX")
    refused(lambda: read_network(broken, rtx()), "broken.onnx", "not an ONNX model")


def test_what_a_build_would_refuse_is_refused():
    zero = {"conv1.in.zero_point": np.array(0, np.uint8)}
    with pytest.raises(BuildError, match="uint8"):
        parsed(tensorrt_nets.net("int8", changes=zero))


def test_a_shape_that_does_not_add_up_names_its_layer():
    model = parse(
        "net (float[N,3,H,W] x) => (float[M,48] y) { y = Reshape(x, s) }", s=np.array([-1, 48])
    )
    x = np.zeros((1, 3, 5, 5), np.float32)
    with pytest.raises(GraphError, match=r"layer 'node_of_y' \(SHUFFLE\).*reshape"):
        parsed(model).run({"x": x})


def test_external_weights(tmp_path):
    model = small()
    feeds = random_feeds(model)
    expected = parsed(model).run(feeds)["logits"]
    onnx.save(model, tmp_path / "a.onnx", save_as_external_data=True, size_threshold=0)
    answer = read_network(tmp_path / "a.onnx", rtx()).run(feeds)["logits"]
    np.testing.assert_array_equal(answer, expected)


def test_the_runner(tmp_path):
    model = quantized(small())
    save(model, tmp_path / "int8.onnx")
    ours = open_model(f"trt-network:{tmp_path / 'int8.onnx'}")
    theirs = open_model(str(tmp_path / "int8.onnx"))
    assert ours.name == "trt-network:int8.onnx"
    assert "rtx 1." in ours.backend
    assert (ours.sha256, ours.card, ours.image) == (theirs.sha256, theirs.card, theirs.image)
    images = random_feeds(model, batch=16)["input"]
    answers = ours.logits(images)
    assert answers.dtype == np.float64
    assert difference_db(answers, theirs.logits(images)) > 20  # rounding flips cascade
    refused(lambda: open_model("trt-network:"), "trt-network:", hint="trt-network:FILE.onnx")
    refused(lambda: open_model(f"trt-network:{tmp_path / 'none.onnx'}"), "none.onnx")


def test_a_runner_needs_one_image_and_one_answer(tmp_path):
    def opened(text):
        save(parse(text), tmp_path / "a.onnx")
        return open_model(f"trt-network:{tmp_path / 'a.onnx'}")

    refused(lambda: opened("n (float[N,4] a, float[N,4] b) => (float[N,4] y) { y = Add(a, b) }"),
            "2 inputs", "a, b")  # fmt: skip
    two = "n (float[N,4] x) => (float[N,4] {0}, float[N,4] z) {{ {0} = Relu(x) z = Neg(x) }}"
    refused(lambda: opened(two.format("y")), "2 outputs", "y, z", hint="classifier")
    assert opened(two.format("logits")).output == "logits"


def test_strata_evaluate_counts_its_answers(tmp_path):
    model = resnet((1, 1, 1, 1), size=32)
    save(model, tmp_path / "a.onnx")
    arguments = ["--data", "fashion-mnist:test", "--images", "40", "--preprocess", "fashion-mnist"]
    files = [str(tmp_path / "a.onnx"), f"trt-network:{tmp_path / 'a.onnx'}"]
    done = CliRunner().invoke(cli, ["evaluate", *files, *arguments])
    assert done.exit_code == 0, done.output
    assert "trt-network:a.onnx" in done.output
