"""Comparing: right rows, the layer at fault named, the same result for any batch."""

import json
import math
import time

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from comparing import compare
from tiny_nets import SPEC, resnet, set_weight, weight, with_qdq, write

from core.errors import GraphError, InputError
from deploy.cli import cli
from deploy.comparison.chain import Chain
from deploy.comparison.output.layers_json import read_report
from deploy.comparison.part import Part
from deploy.comparison.run import compare_models
from deploy.comparison.sides.pieces import Pieces
from deploy.comparison.sides.subjects import open_side
from deploy.comparison.sums.pair_sums import PairSums
from deploy.comparison.values.measures import Status
from deploy.comparison.values.verdict import Reason
from deploy.images import ImageRequest

FEW = ImageRequest(images=6, batch=4)


@pytest.fixture
def pair(tmp_path):
    """A float network and its Q/DQ form, as files."""
    model = resnet()
    return write(model, tmp_path / "a.onnx"), write(
        with_qdq(model), tmp_path / "b.onnx", stage="int8"
    )


def changed(tmp_path, change, name="c.onnx"):
    model = with_qdq(resnet())
    change(model)
    return write(model, tmp_path / name)


def run(*arguments):
    return CliRunner().invoke(cli, ["compare", *map(str, arguments)])


def by_name(report):
    return {row.tensor: row for row in report.rows}


def test_a_network_equals_itself(pair):
    report = compare(pair[0], pair[0], FEW)
    assert {row.status for row in report.rows} == {Status.COMPARED}
    assert [row.tensor for row in report.rows][:2] == ["conv1", "relu"]
    for row in report.rows:
        assert row.inherited.sqnr_db == row.own.sqnr_db == math.inf, row
        assert row.own.max_abs == 0


def test_every_tensor_of_both_sides_is_compared_by_name(pair):
    report = compare(*pair, FEW)
    rows = by_name(report)
    assert [row.tensor for row in report.rows] == [n.name for n in resnet().graph.node]
    assert all(row.status is Status.COMPARED for row in report.rows)
    assert rows["conv1"].shape == ("N", 8, 16, 16)
    assert rows["conv1"].op_type == "Conv"
    assert rows["relu"].own.sqnr_db == math.inf  # exact, whatever it is fed
    assert 20 < rows["relu"].inherited.sqnr_db < 60
    # Where nothing was lost yet, there is nothing to inherit.
    assert rows["conv1"].inherited == rows["conv1"].own
    assert rows["logits"].own.sqnr_db > rows["logits"].inherited.sqnr_db
    assert report.candidate.stage == "int8"
    assert report.data.images == 6
    assert report.data.preprocess == SPEC.to_json()


@pytest.mark.parametrize("batch", [1, 3, 64])
def test_the_batch_size_does_not_matter(pair, batch):
    expected = by_name(compare(*pair, FEW))
    for name, row in by_name(compare(*pair, ImageRequest(images=6, batch=batch))).items():
        assert row.shape == expected[name].shape
        for key in ("inherited", "own"):
            ours, theirs = getattr(row, key), getattr(expected[name], key)
            assert ours.sqnr_db == pytest.approx(theirs.sqnr_db, abs=1e-3), name
            assert ours.cosine == pytest.approx(theirs.cosine, abs=1e-6)
            assert ours.max_abs == pytest.approx(theirs.max_abs, rel=1e-4)


def test_without_own_errors_the_candidate_runs_once(pair):
    report = compare(*pair, FEW, own=False)
    assert all(row.own is None for row in report.rows)
    assert by_name(report)["logits"].inherited == by_name(compare(*pair, FEW))["logits"].inherited


