"""Write ``report.html``: the parts, the style and the script put into one file."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from pathlib import Path
from string import Template

from core.artifacts import write_text
from deploy.comparison.values.report import Report, cautions
from deploy.images import ImageRequest
from deploy.report_page.answers_part import answers_part
from deploy.report_page.beside import look_beside
from deploy.report_page.depth_plot import depth_plots
from deploy.report_page.engine_part import engines_part
from deploy.report_page.markup import embedded, said, text
from deploy.report_page.row_facts import page_data
from deploy.report_page.stage_part import stage_table
from deploy.report_page.table_part import filters, step_style, tensor_table
from deploy.report_page.thumbnails import Thumbnails, thumbnails
from deploy.report_page.verdict_part import chain_part, headline, verdict_part
from deploy.report_page.words import step_name
from deploy.report_page.worst_part import worst_part

__all__ = ["report_html", "write_html"]


def write_html(report: Report, path: Path, request: ImageRequest, folder: Path) -> None:
    """Write a comparison as one page, whole or not at all.

    Args:
        report: What to show.
        path: The file.
        request: Where the images of the comparison are.
        folder: Of the models; what lies there and belongs to them is shown too: an
            accuracy.json, and engines with their manifests.

    Raises:
        OutputError: It cannot be written.
    """
    write_text(path, report_html(report, thumbnails(report, request), folder))


def report_html(report: Report, pictures: Thumbnails, folder: Path) -> str:
    """Return the page: the same report and files give the same text."""
    beside = look_beside(report, folder)
    style = _part("page.css") + step_style(report)
    script = _part("page.js")
    engines = engines_part(beside.engines)
    steps = range(report.steps)
    last = steps[-1] if report.holds else next(s for s in steps if not report.verdicts[s].holds)
    return Template(_part("page.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        data=embedded(page_data(report)),
        title=text(f"{report.reference.name} → {report.candidate.name}"),
        heading=" → ".join(said(model.name) for model in report.models),
        state="holds" if report.holds else "fault",
        headline=headline(report),
        tensors=len(report.rows),
        images=report.data.images,
        source=said(report.data.name),
        cautions="".join(_caution(sentence) for sentence in cautions(report)),
        steps=_choices(report, last) if report.steps > 1 else "",
        verdicts=verdict_part(report),
        chain=chain_part(report, beside),
        depth=_by_step(report, [_depth(report, step) for step in steps]),
        worst=_by_step(report, [worst_part(report, step) for step in steps]),
        answers=answers_part(report, pictures),
        engines=f'<section id="engine"><h2>Engine</h2>{engines}</section>' if engines else "",
        engine_link='<a href="#engine">Engine</a>' if engines else "",
        filters=filters(report),
        table=tensor_table(report),
        all_steps=_all_steps(report),
    )


def _caution(sentence: str) -> str:
    return f'<p class="caution"><b>Caution:</b> {said(sentence)}</p>'


def _depth(report: Report, step: int) -> str:
    return f'<div class="plot" data-plot="{step}">{depth_plots(report, step)}</div>' + (
        f'<div class="bystage">{stage_table(report, step)}</div>'
    )


def _by_step(report: Report, parts: list[str]) -> str:
    """Return parts of which a script shows one at a time; without it, one after the other."""
    hidden = "" if report.steps > 1 else " hidden"
    return "".join(
        f'<div data-of-step="{step}"><h3 class="of-step{hidden}">'
        f"{said(step_name(report, step))}</h3>{part}</div>"
        for step, part in enumerate(parts)
    )


def _choices(report: Report, chosen: int) -> str:
    """Return a choice of steps for the bar on top."""
    options = "".join(
        f'<label><input type="radio" name="step" value="{step}"'
        f"{' checked' if step == chosen else ''}><span>"
        f"<bdi>{text(report.models[step + 1].name, _SHORT)}</bdi>"
        f"{'' if report.verdicts[step].holds else _BROKEN}</span></label>"
        for step in range(report.steps)
    )
    return f'<fieldset class="steps js"><legend>Step to</legend>{options}</fieldset>'


_SHORT = 32  # characters of a model in the bar
_BROKEN = ' <b class="cross">✕<span class="hidden"> does not hold</span></b>'


def _all_steps(report: Report) -> str:
    if report.steps == 1:
        return ""
    return '<label class="check"><input type="checkbox" name="all"> all steps</label>'


def _policy(style: str, script: str) -> str:
    """Return a policy under which nothing runs or is fetched but what is in the page."""
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _source(part: str) -> str:
    digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _part(name: str) -> str:
    return files("deploy.report_page").joinpath(name).read_text(encoding="utf-8")
