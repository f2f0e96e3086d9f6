"""The top of the page: what is concluded of each step, and the chain of artifacts."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.comparison.output.numbers_text import db_phrase
from deploy.comparison.values.measures import Status
from deploy.comparison.values.report import Report, Subject
from deploy.comparison.values.verdict import Blame
from deploy.inspect.columns import size_text
from deploy.report_page.beside import Beside
from deploy.report_page.markup import facts, head_row, link, name, said, text
from deploy.report_page.words import precisions, step_name, verdict_text

__all__ = ["chain_part", "headline", "verdict_part"]

_LISTED = 5  # further layers to blame that are named in the verdict
_DIGITS = 12  # of a digest, where it stands in a line


def headline(report: Report) -> str:
    """Return the one sentence of the whole comparison."""
    if report.holds:
        judged = any(report.has_own(step) for step in range(report.steps))
        return "Every layer does what it should" if judged else "No bound is broken"
    blamed = len({blame.tensor for verdict in report.verdicts for blame in verdict.blame})
    if not blamed:
        return "A bound does not hold"
    return "One layer is to blame" if blamed == 1 else f"{blamed} layers are to blame"


def verdict_part(report: Report) -> str:
    """Return a card for each step."""
    return "".join(_card(report, step) for step in range(report.steps))


def _card(report: Report, step: int) -> str:
    verdict = report.verdicts[step]
    state = "holds" if verdict.holds else "fault"
    word = "holds" if verdict.holds else "does not hold"
    blame = "".join(_blame(found) for found in verdict.blame[:1])
    return (
        f'<article class="verdict {state}"><h3>{said(step_name(report, step))}'
        f'<span class="state">{word}</span></h3>'
        f'<p class="sentence">{_conclusion(report, step)}</p>{blame}'
        f"{_others(report, step)}<dl class=facts>{facts(_figures(report, step))}</dl></article>"
    )


def _conclusion(report: Report, step: int) -> str:
    blame = report.verdicts[step].blame
    if not blame:
        return said(verdict_text(report, step))
    worst = blame[0]
    others = f"; {len(blame) - 1} more after it" if len(blame) > 1 else ""
    named = link(_row_of(report, worst.tensor), worst.tensor)
    most = "most to blame" if others else "to blame"
    return f"{named} is {most}: {text(worst.reason.value)}{others}."


def _blame(blame: Blame) -> str:
    return (
        f"<p>{said(_sentence(blame.text))}</p>"
        f'<p class="next"><b>Next:</b> {said(blame.next_step)}</p>'
    )


def _sentence(phrase: str) -> str:
    return f"{phrase[:1].upper()}{phrase[1:]}" + ("" if phrase.endswith(".") else ".")


def _row_of(report: Report, tensor: str) -> int:
    return next((at for at, row in enumerate(report.rows) if row.tensor == tensor), 0)


def _others(report: Report, step: int) -> str:
    verdict = report.verdicts[step]
    named = [
        f"<li>{link(_row_of(report, blame.tensor), blame.tensor)} {text(blame.reason.value)}</li>"
        for blame in verdict.blame[1 : 1 + _LISTED]
    ]
    if not named:
        return ""
    rest = len(verdict.blame) - 1 - len(named)
    more = f"<li>and {rest} more</li>" if rest else ""
    return f'<ul class="others" aria-label="Further layers to blame">{"".join(named)}{more}</ul>'


def _figures(report: Report, step: int) -> Iterator[tuple[str, str]]:
    verdict = report.verdicts[step]
    compared = sum(row.cells[step].status is Status.COMPARED for row in report.rows)
    yield "tensors compared", f"{compared}"
    folded = sum(row.cells[step].into is not None for row in report.rows)
    if folded:
        yield "folded into another", f"{folded}"
    if report.has_own(step):
        yield "median own", db_phrase(report.median_db(own=True, step=step))
    yield "median inherited", db_phrase(report.median_db(own=False, step=step))
    if verdict.first is not None:
        yield "first at fault", link(_row_of(report, verdict.first), verdict.first)
    if verdict.first_below is not None:
        yield (
            "first below the floor",
            link(_row_of(report, verdict.first_below), verdict.first_below),
        )
    if report.changed is not None:
        yield "changed answers", f"{report.changed[step]} of {report.data.images}"


def chain_part(report: Report, beside: Beside) -> str:
    """Return the table of the models, from the reference to the last candidate."""
    measured = beside.accuracy is not None
    columns = [
        ("Model", False),
        ("Run by", False),
        ("Layers compute in", False),
        ("Size", True),
        *([("Top-1", True), ("Top-5", True)] if measured else []),
        *([("Right here", True)] if report.right is not None else []),
        *([("Changed here", True)] if report.changed is not None else []),
        ("SHA-256", False),
    ]
    rows = "".join(_model(report, at, beside) for at in range(len(report.models)))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Chain of models">'
        f'<table class="chain">{head_row(columns)}<tbody>{rows}</tbody></table></div>'
        f"{_about(report, beside)}{_digests(report)}"
    )


def _model(report: Report, at: int, beside: Beside) -> str:
    model, images = report.models[at], report.data.images
    cells = [
        f'<th scope="row">{name(model.name)}{_stage(model)}</th>',
        f"<td>{text(model.backend) or '–'}</td>",
        f"<td>{text(precisions(report, at))}</td>",
        f'<td class="num">{size_text(model.file_bytes) if model.file_bytes else "–"}</td>',
    ]
    if beside.accuracy is not None:
        found, count = beside.answers(model), max(beside.accuracy.data.images, 1)
        shares = (found.top1 / count, found.top5 / count) if found else ()
        texts = [f"{100 * value:.2f} %" for value in shares] or ["–", "–"]
        cells += [f'<td class="num">{value}</td>' for value in texts]
    if report.right is not None:
        cells.append(f'<td class="num">{report.right[at]} of {images}</td>')
    if report.changed is not None:
        changed = f"{report.changed[at - 1]} of {images}" if at else "–"
        cells.append(f'<td class="num">{changed}</td>')
    cells.append(f"<td><code>{text(model.sha256[:_DIGITS])}…</code></td>")
    return f"<tr>{''.join(cells)}</tr>"


def _stage(model: Subject) -> str:
    said_of_itself = model.stage and model.stage not in model.name
    return f' <span class="tag">{text(model.stage)}</span>' if said_of_itself else ""


def _about(report: Report, beside: Beside) -> str:
    sentences = []
    if beside.accuracy is not None:
        data = beside.accuracy.data
        sentences.append(f"Top-1 and top-5 on {data.images:,} images of {said(data.name)}.")
    if report.right is not None or report.changed is not None:
        sentences.append(
            f"“Here”: on the {report.data.images} images of this comparison; changed against "
            "the first model."
        )
    sentences += [f"{said(note)}." for note in beside.notes]
    return f'<p class="soft">{" ".join(sentences)}</p>' if sentences else ""


def _digests(report: Report) -> str:
    rows = []
    for model in report.models:
        parents = "".join(
            f"<br>from {text(role)} <code>{text(digest)}</code>"
            for role, digest in (model.parents or {}).items()
        )
        rows.append(
            f"<div><dt>{name(model.name)}</dt><dd><code>{text(model.sha256)}</code>"
            f"{parents}</dd></div>"
        )
    data = report.data
    rows.append(
        f"<div><dt>images</dt><dd>{data.images} of {said(data.name)} "
        f"<code>{text(data.sha256)}</code><br>{said(data.preprocess or 'came prepared')}</dd></div>"
    )
    return (
        "<details><summary>Full digests: what was made from what</summary>"
        f'<dl class="digests">{"".join(rows)}</dl></details>'
    )
