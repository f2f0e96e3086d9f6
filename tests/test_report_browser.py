"""The page of a comparison in a real Chromium: it is drawn, it answers, it says no error."""

import re

import chromium
import pytest
from report_values import hostile, large, report

from deploy.images import ImageRequest
from deploy.report_page.page import write_html

pytestmark = pytest.mark.skipif(
    chromium.BINARY is None, reason="no chromium, google-chrome or chrome is on the PATH"
)

VISIBLE = """(selector) => {
  const found = Array.from(document.querySelectorAll(selector));
  return found.filter((each) => each.getClientRects().length).length; }"""
# Whether the middle of an element is in the window, with nothing over it.
ON_TOP = """(selector) => {
  const e = document.querySelector(selector), b = e.getBoundingClientRect();
  return e.contains(document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2)); }"""
# Contrast of two colours, by the relative luminance of WCAG 2.2.
CONTRAST = """(ink, paper) => {
  const probe = document.body.appendChild(document.createElement("i"));
  const light = (name) => {
    probe.style.color = `var(--${name})`;
    const parts = getComputedStyle(probe).color.match(/[0-9.]+/g).slice(0, 3).map(Number);
    const linear = parts.map((c) => c / 255).map(
      (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]; };
  const [a, b] = [light(ink), light(paper)].sort((x, y) => y - x);
  probe.remove();
  return (a + 0.05) / (b + 0.05); }"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    started = chromium.Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, made in {"plain": report(), "evil": hostile(), "large": large()}.items():
        write_html(made, folder / f"{name}.html", ImageRequest(), folder)
    return folder


@pytest.fixture
def page(browser, files):
    return browser.open(files / "plain.html")


def visible(page, selector):
    return page.run(f"({VISIBLE})({selector!r})")


def shown_rows(page):
    return page.run(
        "Array.from(document.querySelectorAll('#all tbody tr')).filter((r) => !r.hidden)"
        ".map((r) => r.querySelector('.name').textContent)"
    )


def choose(page, **fields):
    """Fill in filters, as a hand would."""
    for name, value in fields.items():
        page.run(
            f"(() => {{ const f = document.forms.filters.elements[{name!r}];"
            f"if (f.type === 'checkbox') f.checked = {str(bool(value)).lower()};"
            f"else f.value = {value!r};"
            "f.dispatchEvent(new Event('input', {bubbles: true})); })()"
        )


def middle(page, selector, index=0):
    """Return the middle of an element in the window, scrolled into view."""
    return page.run(
        f"(() => {{ const e = document.querySelectorAll({selector!r})[{index}];"
        "e.scrollIntoView({block: 'center', behavior: 'instant'});"
        "const b = e.getBoundingClientRect();"
        "return [b.x + b.width / 2, b.y + b.height / 2]; })()"
    )


def test_it_opens_without_a_word_in_the_console(browser, files):
    for name in ("plain", "evil", "large"):
        page = browser.open(files / f"{name}.html")
        assert page.run("document.documentElement.classList.contains('on')"), name
        assert page.console == [], name
        assert page.run("window.hacked === undefined")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("nosuchfunction();", "nosuchfunction|Content Security Policy"),
        ("console.error('seen');", "seen|Content Security Policy"),
    ],
)
def test_an_error_would_be_seen_and_a_changed_script_does_not_run(
    browser, files, tmp_path, change, complaint
):
    text = (files / "plain.html").read_text()
    (tmp_path / "changed.html").write_text(text.replace('"use strict";', change, 1))
    page = browser.open(tmp_path / "changed.html")
    assert any("Content Security Policy" in line for line in page.console)
    assert not page.run("document.documentElement.classList.contains('on')")
    # Without the policy the script runs, and what goes wrong in it is told.
    bare = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
    (tmp_path / "bare.html").write_text(bare.replace('"use strict";', change, 1))
    page = browser.open(tmp_path / "bare.html")
    assert any(re.search(complaint, line) for line in page.console), page.console


def test_a_hostile_attribute_or_request_is_refused(browser, files, tmp_path):
    text = (files / "plain.html").read_text()
    extra = '<img src="https://example.invalid/x.png" onerror="window.hacked=1" alt="">'
    (tmp_path / "worse.html").write_text(text.replace("<main>", f"<main>{extra}", 1))
    page = browser.open(tmp_path / "worse.html")
    assert page.run("window.hacked === undefined")
    assert any("Content Security Policy" in line for line in page.console)


def test_the_plot_is_drawn(page):
    for kind in ("inherited", "own", "expected", "bound"):
        length, width = page.run(
            "(() => { const p = document.querySelector("
            f"'[data-plot=\"1\"] .wide .{kind}:not(.exact)');"
            "return [p.getTotalLength(), p.getBoundingClientRect().width]; })()"
        )
        assert length > 0 or kind == "own"
        assert width > 0, kind
    assert visible(page, "svg.depth.wide") == 1  # the other step waits
    assert visible(page, "svg.depth.narrow") == 0
    assert visible(page, "svg.histogram") == 1
    assert page.run("getComputedStyle(document.querySelector('.own')).strokeLinecap") == "round"


def test_pointing_shows_a_tensor_and_a_click_goes_to_its_row(page):
    x, y = middle(page, '[data-plot="1"] a', 2)
    page.point(x, y)
    assert page.run("document.querySelector('#one .name').textContent") == "layer1.0.relu"
    assert visible(page, '[data-plot="1"] .wide .cursor path') == 1
    page.point(x, y, click=True)
    assert page.run("location.hash") == "#t3"
    assert page.run("document.activeElement.closest('tr').id") == "t3"
    assert page.run("document.querySelector('tr.chosen').id") == "t3"
    assert page.run(f"({ON_TOP})('#t3 a')")


def test_a_row_leads_back_to_the_plot(page):
    page.point(*middle(page, "#t5 a"), click=True)
    assert page.run("document.activeElement.dataset.plot") == "1"
    assert page.run("document.querySelector('#one .name').textContent") == "layer2.0.relu"
    # One that is only in the first step shows that.
    page.point(*middle(page, "#t2 a"), click=True)
    assert page.run("document.activeElement.dataset.plot") == "1"


def test_the_plot_is_walked_by_keys(page):
    page.run("document.querySelector('[data-plot=\"1\"]').focus()")
    said = []
    for key in ("Home", "ArrowRight", "ArrowRight", "PageDown", "End", "ArrowLeft", "PageUp"):
        page.key(key)
        said.append(page.run("document.activeElement.getAttribute('aria-valuetext')"))
    assert [text.partition(":")[0] for text in said] == [
        *("input", "layer1.0.bn1", "layer1.0.relu", "layer2.0.conv1"),
        *("logits", "layer2.0.relu", "layer2.0.conv1"),
    ]
    assert said[1] == "layer1.0.bn1: own 40.50 dB, inherited 33.00 dB"
    page.key("Enter")
    assert page.run("location.hash") == "#t4"


def test_filters_keep_what_was_asked_for(page):
    assert len(shown_rows(page)) == 7
    choose(page, text="layer RELU")
    assert shown_rows(page) == ["layer1.0.relu", "layer2.0.relu"]
    choose(page, stage="layer2")
    assert shown_rows(page) == ["layer2.0.relu"]
    assert page.run("document.querySelector('output').textContent") == "1 of 7 tensors"
    choose(page, text="", stage="", blame=True)
    assert shown_rows(page) == ["layer2.0.conv1", "logits"]
    choose(page, blame=False, operator="Gemm", precision="INT8")
    assert shown_rows(page) == ["logits"]
    choose(page, operator="", precision="", status="absent")
    assert shown_rows(page) == ["layer1.0.conv1"]
    # A link to a row that is filtered away brings it back.
    page.point(*middle(page, ".verdict .sentence a"), click=True)
    assert page.run("document.activeElement.closest('tr').id") == "t4"
    page.run("new Promise((done) => setTimeout(done, 20))")
    assert len(shown_rows(page)) == 7
    page.point(*middle(page, '[data-of-step="1"] a[data-stage="layer1"]'), click=True)
    page.run("new Promise((done) => setTimeout(done, 20))")
    assert shown_rows(page) == ["layer1.0.conv1", "layer1.0.bn1", "layer1.0.relu"]


def test_columns_sort_by_value(page):
    heads = page.run(
        "Array.from(document.querySelectorAll('#all tr + tr th')).map((h) =>"
        " h.getClientRects().length ? h.textContent : '')"
    )
    at = heads.index("Own, dB")
    middle_of = middle(page, "#all tr + tr th button", at)
    page.point(*middle_of, click=True)
    order = ["logits", "layer2.0.conv1", "layer1.0.bn1", "layer2.0.relu"]  # NaN is the worst
    assert shown_rows(page)[:4] == order
    assert shown_rows(page)[-1] == "layer1.0.conv1"  # what is not known comes last
    page.point(*middle_of, click=True)
    assert shown_rows(page)[2:6] == order[::-1]
    assert shown_rows(page)[-1] == "layer1.0.conv1"
    sorts = page.run("Array.from(document.querySelectorAll('[aria-sort]')).map((h) => h.ariaSort)")
    assert sorts == ["descending"]


def test_every_step_can_be_chosen(page):
    assert page.run("document.querySelector('.steps input:checked').value") == "1"  # the fault
    assert visible(page, ".card.fault") == 2
    page.point(*middle(page, ".steps span"), click=True)
    assert page.run("document.querySelector('.steps input:checked').value") == "0"
    assert visible(page, ".card.fault") == 0
    assert visible(page, '[data-plot="0"] svg') == 1
    assert visible(page, '[data-plot="1"] svg') == 0
    assert visible(page, "#t4 td.s0") > 0
    assert visible(page, "#t4 td.s1") == 0
    choose(page, all=True)
    assert visible(page, "#t4 td.s1") == visible(page, "#t4 td.s0") == 2


def test_all_is_there_without_javascript(browser, files):
    page = browser.open(files / "plain.html", scripts=False)
    assert visible(page, "svg.depth.wide") == 2
    assert visible(page, "#all tbody tr") == 7
    assert visible(page, ".js") == 0
    assert visible(page, "#t4 td.s0") > 2
    assert visible(page, "#t4 td.s1") > 2
    page.point(*middle(page, '[data-plot="1"] a', 2), click=True)
    assert page.run("document.querySelector(':target').id") == "t3"
    assert page.console == []


@pytest.mark.parametrize("name", ["plain", "evil", "large"])
def test_a_phone_needs_no_sideways_scrolling(browser, files, name):
    page = browser.open(files / f"{name}.html", width=390, height=844)
    assert page.run("document.documentElement.scrollWidth") == 390
    assert visible(page, "svg.depth.narrow") == 1
    assert visible(page, "svg.depth.wide") == 0
    assert page.console == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_ink_is_read_on_every_paper(page, scheme):
    page.media(prefers_color_scheme=scheme)
    assert page.run(f"({CONTRAST})('ink', 'paper')") > 12
    for ink in ("ink", "soft", "inherited", "own", "fault", "holds"):
        for paper in ("paper", "wash", "fault-wash"):
            assert page.run(f"({CONTRAST})({ink!r}, {paper!r})") >= 4.5, (ink, paper)
    for mark in ("expected", "bound"):
        assert page.run(f"({CONTRAST})({mark!r}, 'wash')") >= 3.0
    assert page.run(f"({CONTRAST})('rule', 'paper')") < 4.5  # the measure can fail


def test_the_theme_can_be_turned(page):
    page.media(prefers_color_scheme="light")
    colour = "getComputedStyle(document.body).backgroundColor"
    assert page.run(colour) == "rgb(255, 255, 255)"
    page.point(*middle(page, "#theme"), click=True)
    assert page.run(colour) == "rgb(20, 22, 26)"
    assert page.run("document.getElementById('theme').ariaPressed") == "true"
    page.point(*middle(page, "#theme"), click=True)
    assert page.run(colour) == "rgb(255, 255, 255)"


def test_a_link_from_elsewhere_opens_at_its_row(browser, files):
    page = browser.open(files / "large.html", fragment="t444")
    page.run("new Promise((done) => setTimeout(done, 50))")
    assert page.run("document.querySelector('tr.chosen').id") == "t444"
    assert page.run(f"({ON_TOP})('#t444 a')")
