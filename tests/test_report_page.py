"""The page of a comparison: what it says, and that nothing in a report can be more than text."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from report_values import CODES, DATA, EVIL, HISTOGRAM, hostile, large, report
from tensorrt_nets import write
from tiny_nets import resnet, set_weight, weight, with_qdq
from tiny_nets import write as write_model

from calib_data.open import open_data
from core.artifacts import sha256_file
from core.errors import OutputError
from deploy.cli import cli
from deploy.comparison.values.measures import Histogram
from deploy.engines.build import build
from deploy.engines.plan_header import PlanHeader
from deploy.engines.target import BuildTarget
from deploy.evaluation.accuracy import Accuracy, Answers, Changed, write_accuracy
from deploy.images import ImageRequest
from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.kernels import Kernel, KernelGraph, Tensor
from deploy.report_page.depth_scale import HEIGHT, Scale, columns_of, scale_of
from deploy.report_page.engine_part import engines_part
from deploy.report_page.histogram import histogram_svg, holds
from deploy.report_page.markup import embedded
from deploy.report_page.page import report_html, write_html
from deploy.report_page.thumbnails import Thumbnails, png_data
from deploy.report_page.words import excess_text, share

NOTHING = Path("no-such-folder")
VOID = {"meta", "br", "img", "input", "link"}


class Page(HTMLParser):
    """Reads a page strictly: every element that is opened is closed, in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.texts = [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        assert len({name for name, _ in attrs}) == len(attrs), f"{tag}: twice in {attrs}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"script", "style"}:
            self.texts.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.texts))


def html(made, folder=NOTHING, pictures=None):
    return report_html(made, pictures or Thumbnails({}), folder)


