"""Where everything in the picture of an engine goes: boxes in rows, lines between them.

Sizes and places are in pixels of the picture.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from deploy.inspect.blocks import Row, rows_of
from deploy.inspect.kernels import KernelGraph, Tensor

__all__ = ["BOX_HEIGHT", "BOX_WIDTH", "Box", "Edge", "Layout", "lay_out"]

BOX_WIDTH, BOX_HEIGHT = 114, 58
_GAP = 42  # between boxes: room for a number
_LEFT, _TOP, _MARGIN = 130, 150, 46
_PITCH = BOX_HEIGHT + 62  # from row to row
_STUB = 34  # length of the line of an input or output of the network
_ARC = 24  # height of a line that passes over boxes
_LANE = 7  # between lines that run side by side

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Box:
    """A kernel's place: upper left corner."""

    kernel: int
    x: float
    y: float


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor on its way from one kernel to another.

    Attributes:
        source: Kernel that writes it; None for an input of the network.
        target: Kernel that reads it; None for an output of the network.
        path: As SVG writes it.
        label_at: Where its size stands.
    """

    tensor: Tensor
    source: int | None
    target: int | None
    path: str
    label_at: Point


@dataclass(frozen=True, slots=True)
class Layout:
    """The whole picture."""

    rows: tuple[tuple[Row, float], ...]  # with the row's upper edge
    boxes: tuple[Box, ...]
    edges: tuple[Edge, ...]
    width: float
    height: float


def lay_out(graph: KernelGraph) -> Layout:
    """Return where the kernels of a graph and the tensors between them go."""
    rows = rows_of(graph)
    boxes: dict[int, Box] = {}
    row_of: dict[int, int] = {}
    for number, row in enumerate(rows):
        for column, kernel in enumerate(row.kernels):
            x = _LEFT + column * (BOX_WIDTH + _GAP)
            boxes[kernel] = Box(kernel, x, _TOP + number * _PITCH)
            row_of[kernel] = number
    longest = max((len(row.kernels) for row in rows), default=1)
    right = _LEFT + longest * (BOX_WIDTH + _GAP)
    edges = _Router(boxes, row_of, right).edges(graph)
    return Layout(
        rows=tuple((row, _TOP + number * _PITCH) for number, row in enumerate(rows)),
        boxes=tuple(boxes.values()),
        edges=tuple(edges),
        width=max(right + _MARGIN, 900),
        height=_TOP + len(rows) * _PITCH,
    )


@dataclass(slots=True)
class _Router:
    """Draws lines; ``right`` is the edge of the boxes, beyond which long lines run down."""

    boxes: dict[int, Box]
    row_of: dict[int, int]
    right: float

    def edges(self, graph: KernelGraph) -> list[Edge]:
        """Return a line from each kernel to each one that reads what it writes."""
        writers: dict[str, list[int]] = defaultdict(list)
        found: list[Edge] = []
        lanes: dict[int, list[int]] = defaultdict(list)  # row → kernels that leave it
        for target, kernel in enumerate(graph.kernels):
            for tensor in kernel.inputs:
                if tensor.buffer not in writers:
                    found.append(self._input(tensor, target))
                for source in writers.get(tensor.buffer, ()):
                    found.append(self._edge(tensor, source, target, lanes))
            for tensor in kernel.outputs:
                writers[tensor.buffer].append(target)
        read = {tensor.buffer for kernel in graph.kernels for tensor in kernel.inputs}
        for source, kernel in enumerate(graph.kernels):
            found += [self._output(t, source) for t in kernel.outputs if t.buffer not in read]
        return found

    def _input(self, tensor: Tensor, target: int) -> Edge:
        box = self.boxes[target]
        y = box.y + BOX_HEIGHT / 2
        path = f"M{box.x - _STUB} {y}H{box.x - 5}"
        return Edge(tensor, None, target, path, (box.x - _STUB / 2 - 4, y - 5))

    def _output(self, tensor: Tensor, source: int) -> Edge:
        box = self.boxes[source]
        x, y = box.x + BOX_WIDTH, box.y + BOX_HEIGHT / 2
        path = f"M{x} {y}H{x + _STUB}"
        return Edge(tensor, source, None, path, (x + _STUB / 2, y - 5))

    def _edge(self, tensor: Tensor, source: int, target: int, lanes: dict[int, list[int]]) -> Edge:
        start, end = self.boxes[source], self.boxes[target]
        row, last = self.row_of[source], self.row_of[target]
        if row == last and target == source + 1:
            y = start.y + BOX_HEIGHT / 2
            x, to = start.x + BOX_WIDTH, end.x
            return Edge(tensor, source, target, f"M{x} {y}H{to - 5}", ((x + to) / 2, y - 5))
        if row == last:
            x, to = start.x + BOX_WIDTH * 0.75, end.x + BOX_WIDTH * 0.25
            top = start.y - _ARC
            path = f"M{x} {start.y}C{x} {top} {to} {top} {to} {end.y - 5}"
            near = (0.1 * x + 0.9 * to, start.y - _ARC / 2 - 6)
            return Edge(tensor, source, target, path, near)
        leaving = lanes[row]
        if source not in leaving:
            leaving.append(source)
        lane = leaving.index(source) % 3 * _LANE
        x = start.x + BOX_WIDTH / 2
        to = end.x + BOX_WIDTH * (0.5 if target == source + 1 else 0.35)
        below = start.y + BOX_HEIGHT + 12 + lane
        path = f"M{x} {start.y + BOX_HEIGHT}V{below}"
        if last > row + 1:
            path += f"H{self.right + lane}V{end.y - _PITCH + BOX_HEIGHT + 12 + lane}"
        path += f"H{to}V{end.y - 5}"
        return Edge(tensor, source, target, path, (to + 16, end.y - 9))
