"""The passes together: foreign graphs come out in one form, and wrong ones are caught."""

import json
from collections import Counter

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_text import apply, assert_equal, batchnorm, bytes_of, constants, operators, parse

from core.artifacts import sha256_file
from core.errors import AccuracyError, GraphError
from deploy.cli import cli
from exporter.onnx_file import Card, card_of, load, save
from exporter.optimize import PASSES, check_optimized, optimize

# A network as another exporter writes it: no names, BatchNormalization with a Dropout behind
# it, sizes computed from the input, weights in Constant nodes, MatMul and Add for the end.
FOREIGN = """g (float[N,3,16,16] image) => (float[N,7] scores) {
    c1 = Conv<pads=[1,1,1,1]>(image, w1)
    b1 = BatchNormalization(c1, gamma, beta, mean, var)
    d1 = Dropout(b1)
    r1 = Relu(d1)
    p1 = MaxPool<kernel_shape=[2,2], strides=[2,2]>(r1)
    c2 = Conv<pads=[1,1,1,1], group=2>(p1, w2, bias2)
    b2 = BatchNormalization(c2, gamma, beta, mean, var)
    i2 = Identity(b2)
    a2 = Add(i2, p1)
    r2 = Relu(a2)
    m = ReduceMean<axes=[2,3], keepdims=0>(r2)
    n = Shape(m)
    zero = Constant<value_int = 0>()
    batch = Gather<axis=0>(n, zero)
    axis = Constant<value_ints = [0]>()
    batches = Unsqueeze(batch, axis)
    rest = Constant<value_ints = [-1]>()
    shape = Concat<axis=0>(batches, rest)
    f = Reshape(m, shape)
    h = MatMul(f, w3)
    scores = Add(bias3, h)
}"""
WEIGHTS = {
    "w1": (8, 3, 3, 3),
    "w2": (8, 4, 3, 3),
    "bias2": (8,),
    "w3": (8, 7),
    "bias3": (7,),
    **batchnorm(8),
}
PLAIN = ["Conv", "Relu", "MaxPool", "Conv", "Add", "Relu", "GlobalAveragePool", "Flatten", "Gemm"]


def foreign(opset=17):
    return parse(FOREIGN, opset, **WEIGHTS)


@pytest.mark.parametrize("opset", [13, 15, 17])
def test_a_foreign_network_comes_out_in_the_one_form(opset):
    model = foreign(opset)
    before = bytes_of(model)
    after, results = optimize(model)
    assert bytes_of(model) == before
    assert operators(after) == PLAIN
    assert_equal(model, after)
    assert all(node.name for node in after.graph.node)
    assert {result.name for result in results} == {run.__name__ for run in PASSES}
    assert check_optimized(model, after).worst[1] >= 100


def test_names_that_survive():
    after, _ = optimize(foreign())
    assert [node.output[0] for node in after.graph.node] == [
        "b1", "r1", "p1", "b2", "a2", "r2", "m.pool", "m", "scores",
    ]  # fmt: skip
    assert [node.name for node in after.graph.node][:2] == ["c1", "r1"]


def test_a_second_run_changes_nothing():
    once, _ = optimize(foreign())
    twice, results = optimize(once)
    assert not any(result.changed for result in results)
    assert bytes_of(once) == bytes_of(twice)


def test_the_same_bytes_every_time():
    assert bytes_of(optimize(foreign())[0]) == bytes_of(optimize(foreign())[0])


def test_weights_as_inputs_of_an_old_file():
    model = foreign(13)
    for weight in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        )
    model.ir_version = 3
    after, _ = optimize(model)
    assert [value.name for value in after.graph.input] == ["image"]
    assert operators(after) == PLAIN
    assert_equal(foreign(13), after)


def test_the_batch_stays_free_and_every_shape_is_known():
    after, _ = optimize(foreign())
    infos = [*after.graph.value_info, *after.graph.input, *after.graph.output]
    shapes = {
        i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in infos
    }
    assert {shape[0] for shape in shapes.values()} == {"N"}
    assert shapes["b2"] == ["N", 8, 8, 8]
    assert len(shapes) == len(after.graph.node) + 1


def test_an_older_opset_is_refused_with_the_way_out():
    model = parse("g (float[N] x) => (float[N] y) { y = Relu(x) }", 12)
    with pytest.raises(GraphError, match="opset 12") as caught:
        optimize(model)
    assert "convert" in caught.value.hint


