"""A picture of an engine: every kernel a box, every activation a line; one SVG file.

It needs no other file, no script and no network, follows the reader's light or dark
setting, and carries its words as text, so that it can be searched and read aloud.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

from core.errors import InputError
from deploy.inspect.columns import plain, precision, shape_text, size_text
from deploy.inspect.engine_facts import EngineFacts
from deploy.inspect.kernels import CODES, WEIGHTED, Kernel, KernelGraph
from deploy.inspect.layout import BOX_HEIGHT, BOX_WIDTH, Layout, lay_out
from deploy.inspect.picture_lines import COLOURS, Unit, lines, tensor_colour, unit_of
from deploy.preflights.facts import FLAVOUR_NAMES

__all__ = ["picture"]

_LEGEND = (
    ("codes", "INT8 in and out"),
    ("widening", "INT8 in, float out"),
    ("float16", "FP16"),
    ("float32", "FP32"),
    ("other", "another type"),
)
_STYLE = """
.paper{fill:#fff}.ink{fill:#1a1a1f}.soft{fill:#5a5a66}
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;font-size:11px}
.head{font-size:18px;font-weight:600}.label{font-size:12px;font-weight:600}
.name{font-size:12px;font-weight:600;fill:#16161a}.type{font-size:10px;fill:#26262c}
.box{stroke:#3c3c46;stroke-width:1}.minor{fill-opacity:.45;stroke-dasharray:3 2}
.band{fill:#f4f4f7}.line{fill:none;stroke-linejoin:round}
.size{font-size:10px;paint-order:stroke;stroke:#fff;stroke-width:3px}
@media (prefers-color-scheme:dark){.paper{fill:#17171b}.ink,.size{fill:#ececf1}.soft{fill:#a8a8b4}
.band{fill:#202027}.size{stroke:#17171b}.box{stroke:#d0d0da}.minor{fill-opacity:.9}}
"""


def picture(facts: EngineFacts) -> str:
    """Return an engine's picture as the text of an SVG file.

    Raises:
        InputError: Its kernels are unknown.
    """
    if not facts.graphs:
        raise InputError(
            f"{facts.path}: no picture without kernels ({facts.unknown})",
            hint="leave --svg out to see what its header and manifest say",
        )
    graph = facts.graphs[0]
    layout = lay_out(graph)
    summary = _summary(facts, graph)
    unit = unit_of(layout.edges, graph)
    width, height = round(layout.width), round(layout.height)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" role="img" aria-labelledby="title summary">',
        f'<title id="title">{_words(Path(facts.path).name)}: the kernels of an engine</title>',
        f'<desc id="summary">{_words(summary)}</desc>',
        f"<style>{_STYLE}</style>",
        f'<rect class="paper" width="{width}" height="{height}"/>',
        *_head(facts, summary, unit),
        *_bands(layout),
        *lines(layout.edges, graph, unit),
        *_boxes(layout, graph),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _words(text: str) -> str:
    return escape(plain(text))


def _summary(facts: EngineFacts, graph: KernelGraph) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in graph.count().items())
    by = f"{FLAVOUR_NAMES.get(facts.flavour, 'TensorRT')} {facts.version}".rstrip()
    return (
        f"{by}: {len(graph.kernels)} kernels ({kinds}); "
        f"{size_text(graph.constant_bytes)} of weights; "
        f"{size_text(graph.moved_bytes_per_image)} of activations moved an image"
    )


def _head(facts: EngineFacts, summary: str, unit: Unit) -> list[str]:
    parts = [
        f'<text class="head ink" x="24" y="36">{_words(Path(facts.path).name)}</text>',
        f'<text class="soft" x="24" y="56">{_words(summary)}</text>',
    ]
    x = 24
    for colour, text in _LEGEND:
        parts.append(
            f'<rect class="box" x="{x}" y="72" width="14" height="14" rx="3" '
            f'fill="{COLOURS[colour]}"/><text class="ink" x="{x + 20}" y="83">{text}</text>'
        )
        x += 48 + round(6.2 * len(text))
    note = (
        "Solid: with weights. Dashed: without, in the colour of what it gives; Q: it quantizes. "
        f"On the lines: {unit.name} of activations an image."
    )
    return [*parts, f'<text class="soft" x="24" y="106">{note}</text>']


def _bands(layout: Layout) -> list[str]:
    """Return a shade and the name for each block; a block of two rows is named once."""
    parts, last, shaded = [], None, False
    for row, y in layout.rows:
        if row.label != last or not row.label:
            shaded = not shaded
            parts.append(
                f'<text class="label ink" x="14" y="{y + 27}">'
                f"<title>{_words(row.label)}</title>{_words(_short(row.label, 15))}</text>"
            )
        last = row.label
        if shaded:
            band = f'y="{y - 14}" width="{layout.width - 16}" height="{BOX_HEIGHT + 28}" rx="8"'
            parts.insert(0, f'<rect class="band" x="8" {band}/>')
    return parts


def _kernel_colour(kernel: Kernel) -> str:
    """Weighted kernels are coloured by what they take, the others by what they give."""
    data, gives = kernel.data, kernel.outputs[0].dtype if kernel.outputs else ""
    if data is None or kernel.kind not in WEIGHTED:
        return tensor_colour(gives)
    return "widening" if data.dtype in CODES and gives not in CODES else tensor_colour(data.dtype)


def _boxes(layout: Layout, graph: KernelGraph) -> list[str]:
    weighted = {k.layers[0] for k in graph.kernels if k.kind in WEIGHTED and k.layers}
    parts = []
    for box in layout.boxes:
        kernel = graph.kernels[box.kernel]
        name = _weighted_name(kernel) if kernel.kind in WEIGHTED else _own_name(kernel, weighted)
        parts.append(_box(kernel, name, (box.x, box.y), graph.batch))
    return parts


def _box(kernel: Kernel, name: str, at: tuple[float, float], batch: int) -> str:
    (x, y), data, out = at, kernel.data, next(iter(kernel.outputs), None)
    types = f"{precision(data.dtype) if data else '–'} → {precision(out.dtype) if out else '–'}"
    shape = shape_text(out.shape[1:]) if out else ""
    moved = kernel.moved_bytes
    tip = (
        f"{kernel.kind}: {' + '.join(kernel.layers or (kernel.name,))}; {types} {shape}; "
        f"moves {size_text(None if moved is None else moved / batch)} an image"
        + (f"; fused: {', '.join(kernel.fused)}" if kernel.fused else "")
    )
    style = "box" if kernel.kind in WEIGHTED else "box minor"
    return (
        f"<g><title>{_words(tip)}</title>"
        f'<rect class="{style}" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6" '
        f'fill="{COLOURS[_kernel_colour(kernel)]}"/>'
        f'<text class="name" x="{x + 7}" y="{y + 18}">{_words(_short(name, 15))}</text>'
        f'<text class="type" x="{x + 7}" y="{y + 34}">{_words(_short(types, 20))}</text>'
        f'<text class="type" x="{x + 7}" y="{y + 48}">{_words(_short(shape, 20))}</text></g>'
    )


def _weighted_name(kernel: Kernel) -> str:
    return _last_part((*kernel.layers, kernel.name)[0])


def _own_name(kernel: Kernel, weighted: set[str]) -> str:
    """Return what a kernel without weights does: ``add, relu, Q``."""
    parts = [_last_part(n) for n in kernel.layers if n not in weighted and not _is_qdq(n)]
    if any(_is_qdq(name) and "dequantize" not in name.lower() for name in kernel.layers):
        parts.append("Q")
    return ", ".join(dict.fromkeys(parts)) or kernel.name.removeprefix("__myl_")


def _is_qdq(layer: str) -> bool:
    return "quantize" in layer.lower()


def _last_part(layer: str) -> str:
    """Return the end of a layer's name, which tells it apart within its block."""
    parts = layer.split("/")
    own = parts[-2] if len(parts) > 2 else layer  # PyTorch's exporter ends it with the operator
    last = own.rpartition(".")[2]
    return ".".join(own.split(".")[-2:]) if last.isdecimal() else last


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
