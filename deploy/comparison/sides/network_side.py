"""The network that TensorRT's parser makes of an ONNX file, as a model of a comparison.

It shows what TensorRT was asked to compute, not what its kernels compute.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from deploy.comparison.graphs.holding import AS_IT_IS, Holding, Holdings
from deploy.comparison.graphs.wiring import Wiring
from deploy.comparison.sides.onnx_side import onnx_side, subject_of
from deploy.comparison.sides.side import Side, Walker
from deploy.networks.network import Network, read_network
from exporter.session import Tensors

__all__ = ["NetworkPieces", "network_side"]


def network_side(path: Path) -> Side:
    """Let TensorRT parse an ONNX file for comparison.

    Raises:
        InputError: It cannot be read, or is not a network of one image input.
        BuildError: TensorRT would not build it.
        MissingBackendError: No TensorRT is installed, or it does not start here.
        GraphError: It has a layer that the evaluation does not know.
    """
    side = onnx_side(path)
    network = read_network(path)
    own = {held.name: name for name, held in side.holdings.items()}
    there = {own.get(name, name) for name in network.facts}
    makers = {name: maker for name, maker in side.wiring.makers.items() if name in there}
    cuts = tuple(name for name in side.wiring.cuts if name in there)
    wiring = replace(side.wiring, makers=makers, cuts=cuts)

    def open_pieces(chosen: Sequence[str], outputs: Collection[str], runs: int) -> Walker:
        del runs  # they share one pool of threads
        return NetworkPieces(network, wiring, chosen, outputs, side.holdings)

    backend = f"parsed by {network.flavour}, evaluated on the CPU"
    return replace(
        side,
        where=f"trt-network:{path}",
        subject=subject_of(path, side.card, "trt-network:", backend),
        wiring=wiring,
        open=open_pieces,
    )


class NetworkPieces:
    """A network of TensorRT's that runs piece by piece, freely or on other tensors.

    Args:
        network: It.
        wiring: Of the ONNX file, less what TensorRT has no tensor for.
        cuts: Where to cut it: some of the wiring's cuts, in order.
        outputs: Tensors to return; the cuts are always returned.
        holdings: How the network holds tensors that it does not hold as they are.
    """

    def __init__(
        self,
        network: Network,
        wiring: Wiring,
        cuts: Sequence[str],
        outputs: Collection[str],
        holdings: Holdings,
    ) -> None:
        self._network = network
        self._holdings = holdings
        edges = [-1, *(wiring.makers[cut].position for cut in cuts), len(network.layers) + 10**9]
        wanted = {*outputs, *cuts}
        self._pieces = [
            [n for n, m in wiring.makers.items() if first < m.position <= last and n in wanted]
            for first, last in pairwise(edges)
        ]
        self._ends = (*cuts, None)
        self._makers = {layer.output.name: layer for layer in network.layers}
        self._reads: dict[str, tuple[str, ...]] = {}

    def free(self, at: int, entry: Tensors) -> tuple[Tensors, Tensors]:
        """Run a piece; return what it makes, by name, and what the next one begins with."""
        names = {self._inner(name): name for name in self._pieces[at]}
        made = self._network.evaluate(entry, list(names))
        end = self._ends[at]
        following = {self._inner(end): made[self._inner(end)]} if end else {}
        whole = {names[inner]: self._held(names[inner]).whole(a) for inner, a in made.items()}
        return whole, following

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Tensors:
        """Run every layer of a piece on tensors of another network, each on its own.

        Args:
            at: Which piece.
            entry: The other network's tensor that the piece begins with, held as here.
            given: Its tensors to take the place of those that this piece makes, by name and held
                as here.

        Returns:
            What the layers made of them: those of ``given`` that are made here, by name.
        """
        feeds = {self._inner(name): array for name, array in (entry | given).items()}
        result: Tensors = {}
        for name in self._pieces[at]:
            if name in given:
                inner = self._inner(name)
                read = {n: feeds[n] for n in self._sources(inner, feeds)}
                made = self._network.evaluate(read, [inner])[inner]
                result[name] = self._held(name).whole(made)
        return result

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type in which the network holds a tensor."""
        return self._network.facts[self._inner(name)].dtype

    def _sources(self, name: str, fed: Collection[str]) -> tuple[str, ...]:
        """Return the fed tensors that lead to a tensor with no other fed one between."""
        if name not in self._reads:
            found: dict[str, None] = {}
            todo = list(self._makers[name].inputs) if name in self._makers else []
            while todo:
                read = todo.pop()
                if read is None:
                    continue
                if read in fed:
                    found[read] = None
                elif read in self._makers:
                    todo += self._makers[read].inputs
            self._reads[name] = tuple(found)
        return self._reads[name]

    def _inner(self, name: str) -> str:
        """Return the name that the network has for a tensor."""
        return self._held(name).name or name

    def _held(self, name: str) -> Holding:
        return self._holdings.get(name, AS_IT_IS)
