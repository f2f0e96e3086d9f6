"""The report of a comparison as a value, as a file and as a table."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.metrics import Difference
from deploy.comparison.layer_table import db_text, report_text, row_text
from deploy.comparison.layers_json import SCHEMA, read_report, report_to_json, write_report
from deploy.comparison.report import LayerDiff, Made, Measures, Report, Status, Subject
from deploy.images import DataRecord

DATA = DataRecord("fashion-mnist:test", "d" * 64, 32, None)


def row(name: str, inherited: float, own: float | None = None) -> LayerDiff:
    made = Made(name, "Conv", "float32", ("N", 8, 4, 4))
    return LayerDiff(
        tensor=name,
        status=Status.COMPARED,
        reference=made,
        candidate=made,
        inherited=Measures(inherited, 0.5, 1.0),
        own=None if own is None else Measures(own, 0.9, 0.1),
    )


def report(*rows: LayerDiff) -> Report:
    return Report(Subject("a.onnx", "a" * 64, "model"), Subject("b.onnx", "b" * 64), DATA, rows)


MIXED = report(
    row("a", math.inf, math.inf),
    row("b", 30.0, 41.0),
    LayerDiff("gone", Status.ONLY_IN_REFERENCE, Made("gone", "Identity"), None, "c"),
    row("c", 20.0, 12.0),
    row("d", 20.0, 50.0),
    LayerDiff("new", Status.ONLY_IN_CANDIDATE, None, Made("new", "Cast")),
)

numbers = st.floats() | st.sampled_from([math.nan, math.inf, -math.inf, 0.0])
measures = st.builds(Measures, numbers, numbers, numbers)


def test_worst_first_and_equal_ones_in_graph_order():
    assert [r.tensor for r in MIXED.worst(9, own=False)] == ["c", "d", "b", "a"]
    assert [r.tensor for r in MIXED.worst(2, own=True)] == ["c", "b"]
    with_nan = report(row("x", -math.inf), row("y", math.nan), row("z", 3.0))
    assert [r.tensor for r in with_nan.worst(3, own=False)] == ["y", "x", "z"]
    assert with_nan.worst(3, own=True) == ()


def test_the_first_below_a_floor_is_by_the_graph_and_not_by_size():
    assert MIXED.first_below(35.0).tensor == "b"
    assert MIXED.first_below(20.5).tensor == "c"
    assert MIXED.first_below(20.0) is None
    assert report(row("x", math.nan)).first_below(-1e9).tensor == "x"
    assert report(row("x", -math.inf)).first_below(-1e9).tensor == "x"


def test_medians_are_of_what_differs():
    assert MIXED.median_db(own=False) == 20.0
    assert MIXED.median_db(own=True) == 41.0
    assert report(row("x", math.inf)).median_db(own=False) == math.inf
    assert report(row("x", 1.0)).median_db(own=True) is None
    assert report(row("x", 1.0), row("y", math.nan)).median_db(own=False) is None


def test_measures_are_taken_of_a_difference():
    d = Difference(count=2, signal=100.0, noise=1.0, energy=90.0, dot=94.5, largest=0.7)
    assert Measures.of(d) == Measures(d.sqnr_db, d.cosine, 0.7)
    assert math.isnan(Measures.of(Difference(count=2, nonfinite=1)).cosine)


def test_a_report_survives_its_file(tmp_path):
    path = tmp_path / "layers.json"
    write_report(MIXED, path)
    assert read_report(path) == MIXED
    value = json.loads(path.read_text())
    assert value["schema"] == SCHEMA
    assert value["rows"][0]["inherited"]["sqnr_db"] == "Infinity"
    assert value["rows"][2]["into"] == "c"


@given(inherited=measures, own=st.none() | measures)
def test_any_number_can_be_written_and_read(tmp_path_factory, inherited, own):
    path = tmp_path_factory.mktemp("layers") / "layers.json"
    write_report(report(replace(row("x", 0.0), inherited=inherited, own=own)), path)
    back = read_report(path).rows[0]
    for before, after in ((inherited, back.inherited), (own, back.own)):
        assert (before is None) == (after is None)
        if before is not None and after is not None:
            assert same(after.sqnr_db, before.sqnr_db, 6e-4)
            assert same(after.cosine, before.cosine, 6e-9)
            assert same(after.max_abs, before.max_abs, 1e-5 * abs(before.max_abs))


def same(a: float, b: float, tolerance: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return repr(a) == repr(b)
    return math.isclose(a, b, rel_tol=1e-12, abs_tol=tolerance)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda v: v.update(schema="strata.layers/9"), "schema 'strata.layers/9'"),
        (lambda v: v.pop("data"), "KeyError"),
        (lambda v: v.update(rows=3), "TypeError"),
        (lambda v: v["rows"][0].update(status="perfect"), "ValueError"),
        (lambda v: v["rows"][0]["inherited"].update(sqnr_db="much"), "ValueError"),
        (lambda v: v["rows"][0].pop("own"), "KeyError"),
        (lambda v: v.update(reference=[]), "TypeError"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, damage, text):
    value = report_to_json(MIXED)
    damage(value)
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=text):
        read_report(path)


def test_the_table_reads_like_this():
    text = report_text(MIXED, top=2, floor_db=25.0)
    assert text == "\n".join(
        [
            "a.onnx → b.onnx: 4 tensors compared, 1 only in reference (1 folded), "
            "1 only in candidate",
            "on 32 images of fashion-mnist:test",
            "",
            "tensor                        operator           shape          inh. dB   own dB"
            "    cosine   max abs",
            "c                             Conv               8×4×4            20.00    12.00"
            "   0.50000         1",
            "b                             Conv               8×4×4            30.00    41.00"
            "   0.50000         1",
            "",
            "worst 2 by own error; median inherited (inh.) 20.00 dB, own 41.00 dB",
            "first below 25 dB in graph order: c (inherited 20.00 dB, own 12.00 dB)",
        ]
    )
    assert report_text(MIXED, top=1, floor_db=3.0).splitlines()[-1] == "no tensor below 3 dB"


def test_the_table_fits_100_columns_whatever_the_names():
    long = row("backbone.stage." * 9 + "conv", -math.inf, math.nan)
    wide = replace(long, inherited=Measures(-123.45, -1.0, 1.23e-38))
    for line in report_text(report(long, wide), top=9, floor_db=None).splitlines()[2:]:
        assert len(line) <= 100
    assert "backbone.stag" in report_text(report(long), top=1, floor_db=None)


def test_decibels_in_words():
    assert [db_text(v) for v in (None, math.nan, math.inf, -math.inf, 3.14159)] == [
        *("–", "NaN", "equal", "-inf", "3.14")
    ]
    assert row_text(row("x", math.inf, 3.0)) == "inherited equal, own 3.00 dB"
    assert row_text(row("x", 2.0)) == "inherited 2.00 dB"