FAULTS = {
    "a scale ×2": ("layer1.1.conv1", "layer1.1.conv1.weight.scale", lambda v: v * 2),
    "a channel zeroed": ("layer1.0.conv2", "layer1.0.conv2.weight.quantized",
                         lambda v: v * (np.arange(len(v)) > 0)[:, None, None, None]),
    "channels swapped": ("layer1.0.conv1", "layer1.0.conv1.weight.quantized", lambda v: v[::-1]),
    "a bias dropped": ("layer1.0.downsample", "layer1.0.downsample.bias", lambda v: v * 0 - 9),
    "the classifier negated": ("logits", "fc.weight.quantized", lambda v: -v),
    "the input clipped": ("conv1", "input.scale", lambda v: v / 50),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_the_layer_at_fault_has_the_largest_own_error(pair, tmp_path, fault):
    layer, name, change = FAULTS[fault]

    def plant(model):
        old = weight(model, name)
        set_weight(model, name, np.ascontiguousarray(change(old)).astype(old.dtype))

    report = compare(pair[0], changed(tmp_path, plant), FEW)
    worst, second = report.worst(2, own=True)
    assert worst.tensor == layer
    assert worst.own.sqnr_db < second.own.sqnr_db - 6
    # The twin: without the fault, the same layer is nothing special.
    assert by_name(compare(*pair, FEW))[layer].own.sqnr_db > worst.own.sqnr_db + 6


def test_a_nan_is_the_worst_of_all(pair, tmp_path):
    def plant(model):
        bias = weight(model, "layer1.0.conv2.bias")
        bias[3] = np.nan
        set_weight(model, "layer1.0.conv2.bias", bias)

    report = compare(pair[0], changed(tmp_path, plant), FEW)
    assert report.worst(1, own=True)[0].tensor == "layer1.0.conv2"
    assert math.isnan(by_name(report)["layer1.0.relu"].inherited.sqnr_db)
    # The next Q makes a number of it: who looked at the answers alone would see no NaN.
    assert by_name(report)["logits"].inherited.sqnr_db < 10
    assert report.verdict.first == "layer1.0.conv2"
    assert report.verdict.blame[0].reason is Reason.NOT_FINITE


def test_a_folded_tensor_is_a_row_that_says_into_what(tmp_path):
    def net(extra):
        text = """<ir_version: 9, opset_import: ["" : 19]> g (float[N,3,H,W] input)
        => (float[N,3,H,W] logits) { %s logits = Relu(bn1) }"""
        return onnx.parser.parse_model(text % extra)

    one = write(net("conv1 = Neg(input) mid = Abs(conv1) bn1 = Neg(mid)"), tmp_path / "a.onnx")
    two = write(net("more = Abs(input) bn1 = Neg(more)"), tmp_path / "b.onnx")
    report = compare(one, two, FEW)
    told = [(row.tensor, row.status, row.into) for row in report.rows]
    assert told == [
        ("more", Status.ONLY_IN_CANDIDATE, None),
        ("conv1", Status.ONLY_IN_REFERENCE, "bn1"),
        ("mid", Status.ONLY_IN_REFERENCE, "bn1"),
        ("bn1", Status.COMPARED, None),
        ("logits", Status.COMPARED, None),
    ]
    assert report.rows[3].own.sqnr_db == math.inf


def test_shapes_that_differ_are_rows_too(tmp_path):
    def net(middle):
        text = """<ir_version: 9, opset_import: ["" : 19]> g (float[N,3,H,W] input)
        => (float[N,3,1,1] logits) { a = %s b = Neg(a) logits = GlobalAveragePool(b) }"""
        return onnx.parser.parse_model(text % middle)

    one = write(net("Neg(input)"), tmp_path / "a.onnx")
    two = write(net("MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(input)"), tmp_path / "b.onnx")
    rows = by_name(compare(one, two, FEW))
    assert rows["a"].status is rows["b"].status is Status.SHAPE_DIFFERS
    assert rows["b"].reference.shape == ("N", 3, 16, 16)
    assert rows["b"].candidate.shape == ("N", 3, 8, 8)
    assert rows["logits"].status is Status.COMPARED
    assert rows["a"].inherited is None


def test_a_half_precision_candidate_is_fed_halves(pair, tmp_path):
    model = resnet()
    for initializer in model.graph.initializer:
        half = onnx.numpy_helper.to_array(initializer).astype(np.float16)
        initializer.CopyFrom(onnx.numpy_helper.from_array(half, initializer.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    rows = by_name(compare(pair[0], write(model, tmp_path / "h.onnx"), FEW))
    assert rows["logits"].candidate.dtype == "float16"
    assert rows["logits"].own.sqnr_db > 50
    assert rows["logits"].inherited.sqnr_db > 50


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (lambda: resnet(classes=7), "its output 'logits'"),
        (lambda: onnx.compose.add_prefix(resnet(), "p_"), "its input is 'p_input'"),
        (lambda: onnx.compose.add_prefix(resnet(), "p_", rename_inputs=False), "no tensor name"),
        (lambda: resnet(batch=4), "takes 4 at a time|is 4×3×H×W"),
    ],
)
def test_networks_that_cannot_be_compared_are_refused(pair, tmp_path, other, text):
    path = write(other(), tmp_path / "c.onnx")
    with pytest.raises(InputError, match=text):
        compare(pair[0], path, FEW)


def test_a_network_of_a_fixed_batch_takes_whole_batches(tmp_path):
    path = write(resnet(batch=3), tmp_path / "fixed.onnx")
    assert compare(path, path, ImageRequest(images=6, batch=3)).rows
    with pytest.raises(InputError, match="3×3×H×W") as caught:
        compare(path, path, ImageRequest(images=4, batch=3))
    assert "--batch 3" in caught.value.hint


def test_a_network_that_cannot_run_is_named(pair, tmp_path):
    model = resnet()
    next(n for n in model.graph.node if n.name == "logits").op_type = "NoSuchOp"
    path = tmp_path / "c.onnx"
    onnx.save(model, path)
    with pytest.raises(GraphError, match="NoSuchOp"):
        compare(path, path, ImageRequest(images=2, preprocess=SPEC.to_json()))


def test_a_spec_is_needed_and_must_be_one(tmp_path):
    bare = write(resnet(), tmp_path / "bare.onnx", spec=None)
    with pytest.raises(InputError, match="nothing says how to prepare"):
        compare(bare, bare, FEW)
    assert compare(bare, bare, ImageRequest(images=2, preprocess="fashion-mnist")).rows
    other = write(resnet(), tmp_path / "other.onnx")
    assert compare(bare, other, FEW).data.preprocess == SPEC.to_json()
    from calib_data.preprocess import PRESETS

    third = write(resnet(), tmp_path / "third.onnx", spec=PRESETS["fashion-mnist"])
    with pytest.raises(InputError, match="prepared differently"):
        compare(other, third, FEW)


def test_prepared_data_need_no_spec(tmp_path):
    bare = write(resnet(), tmp_path / "bare.onnx", spec=None)
    images = np.random.default_rng(0).standard_normal((4, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "d.npz", images=images)
    report = compare(bare, bare, ImageRequest(data=str(tmp_path / "d.npz"), images=4))
    assert report.data.preprocess is None
    assert report.data.name == "d.npz"


def test_the_command_prints_a_table_and_writes_all_rows(pair, tmp_path):
    path = tmp_path / "out" / "layers.json"
    result = run(*pair, "--images", 4, "--json", path, "--top", 3)
    assert result.exit_code == 7, result.output  # its shortcuts are not quantized
    assert "layer1.0.add: missing Q" in result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert "17 tensors compared" in result.stdout
    assert len([line for line in lines if " Conv " in line or " Add " in line]) >= 1
    report = read_report(path)
    assert [row.tensor for row in report.rows] == ["input", *(n.name for n in resnet().graph.node)]
    again = tmp_path / "again.json"
    run(*pair, "--images", 4, "--json", again)
    assert again.read_bytes() == path.read_bytes()
    printed = run(*pair, "--images", 4, "--json", "-")
    assert json.loads(printed.stdout) == json.loads(path.read_text())


def test_a_broken_floor_is_exit_code_7_and_names_the_first_tensor(pair):
    same = (pair[0], pair[0])
    held = run(*same, "--images", 4, "--floor-db", 300)
    assert held.exit_code == 0, held.output
    broken = run(*pair, "--images", 4, "--floor-db", 300)
    assert broken.exit_code == 7
    assert "300 dB" in broken.output
    assert "conv1" in broken.output


def test_what_fails_while_sums_are_made_ends_the_comparison(pair, monkeypatch):
    """Sums are made in threads of their own while the next model runs."""

    def fail(*_):
        raise MemoryError("no room for the sums")

    monkeypatch.setattr(PairSums, "begin", fail)
    with pytest.raises(MemoryError, match="no room for the sums"):
        compare(*pair, FEW)


def test_a_failure_of_a_later_part_ends_the_comparison(pair, monkeypatch):
    whole = Part.run

    def run(part, stop=None):
        if part.number == 2:
            raise MemoryError("no room for the third")
        return whole(part, stop)

    monkeypatch.setattr(Part, "run", run)
    with pytest.raises(MemoryError, match="no room for the third"):
        compare(*pair, FEW)


@pytest.mark.parametrize("slow", [0, 1])
def test_how_fast_the_parts_run_changes_no_bit(pair, monkeypatch, slow):
    def run():
        return compare_models([str(path) for path in (*pair, pair[0])], FEW).rows

    usual, piece = run(), Part._piece

    def delayed(part, at):
        if part.number % 2 == slow:
            time.sleep(0.02)
        return piece(part, at)

    monkeypatch.setattr(Part, "_piece", delayed)
    assert run() == usual


def test_what_is_equal_has_equal_codes(pair):
    cells = [row.cells[0] for row in compare_models([str(path) for path in pair], FEW).rows]
    equal = [c.codes for c in cells if c.codes and c.own and c.own.sqnr_db == math.inf]
    assert equal
    assert all(codes.own_equal == 1.0 and codes.own_largest == 0 for codes in equal)


def test_of_a_model_that_breaks_off_the_first_part_alone_is_summed_up(pair, monkeypatch):
    """However far the part beside it came by then."""
    piece, free = Part._piece, Pieces.free

    def late(part, at):
        if part.number == 0 and at == last:
            time.sleep(0.2)  # the part beside it sums up all pieces but this one
        return piece(part, at)

    def breaks(pieces, at, entry):
        if at == last:
            raise GraphError("a node failed while running", hint="")
        return free(pieces, at, entry)

    monkeypatch.setattr("deploy.comparison.chain.find_break", lambda *_: True)
    chain = Chain([open_side(str(path)) for path in pair], own=True)
    images = np.random.default_rng(0).normal(size=(4, 3, 32, 32)).astype(np.float32)
    assert chain.run(np.arange(4), images)
    chain.finish()
    chain.close()
    last = len(chain.models.ends) - 1
    assert last > 0
    monkeypatch.setattr(Part, "_piece", late)
    monkeypatch.setattr(Pieces, "free", breaks)
    chain = Chain([open_side(str(path)) for path in pair], own=True)
    chain.run(np.arange(4), images)
    chain.finish()
    chain.close()
    assert chain.stopped
    assert chain.answers.images == [0, 1]
    assert {len(sums.noises) for sums in chain.steps[0].inherited.values()} == {2}


def test_whether_to_stop_is_asked_once_a_piece_is_summed_up(pair, monkeypatch):
    whole = PairSums.note
    made = []

    def slow(self, *found):
        time.sleep(0.05)
        whole(self, *found)
        made.append(self)

    monkeypatch.setattr(PairSums, "note", slow)
    sides = [open_side(str(path)) for path in pair]
    asked = []

    def stop(models, fresh):
        assert models.steps is chain.steps
        wanted = {name for names in fresh for name in names}
        sums = chain.steps[0].inherited
        asked.append(all(any(sums[name] is done for done in made) for name in wanted))
        return False

    chain = Chain(sides, own=True, stop=stop)
    images = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32)
    assert chain.run(np.arange(2), images)
    chain.finish()
    chain.close()
    assert asked
    assert all(asked)


def test_files_that_are_not_there_are_exit_code_2(pair, tmp_path):
    for arguments in [(pair[0], tmp_path / "no.onnx"), (pair[0], __file__)]:
        result = run(*arguments)
        assert result.exit_code == 2
        assert "hint:" in result.stderr
