"""Run a graph piece by piece in ONNX Runtime, so that few of its tensors are in memory at once.

A piece is a run of neighbouring nodes; what later ones still read is fed to the next piece.
Every node runs once, by the same kernel as in the whole graph: with ONNX Runtime's
optimizations off, the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy.typing as npt
import onnx

from exporter.session import Session, Shared, Tensors, open_session

__all__ = ["Pieces", "reads"]

_NO_TENSORS = ("Sequence", "Optional")  # in the names of operators that make or take such


class Pieces:
    """A graph cut into pieces, each opened when it is first run; threads may run them at once.

    Args:
        model: Any graph.
        sizes: Tensors to return → their bytes in one run.
        limit: Bytes of such tensors that a piece may make; a node is never cut.
        weights: Initializers whose data lie elsewhere → that; the pieces that need one share it,
            and all pieces the memory they work in (:class:`~exporter.session.Shared`).
        threads: Threads within an operator; 0 is one for each CPU.
        name: What messages call the model.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        sizes: Mapping[str, int],
        limit: int,
        weights: Mapping[str, npt.NDArray[Any]] | None = None,
        *,
        threads: int = 0,
        name: str = "",
    ) -> None:
        self._model = model
        self._wanted = sizes.keys()
        self._weights = {weight.name: weight for weight in model.graph.initializer}
        self._shared = weights
        self._options: dict[str, Any] = {"threads": threads, "alone": False, "name": name}
        self._pieces = list(_cut(model, sizes, limit))
        self._last = _last_reads(self._pieces)
        self._opening = Lock()
        self._sessions: dict[int, Session] = {}

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self._pieces)

    def close(self) -> None:
        """Give the memory of all pieces back; what runs next opens them again."""
        for session in self._sessions.values():
            session.close()
        self._sessions.clear()

    def run(self, feed: Tensors) -> Iterator[Tensors]:
        """Yield the wanted tensors of each piece, in graph order.

        Raises:
            GraphError: ONNX Runtime cannot run a node; it is named.
        """
        live = dict(feed)
        for number in range(self.count):
            yield self._step(number, live)

    def _step(self, number: int, live: Tensors) -> Tensors:
        """Run a piece; return what is wanted of it, and leave in ``live`` what is still read."""
        session = self._session(number, live)
        made = session({info.name: live[info.name] for info in session.inputs})
        live |= made
        for name in [name for name in live if self._last.get(name, -1) <= number]:
            del live[name]
        return {name: made[name] for name in session.outputs if name in self._wanted}

    def _session(self, number: int, live: Tensors) -> Session:
        with self._opening:
            if number not in self._sessions:
                self._sessions[number] = self._open(number, self._pieces[number], live)
            return self._sessions[number]

    def _open(self, number: int, nodes: Sequence[onnx.NodeProto], live: Tensors) -> Session:
        """Open a piece: its nodes, the weights they read, and inputs shaped like ``live``."""
        read = {name for node in nodes for name in reads(node)}
        made = [name for node in nodes for name in node.output if name]
        piece = onnx.ModelProto(ir_version=max(self._model.ir_version, 4))
        piece.opset_import.extend(self._model.opset_import)
        piece.functions.extend(self._model.functions)
        graph = piece.graph
        graph.name = "piece"
        graph.node.extend(nodes)
        graph.initializer.extend(w for name, w in self._weights.items() if name in read)
        graph.sparse_initializer.extend(self._model.graph.sparse_initializer)
        for name in sorted(read & live.keys() - self._weights.keys()):
            kind = onnx.helper.np_dtype_to_tensor_dtype(live[name].dtype)
            free = [f"{name}.{axis}" for axis in range(live[name].ndim)]
            graph.input.append(onnx.helper.make_tensor_value_info(name, kind, free))
        for name in made:
            if name in self._wanted or self._last.get(name, -1) > number:
                graph.output.add().name = name  # ONNX Runtime infers the type
        if self._shared is None:
            return open_session(piece, **self._options)
        inside = {weight.name for weight in graph.initializer}
        weights = {name: self._shared[name] for name in self._shared if name in inside}
        shared = Shared(piece.SerializeToString(), weights)
        return open_session(shared, **self._options)


def _cut(
    model: onnx.ModelProto, sizes: Mapping[str, int], limit: int
) -> Iterator[list[onnx.NodeProto]]:
    """Yield the pieces; one of all nodes where something other than tensors goes between."""
    infos = (*model.graph.value_info, *model.graph.output, *model.graph.input)
    whole = any(info.type.WhichOneof("value") not in (None, "tensor_type") for info in infos)
    whole |= any(word in node.op_type for node in model.graph.node for word in _NO_TENSORS)
    nodes: list[onnx.NodeProto] = []
    held = 0
    for node in model.graph.node:
        size = sum(sizes.get(name, 0) for name in node.output)
        if nodes and held + size > limit and not whole:
            yield nodes
            nodes, held = [], 0
        nodes.append(node)
        held += size
    if nodes:
        yield nodes


def _last_reads(pieces: Sequence[Sequence[onnx.NodeProto]]) -> dict[str, int]:
    """Return each tensor that is read → the last piece that reads it."""
    return {
        name: number
        for number, nodes in enumerate(pieces)
        for node in nodes
        for name in reads(node)
    }


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names that a node reads, its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from reads(inner)
            yield from (output.name for output in graph.output)
