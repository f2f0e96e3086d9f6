"""What the gate writes: text, JSON, JUnit, Markdown; all of every outcome."""

import json
import re
from xml.etree import ElementTree

import pytest

from deploy.gate.rules import Rules
from deploy.gate.to_json import verdict_to_json
from deploy.gate.to_junit import verdict_to_junit
from deploy.gate.to_markdown import verdict_to_markdown
from deploy.gate.to_text import verdict_text
from deploy.gate.verdict import ChangedImage, Drift, LayerMove, Outcome, Row, Verdict
from deploy.images import DataRecord

DATA = DataRecord("fashion-mnist:test", "d" * 64, 10_000, None)
HOSTILE = "a|b`<script>&\x1b[31m\n](x)"


def row(metric, outcome, **more):
    values = {"before": 90.0, "now": 89.0, "loss": 1.0, "at_least": 0.4, "at_most": 1.5}
    unit = "dB" if metric in ("sqnr", "layers") else "points"
    return Row("int8.onnx", metric, outcome, unit, 0.25, **(values | more))


EVERYTHING = Verdict(
    "baseline.json",
    Rules(),
    DATA,
    rows=(
        row("top1", Outcome.REGRESSED, p=1e-5, note="140 lost, 40 gained"),
        row("agreement", Outcome.CANNOT_TELL, needed=23_456),
        row("sqnr", Outcome.HELD, loss=-0.001),
        row("layers", Outcome.REGRESSED, before=None, now=None, note="1 of 9 layers fell"),
        Row("int8.engine", "run", Outcome.NOT_RUN, "", 0.0, note="no GPU"),
    ),
    layers=(
        LayerMove("int8.onnx", "layer1.0.conv1", 43.4, 41.3),
        LayerMove("int8.onnx", "layer1.0.conv2", 43.4, None),
        LayerMove("int8.onnx", "layer2.0.conv1", 43.4, 44.4),
    ),
    changed=(ChangedImage("int8.onnx", "shirts/12.jpg", "Shirt", "Coat"),),
    notes=("onnxruntime is 1.33 here",),
)
HELD = Verdict("baseline.json", Rules(), DATA, rows=(row("top1", Outcome.HELD),))
DRIFTED = Verdict(
    "baseline.json",
    Rules(),
    drift=Drift("other labels", "1 of 9 images …: shirts/12.jpg", "restore the labels", 12),
)
NASTY = Verdict(
    HOSTILE,
    Rules(),
    DATA,
    rows=(Row(HOSTILE, "run", Outcome.NOT_RUN, "", 0.0, note=HOSTILE),),
    layers=(LayerMove(HOSTILE, HOSTILE, 40.0, 30.0),),
    changed=(ChangedImage(HOSTILE, HOSTILE, HOSTILE, HOSTILE),),
    notes=(HOSTILE,),
)
ALL = [EVERYTHING, HELD, DRIFTED, NASTY, Verdict("b.json", Rules())]


def test_the_worst_outcome_counts():
    assert EVERYTHING.outcome is Outcome.REGRESSED
    assert EVERYTHING.counts == {
        Outcome.REGRESSED: 2,
        Outcome.NOT_RUN: 1,
        Outcome.CANNOT_TELL: 1,
        Outcome.HELD: 1,
    }
    assert HELD.outcome is Outcome.HELD
    assert DRIFTED.outcome is Outcome.DRIFT
    assert Verdict("b.json", Rules()).outcome is Outcome.NOT_RUN  # nothing is not green


@pytest.mark.parametrize("verdict", ALL)
def test_text_fits_a_terminal_and_has_no_control_characters(verdict):
    text = verdict_text(verdict)
    assert max(map(len, text.splitlines())) <= 100
    assert all(c.isprintable() for line in text.split("\n") for c in line)


def test_text_says_what_matters():
    text = verdict_text(EVERYTHING)
    assert text.startswith(
        "baseline.json: regressed: 2 regressed, 1 not run, 1 cannot tell, 1 held"
    )
    assert "10,000 images of\nfashion-mnist:test" in text
    assert "140 lost, 40 gained; McNemar's p 1e-05" in text
    assert "some 24,000 images would tell" in text
    assert "int8.engine, run: not run: no GPU" in text
    assert "43.40 → 41.30 dB (-2.10)" in text
    assert "43.40 dB → gone" in text
    assert "Shirt, now Coat" in text
    assert "+0.00" in text
    assert "-0.00" not in text


@pytest.mark.parametrize("verdict", ALL)
def test_json_is_json(verdict):
    value = json.loads(json.dumps(verdict_to_json(verdict), allow_nan=False))
    assert value["schema"] == "strata.check/1"
    assert value["outcome"] == verdict.outcome.value
    assert len(value["rows"]) == len(verdict.rows)


