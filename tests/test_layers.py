"""A comparison as a value, as a file and as a table."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_values import cell, errors, large, report, row

from core.errors import InputError
from deploy.comparison.output.layer_table import report_text
from deploy.comparison.output.layers_json import SCHEMA, read_report, report_to_json, write_report
from deploy.comparison.output.numbers_text import db_text, op_text
from deploy.comparison.values.measures import Cell, Errors, Status
from deploy.comparison.values.verdict import Bounds, Verdict

numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])


def pair(**own):
    """Return a comparison of two models: tensor → own SQNR in dB; inherited is 10 dB less."""
    made = report()
    cells = {name: cell(db, db - 10 if math.isfinite(db) else db) for name, db in own.items()}
    rows = [row(name, "layer1", "Conv", (c,)) for name, c in cells.items()]
    rows = tuple(replace(r, made=r.made[1:]) for r in rows)
    return replace(
        made, models=made.models[1:], rows=rows, verdicts=(Verdict(),), changed=(1,), answers=()
    )


MIXED = pair(a=math.inf, b=41.0, c=12.0, d=30.0)


def test_worst_first_and_equal_ones_in_graph_order():
    assert [r.tensor for r in MIXED.worst(9, own=False)] == ["c", "d", "b", "a"]
    assert [r.tensor for r in MIXED.worst(2, own=True)] == ["c", "d"]
    with_nan = pair(x=-math.inf, y=math.nan, z=3.0, w=3.0)
    assert [r.tensor for r in with_nan.worst(4, own=True)] == ["y", "x", "z", "w"]


def test_medians_are_of_what_differs():
    assert MIXED.median_db(own=True) == 30.0
    assert pair(x=math.inf).median_db(own=True) == math.inf
    assert pair(x=1.0, y=math.nan).median_db(own=True) is None


@pytest.mark.parametrize("made", [report, lambda: MIXED, lambda: large(20, 2)])
def test_a_report_survives_its_file(made, tmp_path):
    path = tmp_path / "layers.json"
    before = made()
    write_report(before, path)
    value = json.loads(path.read_text())
    assert value["schema"] == SCHEMA
    assert report_to_json(read_report(path)) == value
    assert len(read_report(path).rows) == len(before.rows)


@given(inherited=st.builds(Errors, numbers, numbers, numbers), sqnr=numbers)
def test_any_number_can_be_written_and_read(tmp_path_factory, inherited, sqnr):
    path = tmp_path_factory.mktemp("layers") / "layers.json"
    changed = Cell(Status.COMPARED, None, inherited, errors(sqnr))
    rows = (replace(MIXED.rows[0], cells=(changed,)),)
    write_report(replace(MIXED, rows=rows), path)
    back = read_report(path).rows[0].cells[0]
    assert same(back.inherited.sqnr_db, inherited.sqnr_db, 6e-4)
    assert same(back.inherited.cosine, inherited.cosine, 6e-9)
    assert same(back.inherited.max_abs, inherited.max_abs, 1e-5 * abs(inherited.max_abs))
    assert same(back.own.sqnr_db, sqnr, 6e-4)


def same(a, b, tolerance):
    if not (math.isfinite(a) and math.isfinite(b)):
        return repr(a) == repr(b)
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=tolerance)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda v: v.update(schema="strata.layers/1"), "schema 'strata.layers/1'"),
        (lambda v: v.pop("data"), "KeyError"),
        (lambda v: v.update(rows=3), "TypeError"),
        (lambda v: v["rows"][0]["cells"][0].update(status="perfect"), "ValueError"),
        (lambda v: v["rows"][0]["cells"][0]["inherited"].update(sqnr_db="much"), "ValueError"),
        (lambda v: v["rows"][0].pop("cells"), "KeyError"),
        (lambda v: v.update(models=[[]]), "TypeError"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, text):
    value = report_to_json(report())
    damage(value)
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=text):
        read_report(path)


def test_the_table_of_two_says_what_matters():
    lines = report_text(MIXED, top=2).splitlines()
    assert lines[:2] == ["optimized.onnx → int8.onnx", "4 tensors compared"]
    (worst,) = (line for line in lines if line.startswith("c "))
    assert worst.split()[:5] == ["c", "Conv", "8×4×4", "2.00", "12.00"]
    assert not any(line.startswith("b ") for line in lines)  # the two worst only
    assert "median inherited (inh.) 20.00 dB, own 30.00 dB" in lines
    assert lines[-1].startswith("int8.onnx: no layer to blame")
    floor = replace(MIXED, bounds=Bounds(floor_db=5.0))
    held = report_text(floor, top=0)
    assert "no tensor below 5 dB" in held
    broken = replace(floor, verdicts=(Verdict(first_below="c"),))
    assert "first below 5 dB in graph order: c" in report_text(broken, top=0)


def test_the_table_of_a_chain_has_a_column_a_step_and_names_the_culprit():
    text = report_text(report(), top=3)
    header = next(line for line in text.splitlines() if line.startswith("own dB"))
    assert header.split()[-2:] == ["optimized.onnx", "int8.onnx"]
    assert "int8.onnx: the first layer at fault is layer2.0.conv1" in text
    assert "layer2.0.conv1: clipping: what was seen in layer2.0.conv1" in text
    assert "--exclude layer2.0.conv1" in text


@pytest.mark.parametrize("made", [report, lambda: MIXED, lambda: large(40, 4)])
def test_the_table_fits_100_columns_whatever_the_names(made):
    long = made()
    rows = tuple(replace(r, tensor="backbone.stage." * 9 + r.tensor) for r in long.rows)
    for line in report_text(replace(long, rows=rows), top=9).splitlines():
        assert len(line) <= 100, line


def test_cautions_are_said_once_and_kept(tmp_path):
    sentences = ("calibrated with noise", "3 images are double")
    made = report()
    loud = [
        replace(m, cautions=sentences[:at], synthetic="noise") for at, m in enumerate(made.models)
    ]
    made = replace(made, models=tuple(loud))
    said = [line for line in report_text(made, top=0).splitlines() if line.startswith("caution")]
    assert said == [
        "caution: optimized.onnx: calibrated with noise",
        "caution: int8.onnx: 3 images are double",
    ]
    assert "caution" not in report_text(report(), top=0)
    write_report(made, tmp_path / "layers.json")
    assert read_report(tmp_path / "layers.json").models == made.models


def test_a_file_of_before_has_no_cautions(tmp_path):
    value = report_to_json(report())
    for model in value["models"]:
        del model["cautions"], model["synthetic"]
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(value))
    assert read_report(path).models == report().models


def test_operators_are_shortened_at_their_end():
    assert op_text("BatchNormalization", 10) == "BatchNorm"
    assert op_text("BatchNormalization", 18) == "BatchNormalization"
    assert op_text("ConvTransposeForeign", 10) == "ConvTrans…"


def test_decibels_in_words():
    assert [db_text(v) for v in (None, math.nan, math.inf, -math.inf, 3.14159)] == [
        *("–", "NaN", "equal", "-inf", "3.14")
    ]
