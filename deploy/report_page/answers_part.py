"""Images whose answer changed on the way, with the five likeliest classes of each model."""

from __future__ import annotations

from collections.abc import Iterator

from deploy.comparison.values.report import Answer, Report
from deploy.report_page.markup import name, said, text
from deploy.report_page.thumbnails import Thumbnails

__all__ = ["answers_part"]

_BAR = 56


def answers_part(report: Report, pictures: Thumbnails) -> str:
    """Return a card for each image that is shown."""
    if report.changed is None:
        return '<p class="soft">The network gives no classes.</p>'
    if not report.answers:
        return (
            f'<p class="soft">All {report.data.images} images get the same answer from all '
            f"{len(report.models)} models.</p>"
        )
    counts = ", ".join(
        f"{count} in {said(model.name)}"
        for model, count in zip(report.models[1:], report.changed, strict=True)
    )
    why = f" No pictures: {said(pictures.unknown)}." if pictures.unknown else ""
    broad = " broad" if len(report.models) > 2 else ""
    cards = "".join(_card(report, answer, pictures) for answer in report.answers)
    return (
        f'<p class="soft">Of {report.data.images} images another answer than the reference\'s: '
        f"{counts}.{why}</p><div class='answers{broad}'>{cards}</div>"
    )


def class_name(report: Report, number: int) -> str:
    """Return what a class is called."""
    return report.classes[number] if 0 <= number < len(report.classes) else f"class {number}"


def _card(report: Report, answer: Answer, pictures: Thumbnails) -> str:
    truth = "" if answer.label is None else f", {class_name(report, answer.label)}"
    title = f"Image {answer.image}{truth}"
    data = pictures.data.get(answer.image)
    picture = f'<img src="{data}" alt="{text(title)}" width="112">' if data else ""
    label = (
        ""
        if answer.label is None
        else f"<p>labelled <b>{name(class_name(report, answer.label))}</b></p>"
    )
    tops = "".join(_models(report, answer))
    return (
        f'<article class="answer"><div class="picture">{picture}<h3>Image {answer.image}</h3>'
        f'{label}</div><div class="tops">{tops}</div></article>'
    )


def _models(report: Report, answer: Answer) -> Iterator[str]:
    first = answer.top[0][0][0] if answer.top and answer.top[0] else None
    for model, top in zip(report.models, answer.top, strict=True):
        changed = bool(top) and top[0][0] != first
        tag = ' <span class="mark">changed</span>' if changed else ""
        rows = "".join(_row(report, answer, entry) for entry in top)
        yield (
            f'<table class="top"><caption>{name(model.name)}{tag}</caption>'
            f'<thead class="hidden"><tr><th scope="col">class</th><th scope="col">bar</th>'
            f'<th scope="col">probability</th></tr></thead><tbody>{rows}</tbody></table>'
        )


def _row(report: Report, answer: Answer, entry: tuple[int, float]) -> str:
    number, probability = entry
    right = number == answer.label
    mark = ' <span class="right">✓<span class="hidden"> right</span></span>' if right else ""
    width = _BAR * min(max(probability, 0.0), 1.0) if probability == probability else 0.0
    return (
        f'<tr><th scope="row">{name(class_name(report, number))}{mark}</th><td>'
        f'<svg class="bar" viewBox="0 0 {_BAR} 8" width="{_BAR}" height="8" aria-hidden="true">'
        f'<rect class="rail" width="{_BAR}" height="8" rx="2"/>'
        f'<rect width="{width:.1f}" height="8" rx="2"/></svg></td>'
        f'<td class="num">{100 * probability:.1f} %</td></tr>'
    )
