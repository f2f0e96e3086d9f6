"""An engine that was built to show the tensors within it, as a model of a comparison.

It runs whole, once for each piece of the others, and shows that piece's tensors: memory is
that of a piece, not of the network. Its layers cannot be fed, so what a layer inherits and what
it adds cannot be told apart; ``trt-network:`` of its ONNX file can be fed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from deploy.comparison.graphs.holding import AS_IT_IS, Holdings
from deploy.comparison.graphs.wiring import Wiring
from deploy.comparison.sides.side import Side, Walker
from deploy.runners.engine_tensors import InnerTensors
from exporter.session import Tensors

__all__ = ["EnginePieces", "debug_side"]

_BEHIND_ALL = 10**9  # no graph has as many nodes


def debug_side(engine: Side, graph: Side, tensors: InnerTensors) -> Side:
    """Return an engine with the tensors it shows.

    Args:
        engine: It, as its outputs show it.
        graph: The ONNX file that it was built from.
        tensors: What it shows.
    """
    own = {held.name: name for name, held in graph.holdings.items()}
    there = {own.get(name, name) for name in tensors.names} | engine.outputs.keys()
    makers = {name: maker for name, maker in graph.wiring.makers.items() if name in there}
    cuts = tuple(name for name in graph.wiring.cuts if name in there)
    wiring = replace(graph.wiring, makers=makers, cuts=cuts)

    def open_pieces(chosen: Sequence[str], outputs: Collection[str], runs: int) -> Walker:
        del runs  # one: it is alone
        return EnginePieces(tensors, wiring, chosen, outputs, graph.holdings)

    return replace(
        graph,
        where=engine.where,
        subject=engine.subject,
        card=engine.card,
        image=engine.image,
        outputs=engine.outputs,
        wiring=wiring,
        open=open_pieces,
        feedable=False,
        alone=True,
    )


class EnginePieces:
    """An engine that runs whole for each piece, and shows the tensors of that piece.

    Args:
        tensors: What it shows.
        wiring: Of its ONNX file, less what it does not show.
        cuts: Where the models are cut, in order.
        outputs: Tensors to return.
        holdings: How the network holds tensors that it does not hold as they are.
    """

    def __init__(
        self,
        tensors: InnerTensors,
        wiring: Wiring,
        cuts: Sequence[str],
        outputs: Collection[str],
        holdings: Holdings,
    ) -> None:
        self._tensors, self._holdings = tensors, holdings
        edges = [-1, *(wiring.makers[cut].position for cut in cuts), _BEHIND_ALL]
        wanted = {*outputs, *cuts}
        self._pieces = [
            [n for n, m in wiring.makers.items() if first < m.position <= last and n in wanted]
            for first, last in pairwise(edges)
        ]
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def free(self, at: int, entry: Tensors) -> tuple[Tensors, Tensors]:
        """Run the engine; return the tensors of a piece, by name, and the engine's inputs again."""
        names = {self._holdings.get(n, AS_IT_IS).name or n: n for n in self._pieces[at]}
        if not names:
            return {}, entry
        made = self._tensors.run(entry, names)
        self._dtypes |= {names[inner]: made[inner].dtype for inner in names}
        whole = {
            name: self._holdings.get(name, AS_IT_IS).whole(made[inner])
            for inner, name in names.items()
        }
        return whole, entry

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Tensors:
        """Return nothing: no layer of it can be fed."""
        del at, entry, given
        return {}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type in which the engine holds a tensor that it has made."""
        return self._dtypes[name]
