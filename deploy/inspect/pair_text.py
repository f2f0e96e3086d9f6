"""Two engines beside each other as text for people: at most 100 columns."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from deploy.inspect.columns import columns, facts_text, fit, paragraph, plain, size_text
from deploy.inspect.engine_text import head_rows
from deploy.inspect.meaning import form_text
from deploy.inspect.side_by_side import EngineSum, LayerSum, SideBySide

__all__ = ["pair_text", "verdict"]

_WIDTHS = (32, 20, 8, 20, 8)  # with two spaces between: 96


def pair_text(pair: SideBySide) -> str:
    """Return two engines beside each other."""
    names = [fit(_name(engine), 32) for engine in (pair.a, pair.b)]
    if names[0] == names[1]:
        names = [f"{name} ({letter})" for name, letter in zip(names, "AB", strict=True)]
    parts = [columns(("", *names), (9, 34, 34), 0)]
    parts += [columns((key, *texts), (9, 34, 34), 0) for key, texts in _sums(pair)]
    for engine in (pair.a, pair.b):
        if engine.graph is None:
            parts += [plain(engine.facts.path), facts_text(head_rows(engine.facts))]
    if pair.layers:
        parts += ["", columns(("layer", names[0], "MB/image", names[1], "MB/image"), _WIDTHS, 0)]
        parts += [_row(layer.name, layer.a, layer.b) for layer in pair.layers]
    return "\n".join([*parts, "", *map(paragraph, verdict(pair))])


def _name(engine: EngineSum) -> str:
    return Path(engine.facts.path).name


def _sums(pair: SideBySide) -> list[tuple[str, tuple[str, str]]]:
    def both(texts: Iterable[str]) -> tuple[str, str]:
        one, other = texts
        return one, other

    engines = (pair.a, pair.b)
    graphs = [engine.graph for engine in engines]
    return [
        ("by", both(f"{e.facts.flavour or '?'} {e.facts.version or '?'}" for e in engines)),
        ("file", both(size_text(e.facts.bytes) for e in engines)),
        ("kernels", both(str(len(g.kernels)) if g else "unknown" for g in graphs)),
        ("weights", both(size_text(g.constant_bytes) if g else "unknown" for g in graphs)),
        ("moves", both(f"{size_text(e.moved)} an image" for e in engines)),
        ("INT8", both(f"{e.codes} layers with weights" if e.graph else "" for e in engines)),
    ]


def _row(name: str, a: LayerSum | None, b: LayerSum | None) -> str:
    cells = [name or "(before the first layer)"]
    for one in (a, b):
        layer = one.layer if one else None
        form = form_text(layer).replace(" in, ", " → ").removesuffix(" out") if layer else ""
        moved = one.moved_bytes if one else None
        size = "?" if moved is None else f"{moved / 1e6:.3f}"
        cells += [form, (size if one else "").rjust(8)]
    return columns(cells, _WIDTHS, 0)


def verdict(pair: SideBySide) -> list[str]:
    """Say plainly which engine moves more, and whether INT8 does."""
    a, b = pair.a, pair.b
    if pair.ratio is None or a.moved is None or b.moved is None:
        return ["Which moves more is unknown: not all kernels or sizes of both could be read."]
    sentences = [
        f"{plain(_name(b))} moves {size_text(b.moved)} of activations an image, "
        f"{plain(_name(a))} {size_text(a.moved)}: {pair.ratio:.2f} times as many. "
        f"With the weights, at batch 1: {_whole(b)} against {_whole(a)}."
    ]
    if pair.int8_moves_more:
        why = ""
        if any(one and one.layer and one.layer.form == "widening" for one in _int8_side(pair)):
            why = (
                ": its convolutions give floats, which are written, read again and quantized by "
                "kernels of their own. Where memory is the limit, that can be slower. Convolutions "
                "of the flavour tensorrt can requantize as they compute (strata build --flavour "
                "tensorrt, on the GPU)"
            )
        sentences.append(f"INT8 moves more bytes than the float engine here{why}.")
    elif pair.int8_moves_more is False:
        sentences.append("INT8 does not move more bytes than the float engine here.")
    return [*sentences, "Counted, not timed: time both where they will run."]


def _int8_side(pair: SideBySide) -> list[LayerSum | None]:
    return [layer.b if pair.b.codes else layer.a for layer in pair.layers]


def _whole(engine: EngineSum) -> str:
    weights = engine.graph.constant_bytes if engine.graph else 0
    return size_text((engine.moved or 0) + weights)