def test_pre_activation_keeps_its_batchnorm_and_says_so():
    text = """g (float[N,8,8,8] x) => (float[N,8,8,8] y) {
        [bn1] b = BatchNormalization(x, gamma, beta, mean, var)
        r = Relu(b)
        c = Conv(r, w)
        y = Add(c, x)
    }"""
    after, results = optimize(parse(text, w=(8, 8, 1, 1), **batchnorm(8)))
    assert Counter(operators(after))["BatchNormalization"] == 1
    reason = next(result.reason for result in results if result.name == "fold_batchnorm")
    assert "bn1 (its input is a graph input)" in reason


def test_subgraphs_keep_their_outer_tensors():
    text = """g (bool flag, float[N,3] x) => (float[N,3] y) {
        t = Relu(x)
        u = Identity(t)
        y = If (flag) <
            then_branch = yes () => (float[N,3] a) { a = Sigmoid(u) },
            else_branch = no () => (float[N,3] b) { b = Identity(t) }
        >
    }"""
    model = parse(text)
    after, _ = optimize(model)
    assert operators(after) == ["Relu", "If"]
    check_optimized(model, after)


def plant(model, name):
    """Change one value of one weight by a thousandth of the largest."""
    weight = next(w for w in model.graph.initializer if w.name == name)
    array = onnx.numpy_helper.to_array(weight).copy()
    array.flat[0] += 1e-3 * np.abs(array).max()
    weight.CopyFrom(onnx.numpy_helper.from_array(array, name))


@pytest.mark.parametrize(("weight", "tensor"), [("w1", "b1"), ("w2", "b2"), ("bias3", "scores")])
def test_a_wrong_weight_is_caught_at_its_own_tensor(weight, tensor):
    model = foreign()
    after, _ = optimize(model)
    plant(after, weight)
    with pytest.raises(AccuracyError, match=f"tensor '{tensor}' has an SQNR of"):
        check_optimized(model, after)


def test_half_precision_has_a_floor_of_its_own():
    half = {k: v.astype(np.float16) for k, v in constants(foreign()).items()}
    model = parse(FOREIGN.replace("float[", "float16["), 17, **half)
    after, _ = optimize(model)
    assert operators(after) == PLAIN
    check = check_optimized(model, after)
    assert check.floor_db == 40
    assert check.worst[1] < 100


@pytest.mark.parametrize("run", PASSES, ids=lambda run: run.__name__)
def test_every_pass_alone_keeps_its_promises(run):
    apply(
        run,
        onnx.shape_inference.infer_shapes(foreign())
        if run.__name__ != "infer_shapes"
        else foreign(),
    )


# ------------------------------------------------------------------------- the command line


def strata(*args):
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def test_the_command_writes_a_file_that_knows_its_parent(tmp_path):
    path = tmp_path / "net.onnx"
    save(foreign(), path, Card(labels=("a",) * 7, weights={"name": "w"}, stage="model"))
    done = strata("optimize", path)
    assert done.exit_code == 0, done.output
    assert "fold_batchnorm  BatchNormalization into Conv: 2 (c" not in done.output
    assert "BatchNormalization into Conv: 2" in done.output
    assert "lowest SQNR" in done.output
    card = card_of(load(tmp_path / "optimized.onnx"))
    assert card.parents == {"model": sha256_file(path)}
    assert (card.stage, card.labels[0], card.weights["name"]) == ("optimized", "a", "w")


def test_the_command_speaks_json(tmp_path):
    path = tmp_path / "net.onnx"
    save(foreign(), path)
    done = strata("optimize", path, "-o", tmp_path / "o.onnx", "--json")
    facts = json.loads(done.stdout)
    assert facts["sha256"] == sha256_file(tmp_path / "o.onnx")
    assert facts["check"]["min_sqnr_db"] >= 100
    assert facts["check"]["data"] == "random numbers"
    assert {entry["pass"] for entry in facts["passes"]} == {run.__name__ for run in PASSES}


@pytest.mark.parametrize(
    ("content", "code", "what"),
    [(None, 2, "cannot be read"), (b"", 2, "not an ONNX"), (b"text", 2, "not an ONNX")],
)
def test_bad_files_have_an_exit_code_and_a_hint(content, code, what, tmp_path):
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    done = strata("optimize", path)
    assert done.exit_code == code
    assert what in done.output
    assert "hint:" in done.output
    assert not (tmp_path / "optimized.onnx").exists()


def test_an_input_that_cannot_be_fed_is_a_graph_error(tmp_path):
    path = tmp_path / "net.onnx"
    save(parse("g (string[N] x) => (string[N] y) { y = Identity(x) }"), path)
    done = strata("optimize", path)
    assert done.exit_code == 5
    assert "tensor(string)" in done.output
