"""A summary for people: what they want to read at the end of ``make export``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from deploy.comparison.output.numbers_text import db_phrase, db_text, shape_text
from deploy.comparison.values.report import Report
from deploy.engines.manifest import Manifest
from deploy.evaluation.accuracy import Accuracy, Answers
from deploy.inspect.columns import fit, plain
from deploy.summaries.summary import Stage, Summary

__all__ = ["summary_view"]

_WORST = 5
_ONCE = "train"  # its result lies elsewhere and serves every later run
_FLAVOURS = {"rtx": "TensorRT-RTX", "tensorrt": "TensorRT"}
_PRECISIONS = {"int8": "INT8", "float16": "FP16", "float32": "FP32"}
_NAME_WIDTH, _OPERATOR_WIDTH = 36, 17
_SHORT = 12  # digits of a digest that are shown


def summary_view(summary: Summary) -> RenderableType:
    """Return a summary as something that a rich console of 100 columns prints."""
    return Group(
        Text.assemble(("Strata  ", "bold cyan"), (str(summary.folder), "bold")),
        "",
        _facts(_origin(summary)),
        *_section("Accuracy", _accuracy(summary.accuracy)),
        *_section("Layers", _layers(summary.layers)),
        *_section("Engine", _engines(summary)),
        *_section("Stages", _stages(summary.stages)),
    )


def _section(title: str, content: RenderableType) -> Iterator[RenderableType]:
    yield ""
    yield Text(title, "bold")
    yield Padding(content, (0, 0, 0, 2))


def _missing(what: str, command: str) -> Text:
    return Text(f"not made: {what} ({command})", "yellow")


def _facts(rows: Iterable[tuple[str, str]]) -> Table:
    """Return (key, text) as two columns."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, text in rows:
        table.add_row(Text(key), Text(text))
    return table


def _origin(summary: Summary) -> Iterator[tuple[str, str]]:
    """Say which weights and which data were used."""
    weights = summary.weights
    if weights:
        parts = [weights.get("name", "?")]
        if "top1" in weights:
            of = f" of {weights['top1_of']}" if "top1_of" in weights else ""
            parts.append(f"top-1 {_share(weights['top1'])}{of} in PyTorch")
        if "sha256" in weights:
            parts.append(f"sha256 {weights['sha256'][:_SHORT]}…")
        yield "weights", plain(", ".join(parts))
    else:
        yield "weights", "unknown: no ONNX file here says where they come from"
    table = summary.calibration
    if table:
        yield (
            "calibrated",
            f"on {table.images:,} images (sha256 {table.images_sha256[:_SHORT]}…), "
            f"{len(table.tensors)} tensors by {table.method}",
        )
    for caveat in summary.caveats:
        yield "caution", plain(caveat)
    if summary.accuracy:
        data = summary.accuracy.data
        yield (
            "tested",
            f"on {data.images:,} images of {plain(data.name)} (sha256 {data.sha256[:_SHORT]}…)",
        )


def _share(text: str) -> str:
    """Write 0.8741 as 87.41 %; anything else as it is."""
    try:
        return f"{100 * float(text):.2f} %"
    except ValueError:
        return text


def _table(*columns: str, left: int) -> Table:
    """Return an empty table: ``left`` columns of words, then numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for name in columns[:left]:
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in columns[left:]:
        table.add_column(name, justify="right", no_wrap=True)
    return table


def _accuracy(accuracy: Accuracy | None) -> RenderableType:
    if accuracy is None:
        return _missing("accuracy.json", "strata evaluate, on labelled images")
    table = _table("model", "top-1", "top-5", "loss", "changed answers", "logits dB", left=1)
    for answers in accuracy.models:
        table.add_row(*_answers(answers, accuracy.data.images))
    return table


def _answers(answers: Answers, images: int) -> Iterator[Text]:
    yield Text(fit(answers.model, _NAME_WIDTH))
    yield Text(f"{100 * answers.top1 / images:.2f} %", "bold")
    yield Text(f"{100 * answers.top5 / images:.2f} %")
    yield Text(f"{answers.loss:.4f}")
    changed = answers.changed
    yield Text(f"{changed.answers:,} ({100 * changed.answers / images:.2f} %)" if changed else "–")
    yield Text(db_text(changed.sqnr_db) if changed else "–")


def _layers(report: Report | None) -> RenderableType:
    if report is None:
        return _missing("layers.json", "strata compare")
    own = report.has_own()
    kind = "own" if own else "inherited"
    table = _table(f"worst by {kind} error", "operator", "shape", "inherited dB", "own dB", left=3)
    for row in report.worst(_WORST, own=own):
        inherited, fed = row.cells[-1].inherited, row.cells[-1].own
        table.add_row(
            Text(fit(row.tensor, _NAME_WIDTH)),
            Text(fit(row.op, _OPERATOR_WIDTH)),
            Text(shape_text(row)),
            Text(db_text(inherited.sqnr_db if inherited else None)),
            Text(db_text(fed.sqnr_db if fed else None)),
        )
    head = (
        f"{report.candidate.name} against {report.reference.name}, "
        f"{len(report.compared())} tensors on {report.data.images} images; median inherited "
        f"{db_phrase(report.median_db(own=False))}, own {db_phrase(report.median_db(own=True))}"
    )
    return Group(Text(head), table)


def _engines(summary: Summary) -> RenderableType:
    if not summary.engines:
        return _missing("an engine", "strata build")
    facts = [fact for name, m in summary.engines.items() for fact in _engine(name, m)]
    note = Text(
        "accuracy and layers are those of the ONNX files in ONNX Runtime; the engine itself "
        "runs on a GPU",
        "dim",
    )
    return Group(_facts(facts), note)


def _engine(name: str, manifest: Manifest) -> Iterator[tuple[str, str]]:
    flavour = _FLAVOURS.get(manifest.flavour, manifest.flavour)
    counts = {kind: manifest.count(kind) for by in manifest.layers.values() for kind in by}
    layers = ", ".join(f"{n} in {_PRECISIONS.get(kind, kind)}" for kind, n in counts.items())
    yield name, f"{flavour} {manifest.version}, {_size(manifest.plan_bytes)}"
    yield "targets", ", ".join(manifest.targets) or "the GPU it was built on"
    batches = [r for profile in manifest.profiles for r in profile.values()]
    if batches:
        sizes = (f"{r.min[0]}–{r.max[0]}, tuned for {r.opt[0]}" for r in batches)
        yield "batch", "; ".join(sizes)
    if layers:
        yield "layers", f"with weights: {layers}"


def _stages(stages: tuple[Stage, ...]) -> RenderableType:
    table = _table("stage", "file", "size", "time", left=2)
    for stage in stages:
        seconds = "–" if stage.seconds is None else f"{stage.seconds:,.1f} s"
        if not stage.files:
            made = "" if stage.name == _ONCE else "not made"
            if made or stage.seconds is not None:
                table.add_row(stage.name, Text(made, "yellow"), "", seconds)
        for at, (name, size) in enumerate(stage.files.items()):
            first = at == 0
            table.add_row(stage.name if first else "", name, _size(size), seconds if first else "")
    known = [s.seconds for s in stages if s.seconds is not None and s.name != _ONCE]
    if known:
        table.add_row("", Text(f"all but {_ONCE}ing", "dim"), "", f"{sum(known):,.1f} s")
    return table


def _size(count: int) -> str:
    """Write bytes in the unit that suits them."""
    if count < 1_000_000:
        return f"{count / 1e3:.1f} kB"
    return f"{count / 1e6:.1f} MB"
