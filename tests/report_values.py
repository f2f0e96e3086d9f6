"""A comparison made by hand: three models, a fault in the last, names that mean harm."""

import math
from dataclasses import replace

from deploy.comparison.values.measures import (
    Cell,
    Codes,
    Errors,
    Explained,
    Histogram,
    Made,
    Place,
    Status,
)
from deploy.comparison.values.report import Answer, Report, Row, Subject
from deploy.comparison.values.verdict import Blame, Bounds, Reason, Verdict
from deploy.images import DataRecord

DATA = DataRecord("fashion-mnist:test", "d" * 64, 32, None)
CODES = Codes(0.01, 0.0, (1.0, 1.0), 0.875, 9, 0.9375, 2, 0.0625, 30.0, 5.0, 12.5)
HISTOGRAM = Histogram(-2.0, 2.0, (1, 9, 99, 999), (2, 8, 98, 1000))
EVIL = (
    '</script><script>window.hacked="name"</script>',
    '"><img src=x onerror="window.hacked=\'attribute\'">',
    "' onmouseover='window.hacked=1' x='",
    "layer\u202egnp.exe\u2066\u200f",
    "a" * 5000,
    "broken\ud800half\x00\x1b[31m\n]]>--><!--",
    "&lt;b&gt;$data${policy}{{x}}",
)


def errors(sqnr_db, at=None):
    return Errors(sqnr_db, 0.99, 0.125, at)


def cell(own, inherited, explained=None, **more):
    return Cell(Status.COMPARED, None, errors(inherited), errors(own), explained, inherited, **more)


def row(tensor, stage, op, cells, *, dead=0):
    made = tuple(
        Made(tensor, op, "float32", ("N", 8, 4, 4), kind, -1.0, 2.5, dead)
        for kind in ("FP32", "FP32", "INT8")
    )
    return Row(tensor, stage, made, cells)


def blame(tensor, reason, excess_db):
    return Blame(
        tensor, tensor, reason, excess_db, f"what was seen in {tensor}", f"--exclude {tensor}"
    )


def report(**changes):
    """Return a report of seven tensors; layer2.0.conv1 is at fault in the second step."""
    exact, fine = cell(math.inf, math.inf), cell(130.0, 125.5)
    folded = Cell(Status.ONLY_IN_REFERENCE, into="layer1.0.bn1")
    fault = cell(
        9.25,
        20.5,
        Explained(31.0, 21.75, 3),
        codes=CODES,
        histogram=HISTOGRAM,
    )
    fault = replace(fault, own=errors(9.25, Place(7, (3, 1, 2))))
    rows = (
        row("input", "stem", "Input", (exact, cell(math.inf, math.inf))),
        row("layer1.0.conv1", "layer1", "Conv", (folded, Cell(Status.ABSENT))),
        row("layer1.0.bn1", "layer1", "Conv", (fine, cell(40.5, 33.0, Explained(41.0, 0.5)))),
        row("layer1.0.relu", "layer1", "Relu", (fine, cell(math.inf, 32.5)), dead=3),
        row("layer2.0.conv1", "layer2", "Conv", (fine, fault)),
        row("layer2.0.relu", "layer2", "Relu", (fine, cell(100.0, 20.0))),
        row("logits", "head", "Gemm", (fine, cell(math.nan, math.nan))),
    )
    blames = (
        blame("layer2.0.conv1", Reason.CLIPPING, 21.75),
        blame("logits", Reason.NOT_FINITE, math.inf),
    )
    top = (((1, 0.6), (2, 0.3), (3, 0.05), (4, 0.03), (5, 0.02)),) * 2
    models = tuple(
        Subject(f"{n}.onnx", f"{n}.onnx", c * 64, n, "ONNX Runtime", 94_370_700)
        for n, c in (("model", "1"), ("optimized", "2"), ("int8", "3"))
    )
    made = Report(
        models=models,
        data=DATA,
        rows=rows,
        bounds=Bounds(),
        verdicts=(Verdict(), Verdict("layer2.0.conv1", blames)),
        classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal"),
        changed=(0, 1),
        right=(30, 30, 29),
        answers=(Answer(12, 1, (*top, ((2, 0.5), (1, 0.4), (3, 0.06), (4, 0.03), (5, 0.01)))),),
    )
    return replace(made, **changes)


def hostile():
    """Return the same with every name, text and class made by somebody who means harm."""
    made = report()
    rows = []
    for at, old in enumerate(made.rows):
        evil = EVIL[at % len(EVIL)]
        each = tuple(replace(m, node=evil, op=evil, precision=evil) for m in old.made if m)
        cells = tuple(replace(c, into=evil) if c.into else c for c in old.cells)
        rows.append(Row(f"{evil}{at}", evil, each, cells))
    blames = tuple(
        Blame(row.tensor, evil, Reason.CLIPPING, 9.0, evil, evil)
        for row, evil in zip(rows[4:], EVIL, strict=False)
    )
    evil_models = tuple(
        replace(
            m,
            name=EVIL[0],
            backend=EVIL[1],
            stage=EVIL[2],
            parents={EVIL[5]: EVIL[3]},
            cautions=EVIL,
        )
        for m in made.models
    )
    return replace(
        made,
        models=evil_models,
        rows=tuple(rows),
        data=replace(made.data, name=EVIL[0], preprocess=EVIL[1]),
        verdicts=(Verdict(), Verdict(rows[4].tensor, blames)),
        classes=EVIL,
    )


def large(tensors=500, steps=4):
    """Return a comparison of many tensors in many steps, with long names and histograms."""
    made = report()
    histogram = Histogram(-1.0, 1.0, tuple(range(64)), tuple(range(64, 0, -1)))
    full = cell(30.0, 25.0, Explained(31.0, 1.0), codes=CODES, histogram=histogram)
    one = made.rows[2].made[2]
    rows = tuple(
        Row(
            f"model/{'block.' * 12}{at}/Conv",
            f"layer{at // 50}",
            (one,) * (steps + 1),
            (full,) * steps,
        )
        for at in range(tensors)
    )
    return replace(
        made,
        models=(
            made.models[0],
            *(replace(made.models[2], name=f"step{n}.onnx") for n in range(steps)),
        ),
        rows=rows,
        verdicts=(Verdict(),) * steps,
        changed=(0,) * steps,
        right=None,
        answers=(),
    )
