"""What an engine's kernels mean for its speed, in sentences.

Nothing here was timed: sentences speak of bytes and of what a kernel takes and gives.
"""

from __future__ import annotations

from collections import Counter

from deploy.inspect.columns import plain, precision
from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.kernels import CODES
from deploy.inspect.weighted import WeightedLayer, weighted_layers

__all__ = ["form_text", "meaning"]


def form_text(layer: WeightedLayer) -> str:
    """Return ``INT8 in, FP32 out``."""
    if layer.kernel is None:
        return "no kernel names it"
    if layer.form == "unknown":
        return "unknown"
    return f"{precision(layer.takes)} in, {precision(layer.gives)} out"


def meaning(facts: EngineFacts) -> list[str]:
    """Return what to make of an engine's kernels; nothing where they are unknown."""
    sentences: list[str] = []
    for graph in facts.graphs[:1]:
        layers = weighted_layers(graph, facts.asked)
        widening = [layer for layer in layers if layer.form == "widening"]
        coded = [layer for layer in layers if layer.form == "codes"]
        missing = [layer.name for layer in layers if layer.kernel is None]
        if widening:
            sentences.append(_widening(widening))
        if coded:
            sentences.append(_coded(coded))
        sentences += _lost(layers)
        if missing:
            sentences.append(f"No kernel names {_list(missing)}.")
    return [*sentences, "Counted, not timed."] if sentences else []


def _counted(layers: list[WeightedLayer]) -> str:
    """Return ``53 Conv and 1 Gemm``."""
    counts = Counter(layer.op for layer in layers)
    return " and ".join(f"{count} {op}" for op, count in counts.items())


def _verb(layers: list[WeightedLayer], verb: str) -> str:
    return f"{verb}s" if len(layers) == 1 else verb


def _widening(layers: list[WeightedLayer]) -> str:
    return (
        f"{_counted(layers)} {_verb(layers, 'take')} {precision(layers[0].takes)} and "
        f"{_verb(layers, 'give')} floats: the arithmetic is INT8, but its result is written in 2 "
        "or 4 bytes a value, and read again by a kernel that quantizes it. Where memory is the "
        "limit, that can be slower than FP16: set an FP16 engine beside this one (strata inspect "
        "FP16.engine INT8.engine), and time both."
    )


def _coded(layers: list[WeightedLayer]) -> str:
    return (
        f"{_counted(layers)} {_verb(layers, 'take')} and {_verb(layers, 'give')} "
        f"{precision(layers[0].takes)}: the result is requantized where it is computed, and is "
        "passed on in one byte a value."
    )


def _lost(layers: tuple[WeightedLayer, ...]) -> list[str]:
    """Tell of layers that were asked for as codes and run in float."""
    lost = [x.name for x in layers if x.asked in CODES and x.form == "float"]
    return [f"Asked for in INT8, but computed in float: {_list(lost)}."] if lost else []


def _list(names: list[str]) -> str:
    shown = ", ".join(plain(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
