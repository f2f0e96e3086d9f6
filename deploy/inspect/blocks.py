"""Kernels grouped as a reader thinks of them: one row for each block of the network."""

from __future__ import annotations

import re
from dataclasses import dataclass

from deploy.inspect.kernels import WEIGHTED, KernelGraph

__all__ = ["Row", "rows_of"]

_LONGEST_ROW = 8  # boxes


@dataclass(frozen=True, slots=True)
class Row:
    """Consecutive kernels of one block, by their place in the graph.

    Attributes:
        label: ``layer1.0``; empty for what is in no block, as a stem.
        kernels: Places in :attr:`KernelGraph.kernels`.
    """

    label: str
    kernels: tuple[int, ...]


def rows_of(graph: KernelGraph) -> tuple[Row, ...]:
    """Return the kernels of a graph in rows.

    The block of a kernel with weights is the name of its layer without the last part
    (``layer1.0`` for ``layer1.0.conv2``, ``/layer1/layer1.0`` for
    ``/layer1/layer1.0/conv2/Conv``); the others belong to the one before them.
    """
    rows: list[tuple[str, list[int]]] = []
    for place, kernel in enumerate(graph.kernels):
        block = _block(kernel.layers[0]) if kernel.kind in WEIGHTED and kernel.layers else None
        if not rows or (block is not None and not _within(block, rows[-1][0])):
            rows.append((block or "", []))
        elif len(rows[-1][1]) >= _LONGEST_ROW:
            rows.append((rows[-1][0], []))
        rows[-1][1].append(place)
    return tuple(Row(label, tuple(places)) for label, places in rows)


def _block(layer: str) -> str:
    parts = layer.split("/")
    if len(parts) > 2:  # a name of PyTorch's exporter ends with the operator
        return "/".join(parts[:-2])
    return layer.rpartition(".")[0]


def _within(block: str, row: str) -> bool:
    """Tell whether a block is the row's, or a part of it (``layer1.0.downsample``)."""
    return block == row or bool(row and re.match(re.escape(row) + r"[./]", block))
