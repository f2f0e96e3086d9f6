"""A check as JUnit XML, which GitLab, Jenkins and most others show.

A metric is a test case in the class of its model, and so is each layer that got worse. What is
*not run* or *cannot be told* is an error, and not skipped: viewers paint skipped tests green.
Where the user allows it, it is skipped.

Source: the JUnit schema of Jenkins' xunit plugin (junit-10.xsd), the common part of the many.
"""

from __future__ import annotations

from collections.abc import Collection
from xml.etree import ElementTree

from deploy.gate.to_text import move_text
from deploy.gate.verdict import Outcome, Row, Verdict
from deploy.gate.words import METRICS, headline, row_values, sentence
from deploy.inspect.columns import plain

__all__ = ["verdict_to_junit"]

_ELEMENT = {
    Outcome.REGRESSED: "failure",
    Outcome.CANNOT_TELL: "error",
    Outcome.NOT_RUN: "error",
}
_NAMES = ("baseline", "now", "loss", "at least", "at most", "allowed")


def verdict_to_junit(verdict: Verdict, allowed: Collection[Outcome] = ()) -> str:
    """Return a check as the text of an XML file.

    Args:
        verdict: What came of it.
        allowed: Outcomes that the user takes for good.
    """
    suite = ElementTree.Element("testsuite", name=f"strata check {plain(verdict.baseline)}")
    if verdict.drift is not None:
        case = _case(suite, plain(verdict.baseline), "can be held against its baseline")
        text = f"{verdict.drift.problem}\nhint: {verdict.drift.hint}"
        _say(case, "error", verdict.drift.kind, (verdict.drift.problem, text))
    for row in verdict.rows:
        _row(suite, row, allowed)
    for move in verdict.layers:
        if move.worse:
            case = _case(suite, f"{move.model}.layers", move.tensor)
            text = f"own SQNR {move_text(move)}"
            _say(case, "failure", Outcome.REGRESSED.value, (text, text))
    out = ElementTree.SubElement(suite, "system-out")
    changed = [f"{c.model}: {c.image}: {c.label}, now {c.answer}" for c in verdict.changed]
    out.text = "\n".join(map(plain, [headline(verdict), *verdict.notes, *changed]))
    counts = {"tests": len(suite.findall("testcase"))}
    for key, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        counts[key] = len(suite.findall(f"testcase/{tag}"))
    root = ElementTree.Element("testsuites")
    for key, count in counts.items():
        suite.set(key, str(count))
        root.set(key, str(count))
    del root.attrib["skipped"]  # the schema has it on the suite alone
    root.append(suite)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _case(suite: ElementTree.Element, kind: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(suite, "testcase", classname=plain(kind), name=plain(name))


def _say(case: ElementTree.Element, tag: str, kind: str, texts: tuple[str, str]) -> None:
    """Add what went wrong: a message in a line, and a text."""
    message, text = texts
    element = ElementTree.SubElement(case, tag, message=plain(message))
    if tag != "skipped":
        element.set("type", kind)
    element.text = "\n".join(map(plain, text.splitlines()))


def _row(suite: ElementTree.Element, row: Row, allowed: Collection[Outcome]) -> None:
    case = _case(suite, row.model, METRICS[row.metric])
    tag = _ELEMENT.get(row.outcome)
    if tag is None:
        return
    if row.outcome in allowed:
        tag = "skipped"
    values = [f"{n} {v}" for n, v in zip(_NAMES, row_values(row), strict=True) if v != "–"]
    says = sentence(row)
    message = says or ", ".join(values)
    if not message.startswith(row.outcome.value):
        message = f"{row.outcome.value}: {message}"
    _say(case, tag, row.outcome.value, (message, "\n".join([*values, says])))