# The rules of the usual schema, junit-10.xsd of Jenkins' xunit plugin, for what a check writes:
# element → attributes that it may have, those that it must have, and what may be in it.
SCHEMA = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set(), {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors", "group", "time", "skipped", "timestamp"}
        | {"hostname", "id", "package", "file", "log", "url"},
        {"name", "tests", "failures", "errors"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": (
        {"name", "time", "classname", "group"},
        {"name"},
        {"skipped", "error", "failure", "system-out", "system-err"},
    ),
    "failure": ({"type", "message"}, set(), set()),
    "error": ({"type", "message"}, set(), set()),
    "skipped": ({"type", "message"}, set(), set()),
    "system-out": (set(), set(), set()),
}
COUNTS = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}


def faults(element):
    """Say what breaks the schema's rules."""
    allowed, needed, inside = SCHEMA.get(element.tag, (set(), set(), None))
    if inside is None:
        return [f"unknown element {element.tag}"]
    found = [f"{element.tag}: attribute {name}" for name in set(element.attrib) - allowed]
    found += [f"{element.tag}: no {name}" for name in needed - set(element.attrib)]
    for name, tag in COUNTS.items():
        if name in element.attrib and int(element.attrib[name]) != len(list(element.iter(tag))):
            found.append(f"{element.tag}: {name} is {element.attrib[name]}")
    for child in element:
        found += [] if child.tag in inside else [f"{child.tag} in {element.tag}"]
        found += faults(child)
    return found


@pytest.mark.parametrize("allowed", [(), (Outcome.NOT_RUN, Outcome.CANNOT_TELL)])
@pytest.mark.parametrize("verdict", ALL)
def test_junit_keeps_to_the_schema(verdict, allowed):
    text = verdict_to_junit(verdict, allowed)
    root = ElementTree.fromstring(text)
    assert root.tag == "testsuites"
    assert faults(root) == []
    assert text.startswith('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites')


def test_the_rules_of_the_schema_find_what_breaks_them():
    root = ElementTree.fromstring(verdict_to_junit(EVERYTHING))
    suite = root[0]
    suite.set("tests", "99")
    suite[0].set("colour", "red")
    ElementTree.SubElement(suite[1], "testsuite")
    del suite[2].attrib["name"]
    del suite.attrib["errors"]
    ElementTree.SubElement(suite, "oops")
    assert sorted(faults(root)) == [
        *("oops in testsuite", "testcase: attribute colour", "testcase: no name"),
        *("testsuite in testcase", "testsuite: no errors"),
        *("testsuite: no errors", "testsuite: no failures", "testsuite: no name"),
        *("testsuite: no tests", "testsuite: tests is 99", "unknown element oops"),
    ]


def test_junit_is_red_unless_all_held():
    def counts(verdict, allowed=()):
        root = ElementTree.fromstring(verdict_to_junit(verdict, allowed))
        return tuple(int(root[0].get(key)) for key in ("tests", "failures", "errors", "skipped"))

    assert counts(HELD) == (1, 0, 0, 0)
    assert counts(DRIFTED) == (1, 0, 1, 0)
    assert counts(EVERYTHING) == (7, 4, 2, 0)
    allowed = (Outcome.NOT_RUN, Outcome.CANNOT_TELL)
    assert counts(EVERYTHING, allowed) == (7, 4, 0, 2)
    root = ElementTree.fromstring(verdict_to_junit(EVERYTHING))
    case = root.find(".//testcase[@name='layer1.0.conv1']")
    assert case.get("classname") == "int8.onnx.layers"
    assert "41.30 dB" in case[0].get("message")
    case = root.find(".//testcase[@classname='int8.engine']")
    assert case[0].get("message") == "not run: no GPU"


def test_markdown_has_whole_tables():
    text = verdict_to_markdown(EVERYTHING)
    assert text.startswith("### ❌ Accuracy gate: regressed")
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 3
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
        assert table.splitlines()[1].startswith("| ---")
    assert "- `int8.engine`: not run: no GPU" in text
    assert "`layer1.0.conv1`" in text
    assert "<summary>1 image is answered wrongly now</summary>" in text
    assert verdict_to_markdown(HELD).startswith("### ✅")
    assert "restore the labels" in verdict_to_markdown(DRIFTED)


def test_markdown_lets_no_name_out():
    text = verdict_to_markdown(NASTY)
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.count("`") % 2 == 0
            assert all("|" not in cell for cell in line.split("`")[1::2])
    outside = re.sub(r"`[^`]*`", "", re.sub(r"\\.", "", text))  # what is taken for Markdown
    outside = re.sub(r"</?(sub|details|summary)>|^> ", "", outside, flags=re.MULTILINE)
    assert "script" in outside
    assert not re.search("[<>`]", outside)
