"""An ONNX network that runs piece by piece, freely or on another network's tensors.

A network in INT8 may hold tensors otherwise than they are
(:mod:`deploy.comparison.graphs.holding`). They go in as it holds them, and come out with how
that is.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.graphs.graph import Graph
from deploy.comparison.graphs.holding import AS_IT_IS, Held, Holding, Holdings, Made
from deploy.comparison.graphs.segments import OWN, piece
from deploy.comparison.graphs.wiring import Wiring
from exporter.session import Session, Shared, Tensors, open_session

__all__ = ["Pieces"]


class Pieces:
    """A network in ONNX Runtime, optimizations off, cut into pieces that run in turn.

    Args:
        graph: The network; its weights are shared by all pieces.
        wiring: Its wiring.
        cuts: Where to cut it: some of the wiring's cuts, in order.
        outputs: Tensors to return; the cuts are always returned.
        holdings: How the network holds tensors that it does not hold as they are.
        runs: How many runs are under way at once; they share the CPUs.

    Attributes:
        count: Pieces there are.
    """

    def __init__(
        self,
        graph: Graph,
        wiring: Wiring,
        cuts: Sequence[str],
        outputs: Collection[str],
        holdings: Holdings,
        runs: int = 1,
    ) -> None:
        self.count = len(cuts) + 1
        self._graph = graph
        self._wiring = wiring
        self._edges = (None, *cuts, None)
        self._outputs = {*outputs, *cuts}
        self._holdings = holdings
        self._threads = max(1, len(os.sched_getaffinity(0)) // runs)
        self._opening = Lock()
        self._sessions: dict[tuple[int, bool], Session] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def end(self, at: int) -> str | None:
        """Return the cut that piece ``at`` ends with; None for the last piece."""
        return self._edges[at + 1]

    def free(self, at: int, entry: Tensors) -> tuple[Made, Tensors]:
        """Run a piece on what its predecessor made.

        Args:
            at: Which piece.
            entry: The network's inputs, or what the piece before returned for this one.

        Returns:
            Those of ``outputs`` that this piece makes, by name; and what the next begins with.
        """
        made = self._session(at, entry, ())(entry)
        self._dtypes |= {name: array.dtype for name, array in (entry | made).items()}
        end = self._edges[at + 1]
        # As the network holds it: there and back again would move its bits.
        following = {end: made[end]} if end else {}
        return {name: self._made(name, array) for name, array in made.items()}, following

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Made:
        """Run every layer of a piece on tensors of another network, each on its own.

        Args:
            at: Which piece; it must have run freely before.
            entry: The other network's tensor that the piece begins with, held as here.
            given: Its tensors to take the place of those that this piece makes, by name and held
                as here; the same names at every call. Each is rounded to the type this network has.

        Returns:
            What the layers made of them: those of ``given`` that are made here, by name.
        """
        with np.errstate(over="ignore"):  # what this network's type cannot hold is infinite in it
            feeds = {
                name: array.astype(self._dtypes[name], copy=False)
                for name, array in (entry | given).items()
            }
        session = self._session(at, feeds, given)
        result = session({info.name: feeds[info.name] for info in session.inputs})
        names = {name: name.removesuffix(OWN) for name in result}
        return {own: self._made(own, result[name]) for name, own in names.items()}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type in which the network holds a tensor that it has made."""
        return self._dtypes[name]

    def _made(self, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any] | Held:
        held = self._held(name)
        return array if held.as_it_is else Held(array, held)

    def _held(self, name: str) -> Holding:
        return self._holdings.get(name, AS_IT_IS)

    def _session(
        self, at: int, feeds: Mapping[str, npt.NDArray[Any]], given: Collection[str]
    ) -> Session:
        """Return the session of a piece; the first call opens it, for the types of ``feeds``."""
        key = (at, bool(given))
        with self._opening:
            if key not in self._sessions:
                model = piece(
                    self._graph.model,
                    self._wiring,
                    (self._edges[at], self._edges[at + 1]),
                    outputs=given or self._outputs,
                    feeds=feeds,
                    given=given,
                )
                names = {initializer.name for initializer in model.graph.initializer}
                weights = {n: w for n, w in self._graph.weights.items() if n in names}
                shared = Shared(model.SerializeToString(), weights)
                self._sessions[key] = open_session(shared, threads=self._threads, alone=False)
            return self._sessions[key]