def texts_in(value):
    """Yield every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts_in(item)


def rows_of_table(text):
    """Return the cells of the table of all tensors, as texts."""
    body = text[text.index('<table id="all">') :]
    lines = re.findall(r'<tr id="t\d+">.*?</tr>', body, re.S)
    return [
        [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", line)]
        for line in lines
    ]


def test_the_verdict_names_the_layer_the_reason_and_the_next_step():
    page = Page(html(report()))
    for part in [
        "model.onnx → optimized.onnx → int8.onnx",
        "2 layers are to blame",
        "No layer to blame: each does what its precision and scales explain.",
        "layer2.0.conv1 is most to blame: clipping; 1 more after it.",
        "What was seen in layer2.0.conv1.",
        "Next: --exclude layer2.0.conv1",
        "94.4 MB",
        "30 of 32",
        "1 of 32",
        "3333333333",
    ]:
        assert part in page.text.replace(" :", ":").replace(" ;", ";"), part
    sound = Page(html(replace(report(), verdicts=(report().verdicts[0],) * 2)))
    assert "Every layer does what it should" in sound.text
    assert "most to blame" not in sound.text


def test_what_the_models_caution_of_stands_on_top_once():
    noisy = tuple(replace(m, cautions=("it was made of noise",)) for m in report().models)
    shown = Page(html(replace(report(), models=noisy))).text
    assert shown.count("Caution: model.onnx: it was made of noise") == 1
    assert shown.count("it was made of noise") == 1
    assert "Caution" not in Page(html(report())).text


def test_the_table_holds_every_figure():
    rows = rows_of_table(html(report()))
    assert [row[1] for row in rows][:3] == ["input", "layer1.0.conv1", "layer1.0.bn1"]
    fault = rows[4]
    assert fault[:5] == ["4", "layer2.0.conv1 to blame", "layer2", "Conv", "8×4×4"]
    assert fault[5:11] == ["FP32", "130.00", "125.50", "0.125", "–", "compared"]
    assert fault[11:] == [
        *("INT8", "9.25", "20.50", "31.00", "+21.8", "20.50"),
        *("0.125", "87.50 %", "6.25 %", "–", "compared"),
    ]
    assert "folded into layer1.0.bn1" in rows[1]
    assert "equal" in rows[0]
    assert "NaN" in rows[6]


def test_the_page_is_built_of_whole_elements_that_point_somewhere():
    for made in (report(), hostile(), replace(report(), answers=(), changed=None, right=None)):
        page = Page(html(made))
        ids = [attrs["id"] for _, attrs in page.elements if "id" in attrs]
        assert len(set(ids)) == len(ids)
        inner = {attrs["href"] for tag, attrs in page.elements if tag == "a"}
        assert len(inner) > 10
        assert {target.removeprefix("#") for target in inner} <= set(ids)


def test_the_page_can_be_walked_by_ear():
    page = Page(html(report()))
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    for tag, attrs in page.elements:
        if tag == "th":
            assert attrs.get("scope"), attrs
        if tag == "svg":
            assert attrs.get("aria-label") or attrs.get("aria-hidden"), attrs
        if tag == "img":
            assert attrs.get("alt"), attrs
        if attrs.get("tabindex") == "0":
            assert attrs.get("aria-label"), attrs


def test_nothing_of_a_hostile_report_is_more_than_text():
    text = html(hostile(), pictures=Thumbnails({}, EVIL[0]))
    page = Page(text)
    assert [attrs.get("type") for tag, attrs in page.elements if tag == "script"] == [
        "application/json",
        None,
    ]
    for tag, attrs in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attrs), (tag, attrs)
        assert tag not in {"iframe", "object", "embed", "base"}
        for name in ("href", "src"):
            assert attrs.get(name, "#").startswith(("#", "data:image/"))
    assert not re.search("[\u202e\u2066\u200f\x00\x1b\ud800]", text)
    assert max(map(len, page.texts)) < 1000  # the name of 5000 letters is shortened
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert all(value.isprintable() and len(value) <= 600 for value in texts_in(data))
    assert EVIL[0] in page.text  # and yet it can be read
    assert "{{x}}" in page.text


@given(st.text())
def test_embedded_json_ends_no_element(value):
    shown = embedded({"name": value})
    assert not set("<>&") & set(shown)
    assert shown.isascii()


def test_the_same_report_gives_the_same_bytes(tmp_path):
    for name in ("a.html", "b.html"):
        write_html(report(), tmp_path / name, ImageRequest(), tmp_path)
    first = (tmp_path / "a.html").read_bytes()
    assert (tmp_path / "b.html").read_bytes() == first
    assert str(tmp_path).encode() not in first
    other = replace(report(), changed=(0, 2))
    write_html(other, tmp_path / "a.html", ImageRequest(), tmp_path)
    assert (tmp_path / "a.html").read_bytes() != first


def test_many_tensors_in_many_steps_stay_under_5_mb():
    size = len(html(large()).encode())
    assert 1e6 < size < 5e6


def test_what_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"report\.html"):
        write_html(report(), tmp_path / "file" / "report.html", ImageRequest(), tmp_path)


# ------------------------------------------------------------------------------------ plots


def test_the_plot_has_a_column_for_each_tensor_that_both_sides_have():
    assert columns_of(report(), 0) == [0, 2, 3, 4, 5, 6]
    text = html(report())
    plots = re.findall(r'<svg class="depth wide".*?</svg>', text, re.S)
    assert len(plots) == 2
    assert plots[1].count('<circle class="fault"') == 2
    assert plots[0].count('<circle class="fault"') == 0
    assert plots[1].count('class="lost"') == 1  # the NaN
    own = re.search(r'<path class="own" d="([^"]*)"', plots[1])[1]
    assert own.count("M") == 3  # 40.5, 9.25 and the NaN; those of 100 dB and more are exact


def test_a_tensor_whose_codes_are_at_fault_is_ringed_where_they_leave_it():
    made = report()
    at = made.rows[4]
    coarse = replace(CODES, rounding_db=12.0)
    exact = replace(at.cells[1], codes=coarse, own=replace(at.cells[1].own, sqnr_db=math.inf))
    rows = (*made.rows[:4], replace(at, cells=(at.cells[0], exact)), *made.rows[5:])
    made = replace(made, rows=rows)
    ring = re.search(r'class="fault" cx="[^"]*" cy="([^"]*)" r="6.0"', html(made))
    assert scale_of(made, 1) == Scale(10.0, 50.0)
    assert float(ring[1]) == pytest.approx(308 - 252 * 2 / 40, abs=0.1)


def test_the_scale_shows_what_differs():
    scale = scale_of(report(), 1)
    assert (scale.low, scale.high) == (0.0, 50.0)  # from 9.25 to 41; 100 dB are of floats
    assert scale.height(41.0) < scale.height(9.25) < scale.height(math.nan)
    assert scale.height(math.inf) == scale.height(100.0) < scale.height(50.0)
    assert scale_of(report(), 0) == Scale(100.0, 130.0)  # all are of floats: 125.5 and 130


@given(st.floats(-300, 300), st.floats(-300, 300))
def test_more_decibels_are_never_lower(one, other):
    scale = Scale(0.0, 60.0)
    low, high = sorted((one, other))
    assert 0 < scale.height(high) <= scale.height(low) < HEIGHT


def test_a_histogram_marks_what_the_codes_hold():
    assert holds(CODES) == (-1.28, 1.27)
    drawn = histogram_svg(HISTOGRAM, CODES, "values")
    # 420 pixels are −2 to 2: −1.28 is at 75.6 and 1.27 at 343.35.
    assert 'class="amax" d="M75.6 0' in drawn
    assert 'class="amax" d="M343.4 0' in drawn
    assert drawn.count('class="beyond"') == 2
    assert ">1.27<" in drawn
    assert 'class="amax"' not in histogram_svg(HISTOGRAM, None, "values")
    # Codes to ±3.2 and more are shown by a wider picture: −3.2 is its left edge.
    wide = histogram_svg(HISTOGRAM, replace(CODES, scale=0.025), "values")
    assert ">−3.2<" in wide
    assert wide.count('class="amax"') == 2
    assert 'class="beyond"' not in wide
    # Those to ±6.4 would leave little of it.
    assert 'class="amax"' not in histogram_svg(HISTOGRAM, replace(CODES, scale=0.05), "values")


@pytest.mark.parametrize(("low", "high"), [(0.0, 0.0), (math.nan, 1.0), (-math.inf, math.inf)])
def test_a_histogram_of_nothing_is_left_out(low, high):
    assert histogram_svg(Histogram(low, high, (1, 2), (1, 2)), CODES, "values") == ""


def test_numbers_as_words():
    assert [share(v) for v in (0.0, 1.0, 0.5, 0.99999, None)] == [
        *("0 %", "100 %", "50.00 %", "99.9990 %", "–"),
    ]
    assert [excess_text(v) for v in (6.25, -0.04, -3.0, math.inf, -math.inf, math.nan, None)] == [
        *("+6.2", "0.0", "−3.0", "∞", "none", "NaN", "–"),
    ]


# ------------------------------------------------------------------------ what lies beside it


def test_accuracy_is_shown_when_it_is_of_these_models(tmp_path):
    models = (
        Answers("model.onnx", "1" * 64, "onnxruntime", 27, 32, 0.3),
        Answers("int8.onnx", "3" * 64, "onnxruntime", 26, 31, 0.3, Changed(1, 30.0)),
    )
    path = tmp_path / "accuracy.json"
    write_accuracy(Accuracy(DATA, models), path)
    text = Page(html(report(), tmp_path)).text
    assert "84.38 %" in text
    assert "81.25 %" in text
    others = tuple(replace(model, sha256="9" * 64) for model in models)
    write_accuracy(Accuracy(DATA, others), path)
    text = Page(html(report(), tmp_path)).text
    assert "84.38 %" not in text
    assert "accuracy.json is left out: it is of other models" in text
    path.write_text("{")
    assert "accuracy.json is left out: it cannot be read" in Page(html(report(), tmp_path)).text


def test_an_engine_of_these_models_shows_its_kernels(tmp_path):
    source = write(tmp_path / "int8.onnx", "int8")
    build(source, BuildTarget(), tmp_path / "int8.engine")
    (tmp_path / "other.engine").write_bytes(b"no engine")
    made = report()
    here = replace(made.models[2], sha256=sha256_file(source))
    text = html(replace(made, models=(*made.models[:2], here)), tmp_path)
    page = Page(text)
    assert "TensorRT-RTX 1.7" in page.text
    assert "its manifest fits" in page.text
    assert "kernels in the order they run" in page.text
    assert "data:image/svg+xml;base64," in text
    assert "other.engine is left out: it cannot be read (not a TensorRT plan" in page.text
    assert str(tmp_path) not in text
    foreign = Page(html(made, tmp_path)).text
    assert "int8.engine is left out: it was built from another model" in foreign
    assert "TensorRT-RTX" not in foreign


def test_the_names_in_an_engine_are_text():
    evil = EVIL[0]
    data = Tensor(evil, evil, (1, 8), evil)
    kernel = Kernel(evil, "convolution", (evil,), (data,), (data,), {evil: 4}, (evil,))
    graph = KernelGraph((kernel,), 1)
    facts = EngineFacts(evil, 10, PlanHeader("rtx", evil), None, evil, (graph,), "")
    page = Page(engines_part((facts,)))
    assert not [tag for tag, _ in page.elements if tag == "script"]
    assert evil in page.text


# ----------------------------------------------------------------------------------- answers


def test_images_are_shown_with_both_answers(tmp_path):
    source = open_data("fashion-mnist:test")
    path = tmp_path / "r.html"
    write_html(report(), path, ImageRequest("fashion-mnist:test"), tmp_path)
    text = path.read_text()
    assert png_data(source.image(12)) in text
    page = Page(text)
    assert page.text.count("changed") >= 1
    assert "Image 12" in page.text
    assert "Trouser ✓" in page.text
    tops = re.findall(r'<table class="top">.*?</table>', text, re.S)
    assert len(tops) == 3
    assert ["changed" in top for top in tops] == [False, False, True]


def test_pictures_that_cannot_be_had_are_said(tmp_path):
    for request in (ImageRequest(str(tmp_path / "gone")), ImageRequest("fashion-mnist:train")):
        write_html(report(), tmp_path / "r.html", request, tmp_path)
        text = (tmp_path / "r.html").read_text()
        assert "No pictures" in Page(text).text
        assert "data:image/png" not in text
        assert str(tmp_path) not in text


def test_the_command_writes_the_page_of_a_broken_model_too(tmp_path):
    model = with_qdq(resnet())
    set_weight(model, "layer1.0.conv1.weight", 3.0 * weight(model, "layer1.0.conv1.weight"))
    files = [
        write_model(resnet(), tmp_path / "a.onnx"),
        write_model(model, tmp_path / "evil<b>.onnx", stage="int8"),
    ]
    page = tmp_path / "page.html"
    done = CliRunner().invoke(
        cli, ["compare", *map(str, files), "--images", "6", "--html", str(page)]
    )
    assert done.exit_code == 7, done.output
    text = Page(page.read_text()).text
    assert "a.onnx → evil<b>.onnx" in text
    assert "to blame" in text
    gone = CliRunner().invoke(
        cli, ["compare", *map(str, files), "--images", "6", "--html", str(tmp_path)]
    )
    assert gone.exit_code == OutputError.exit_code
    assert "Traceback" not in gone.output


def test_a_thumbnail_is_at_most_128_pixels():
    noise = np.random.default_rng(0).integers(0, 255, (600, 300, 3), np.uint8)
    assert len(png_data(noise)) < 40_000
