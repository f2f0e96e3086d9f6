"""An engine as text for people: at most 100 columns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from deploy.engines.manifest import Binding, Manifest
from deploy.engines.target import describe
from deploy.inspect.columns import (
    columns,
    facts_text,
    fit,
    paragraph,
    plain,
    precision,
    shape_text,
    size_text,
)
from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.kernels import Kernel, KernelGraph, Tensor
from deploy.inspect.meaning import form_text, meaning
from deploy.inspect.weighted import Asked, WeightedLayer, weighted_layers
from deploy.preflights.facts import FLAVOUR_NAMES

__all__ = ["engine_text", "head_rows"]

_HEADER = ("kernel", "computes", "in → out", "output", "MB/image")
_WIDTHS = (13, 41, 18, 12, 8)


def engine_text(facts: EngineFacts) -> str:
    """Return everything that is known of an engine."""
    state = "" if facts.trouble else ", its manifest fits"
    parts = [f"{plain(facts.path)}  {size_text(facts.bytes)}{state}", facts_text(head_rows(facts))]
    for index, graph in enumerate(facts.graphs):
        if len(facts.graphs) > 1:
            parts.append(f"profile {index}")
        parts.append(facts_text(_graph_rows(graph, facts.asked)))
    for index, graph in enumerate(facts.graphs):
        if index and _same(graph, facts.graphs[0]):
            parts.append(f"profile {index}: the same kernels")
            continue
        parts += ["", columns(_HEADER, _WIDTHS, 1)]
        parts += [columns(_cells(kernel, graph.batch), _WIDTHS, 1) for kernel in graph.kernels]
    if sentences := meaning(facts):
        parts += ["", *map(paragraph, sentences)]
    return "\n".join(parts)


def head_rows(facts: EngineFacts) -> list[tuple[str, str]]:
    """Return what header and manifest say, as (key, text)."""
    manifest, header = facts.manifest, facts.header
    name = FLAVOUR_NAMES.get(facts.flavour, "an unknown TensorRT")
    rows = [("by", f"{name} {facts.version or '(version unknown)'}")]
    if header.capabilities is not None:
        more = ", and newer GPUs that have no name yet" if header.unnamed_bits else ""
        rows.append(("for", describe(header.capabilities) + more))
    elif manifest:
        rows.append(("for", ", ".join(map(plain, manifest.targets)) or "unknown"))
    if manifest:
        rows += [("batch", text) for text in _batches(manifest)]
        rows.append(("takes", _tensors(manifest.inputs)))
        rows.append(("gives", _tensors(manifest.outputs)))
        rows += [("from", f"{role} {digest[:12]}…") for role, digest in manifest.parents.items()]
        rows += [("measured", _accuracy(manifest))] if manifest.accuracy else []
    if facts.trouble:
        rows.append(("manifest", plain(facts.trouble)))
    if facts.unknown:
        rows.append(("kernels", f"unknown: {plain(facts.unknown)}"))
    return rows


def _batches(manifest: Manifest) -> list[str]:
    found = []
    for profile in manifest.profiles:
        for given in list(profile.values())[:1]:
            low, best, high = ((*shape, 1)[0] for shape in (given.min, given.opt, given.max))
            found.append(f"{low}" if low == high else f"{low} to {high}, tuned for {best}")
    return found


def _tensors(bindings: Iterable[Binding]) -> str:
    return ", ".join(
        f"{fit(b.name, 40)} {b.dtype} {'×'.join('N' if n < 0 else str(n) for n in b.shape)}"
        for b in bindings
    )


def _accuracy(manifest: Manifest) -> str:
    return ", ".join(f"{plain(name)} {value:.4g}" for name, value in manifest.accuracy.items())


def _graph_rows(graph: KernelGraph, asked: Asked) -> list[tuple[str, str]]:
    layers = weighted_layers(graph, asked)
    kinds = ", ".join(f"{count} {plain(kind)}" for kind, count in graph.count().items())
    moved = f"{size_text(graph.moved_bytes_per_image)} of activations an image"
    if graph.batch > 1:
        moved += f" ({size_text(graph.moved_bytes)} at batch {graph.batch})"
    found = f"{sum(layer.kernel is not None for layer in layers)} of {len(layers)}"
    rows = [
        ("kernels", f"{len(graph.kernels)}: {kinds}"),
        ("weights", f"{size_text(graph.constant_bytes)}, other constants with them"),
        ("moves", moved),
        ("layers", f"{found if asked else len(layers)} with weights found by name"),
        *(("", text) for text in _forms(layers)),
    ]
    if graph.scratch_bytes is not None:
        memory = (
            f"{size_text(graph.scratch_bytes)} on the GPU for activations, at the largest batch"
        )
        rows.append(("memory", memory))
    return rows


def _forms(layers: Iterable[WeightedLayer]) -> list[str]:
    forms = Counter((form_text(layer), layer.op) for layer in layers)
    grouped: dict[str, list[str]] = {}
    for (form, op), count in forms.items():
        grouped.setdefault(form, []).append(f"{count} {op}")
    return [f"{' and '.join(parts)}: {form}" for form, parts in grouped.items()]


def _same(one: KernelGraph, other: KernelGraph) -> bool:
    def shape(graph: KernelGraph) -> list[tuple[object, ...]]:
        return [
            (k.kind, k.layers, [t.dtype for t in k.inputs], [t.dtype for t in k.outputs])
            for k in graph.kernels
        ]

    return shape(one) == shape(other)


def _cells(kernel: Kernel, batch: int) -> tuple[str, ...]:
    moved = kernel.moved_bytes
    return (
        kernel.kind,
        _computes(kernel),
        f"{_types(kernel.inputs)} → {_types(kernel.outputs)}",
        shape_text(kernel.outputs[0].shape[1:]) if kernel.outputs else "",
        "?" if moved is None else f"{moved / batch / 1e6:.3f}",
    )


def _types(tensors: Iterable[Tensor]) -> str:
    kinds = dict.fromkeys(precision(tensor.dtype) for tensor in tensors)
    return "+".join(kinds) or "–"


def _computes(kernel: Kernel) -> str:
    """Return the layers of a kernel; those that do not fit are counted.

    A Dequantize says only where its input came from, and is left out beside others.
    """
    names = kernel.layers or (kernel.name.removeprefix("__myl_"),)
    telling = [name for name in names if "dequantize" not in name.lower()] or list(names)
    telling.sort(key=lambda name: "quantize" in name.lower())
    shown, width = telling[0], _WIDTHS[1]
    for at, name in enumerate(telling[1:], start=1):
        rest = len(telling) - at
        if len(shown) + len(name) + 3 + (4 if rest > 1 else 0) > width:
            return f"{fit(shown, width - 4)} +{rest}"
        shown += f" + {name}"
    return shown
