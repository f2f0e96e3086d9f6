"""What ``strata inspect`` tells of the engines that belong to a comparison."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from itertools import groupby

from deploy.inspect.columns import plain, precision, shape_text, size_text
from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.engine_text import head_rows
from deploy.inspect.kernels import Kernel, KernelGraph, Tensor
from deploy.inspect.meaning import form_text, meaning
from deploy.inspect.picture import picture
from deploy.inspect.weighted import weighted_layers
from deploy.report_page.markup import facts, head_row, name, said, text

__all__ = ["engines_part"]

_LAYERS = 6  # of a kernel, that are named
_KERNELS = (
    ("#", True),
    ("Kernel", False),
    ("Computes", False),
    ("In → out", False),
    ("Output", True),
    ("MB an image", True),
)


def engines_part(engines: tuple[EngineFacts, ...]) -> str:
    """Return what is known of each engine."""
    return "".join(map(_engine, engines))


def _engine(engine: EngineFacts) -> str:
    state = "" if engine.trouble else ' <span class="tag">its manifest fits</span>'
    sentences = "".join(f"<p>{said(sentence)}</p>" for sentence in meaning(engine))
    graph = engine.graphs[0] if engine.graphs else None
    return (
        f'<article class="engine"><h3>{name(engine.path)} {size_text(engine.bytes)}{state}</h3>'
        f'<dl class="facts wide">{facts(_head(engine, graph))}</dl>{sentences}'
        f"{_drawn(engine)}{_kernels(graph) if graph else ''}"
        f"{_layers(engine, graph) if graph else ''}</article>"
    )


def _head(engine: EngineFacts, graph: KernelGraph | None) -> Iterator[tuple[str, str]]:
    for term, rows in groupby(head_rows(engine), key=lambda row: row[0]):
        yield text(term), "<br>".join(said(value) for _, value in rows)
    if graph is not None:
        kinds = ", ".join(f"{count} {kind}" for kind, count in graph.count().items())
        yield "kernels", said(f"{len(graph.kernels)}: {kinds}")
        yield "weights", size_text(graph.constant_bytes)
        yield "moves", f"{size_text(graph.moved_bytes_per_image)} of activations an image"


def _drawn(engine: EngineFacts) -> str:
    """Return its picture: an image of its own, so that nothing in it touches the page."""
    if not engine.graphs:
        return ""
    data = base64.b64encode(picture(engine).encode()).decode("ascii")
    return (
        "<details><summary>Picture: kernels, and what flows between them</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Picture of the engine">'
        f'<img class="kernels" alt="The kernels of {text(engine.path)}, told in the table below" '
        f'src="data:image/svg+xml;base64,{data}"></div></details>'
    )


def _kernels(graph: KernelGraph) -> str:
    rows = "".join(_kernel(at, kernel, graph.batch) for at, kernel in enumerate(graph.kernels))
    return (
        f"<details><summary>{len(graph.kernels)} kernels in the order they run</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Kernels">'
        f"<table>{head_row(_KERNELS)}<tbody>{rows}</tbody></table></div></details>"
    )


def _kernel(at: int, kernel: Kernel, batch: int) -> str:
    out = next(iter(kernel.outputs), None)
    moved = "?" if kernel.moved_bytes is None else f"{kernel.moved_bytes / batch / 1e6:.3f}"
    names = kernel.layers or (kernel.name,)
    layers = ", ".join(map(name, names[:_LAYERS]))
    more = f" and {len(names) - _LAYERS} more" if len(names) > _LAYERS else ""
    return (
        f'<tr><td class="num soft">{at}</td><td>{text(kernel.kind)}</td><td>{layers}{more}</td>'
        f"<td>{_types(kernel.inputs)} → {_types(kernel.outputs)}</td>"
        f'<td class="num">{shape_text(out.shape[1:]) if out else ""}</td>'
        f'<td class="num">{moved}</td></tr>'
    )


def _types(tensors: tuple[Tensor, ...]) -> str:
    return text("+".join(dict.fromkeys(precision(tensor.dtype) for tensor in tensors)) or "–")


def _layers(engine: EngineFacts, graph: KernelGraph) -> str:
    """Return the layers with weights: what each was asked for, and what it became."""
    layers = weighted_layers(graph, engine.asked)
    rows = "".join(
        f'<tr><th scope="row">{name(layer.name)}</th><td>{text(layer.op)}</td>'
        f"<td>{text(precision(layer.asked)) if layer.asked else '–'}</td>"
        f"<td>{text(plain(form_text(layer)))}</td></tr>"
        for layer in layers
    )
    columns = (("Layer", False), ("Operator", False), ("Asked for", False), ("Became", False))
    return (
        f"<details><summary>{len(layers)} layers with weights: asked for, and became</summary>"
        '<div class="scroll" tabindex="0" role="region" aria-label="Layers with weights">'
        f"<table>{head_row(columns)}<tbody>{rows}</tbody></table></div></details>"
    )
