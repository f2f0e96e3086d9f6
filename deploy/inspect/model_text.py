"""An ONNX file, or two beside each other, as text for people: at most 100 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from deploy.inspect.columns import (
    columns,
    facts_text,
    fit,
    plain,
    precision,
    shape_text,
    size_text,
)
from deploy.inspect.model_facts import LayerFacts, ModelFacts
from deploy.onnx_files.reader import TensorType

__all__ = ["model_pair_text", "model_text"]

_WIDTHS = (44, 14, 10, 10, 14)  # with two spaces between: 100
_LONGEST = 200  # characters of a fact; what a file says of itself may be of any length


def model_text(facts: ModelFacts) -> str:
    """Return everything that is known of an ONNX file."""
    card = facts.card
    stage = f", stage {fit(card.stage, 40)}" if card.stage else ""
    rows = [
        ("sha256", facts.sha256),
        *(("weights", f"{plain(name)}, sha256 {sha}") for name, sha in facts.files.items()),
        ("takes", _tensors(facts.inputs)),
        ("gives", _tensors(facts.outputs)),
        ("nodes", _nodes(facts)),
        ("constant", _constants(facts)),
        ("layers", "; ".join(_precisions(facts)) or "none with weights"),
        *_card_rows(facts),
    ]
    lines = [f"{plain(facts.path)}  {size_text(facts.bytes)}, opset {facts.opset}{stage}"]
    lines.append(facts_text(rows))
    if facts.layers:
        lines += ["", columns(("layer", "operator", "takes", "weights", "shape"), _WIDTHS, 0)]
        lines += [columns(_cells(layer), _WIDTHS, 0) for layer in facts.layers]
    return "\n".join(lines)


def _cells(layer: LayerFacts) -> tuple[str, ...]:
    shape = "" if layer.shape is None else shape_text(layer.shape)
    return (layer.name, layer.op, precision(layer.takes), precision(layer.weights), shape)


def _tensors(tensors: Iterable[TensorType]) -> str:
    return ", ".join(f"{fit(t.name, 40)} {t.dtype} {_dims(t)}" for t in tensors)


def _dims(tensor: TensorType) -> str:
    if tensor.shape is None:
        return "of unknown rank"
    return "×".join("?" if dim is None else plain(str(dim)) for dim in tensor.shape)


def _nodes(facts: ModelFacts) -> str:
    counts = ", ".join(f"{count} {plain(op)}" for op, count in facts.operators.items())
    return f"{sum(facts.operators.values())}: {counts}"


def _constants(facts: ModelFacts) -> str:
    parts = ", ".join(
        f"{size_text(size)} of {plain(kind)}" for kind, size in facts.constants.items()
    )
    return f"{size_text(sum(facts.constants.values()))}: {parts}" if parts else "nothing"


def _precisions(facts: ModelFacts) -> list[str]:
    """Return ``53 Conv and 1 Gemm in INT8`` for each precision."""
    counts = Counter((layer.precision, layer.op) for layer in facts.layers)
    grouped: dict[str, list[str]] = {}
    for (kind, op), count in counts.items():
        grouped.setdefault(kind, []).append(f"{count} {op}")
    return [f"{' and '.join(parts)} in {precision(kind)}" for kind, parts in grouped.items()]


def _card_rows(facts: ModelFacts) -> list[tuple[str, str]]:
    card = facts.card
    rows = [
        ("made of", f"{fit(role, 40)} {fit(sha, _LONGEST)}") for role, sha in card.parents.items()
    ]
    if card.weights:
        origin = ", ".join(
            f"{fit(key, 40)} {fit(text, _LONGEST)}" for key, text in card.weights.items()
        )
        rows.append(("origin", origin))
    if card.preprocess is not None:
        spec = card.preprocess.to_json().replace(',"', ', "')  # so that it can be wrapped
        rows.append(("images", spec))
    if card.labels:
        first = ", ".join(fit(label, 40) for label in card.labels[:5])
        rows.append(
            ("labels", f"{len(card.labels)}: {first}{', …' if len(card.labels) > 5 else ''}")
        )
    return rows


def _fact(key: str, text: str) -> str:
    return f"{fit(key, 40)} {fit(text, _LONGEST)}"


def model_pair_text(a: ModelFacts, b: ModelFacts) -> str:
    """Return two ONNX files beside each other, and the layers that differ."""
    widths = (10, 43, 43)
    pairs = [
        ("", Path(a.path).name, Path(b.path).name),
        ("sha256", f"{a.sha256[:16]}…", f"{b.sha256[:16]}…"),
        ("file", size_text(a.bytes), size_text(b.bytes)),
        ("opset", str(a.opset), str(b.opset)),
        ("stage", a.card.stage or "–", b.card.stage or "–"),
        ("takes", _tensors(a.inputs), _tensors(b.inputs)),
        ("gives", _tensors(a.outputs), _tensors(b.outputs)),
        ("constants", *(size_text(sum(facts.constants.values())) for facts in (a, b))),
        *_lines("layers", _precisions(a), _precisions(b)),
    ]
    differing = [
        (op, str(a.operators.get(op, 0)), str(b.operators.get(op, 0)))
        for op in dict.fromkeys([*a.operators, *b.operators])
        if a.operators.get(op) != b.operators.get(op)
    ]
    lines = [columns(pair, widths, 0) for pair in pairs]
    if differing:
        lines += [
            "",
            *(columns(row, (26, 10, 10), 2) for row in [("operator", "A", "B"), *differing]),
        ]
    return "\n".join([*lines, *_differing_layers(a, b)])


def _lines(key: str, a: list[str], b: list[str]) -> list[tuple[str, str, str]]:
    height = max(len(a), len(b))
    one, other = (texts + [""] * (height - len(texts)) for texts in (a, b))
    keys = [key, *[""] * height]
    return list(zip(keys, one, other, strict=False))


def _differing_layers(a: ModelFacts, b: ModelFacts) -> list[str]:
    one, other = ({layer.name: layer for layer in facts.layers} for facts in (a, b))
    rows = []
    for name in dict.fromkeys([*one, *other]):
        kinds = [layers[name].precision if name in layers else "" for layers in (one, other)]
        if kinds[0] != kinds[1]:
            rows.append((name, *(precision(kind) if kind else "–" for kind in kinds)))
    if not rows:
        return ["", "every layer with weights has the same precision in both"]
    return ["", *(columns(row, (60, 10, 10), 0) for row in [("layer", "A", "B"), *rows])]
