"""An ONNX network that runs piece by piece, freely or on another network's tensors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from deploy.segments import OWN, Wiring, piece
from exporter.session import Session, Tensors, open_session

__all__ = ["Pieces"]


class Pieces:
    """A network in ONNX Runtime, optimizations off, cut into pieces that run in turn.

    Args:
        model: The network; it is let go of by :meth:`settle`.
        wiring: Its wiring.
        cuts: Where to cut it: some of the wiring's cuts, in order.
        outputs: Tensors to return; the cuts are always returned.

    Attributes:
        count: Pieces there are.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        wiring: Wiring,
        cuts: Sequence[str],
        outputs: Collection[str],
    ) -> None:
        self.count = len(cuts) + 1
        self._model: onnx.ModelProto | None = model
        self._wiring = wiring
        self._edges = (None, *cuts, None)
        self._outputs = {*outputs, *cuts}
        self._sessions: dict[tuple[int, bool], Session] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def end(self, at: int) -> str | None:
        """Return the cut that piece ``at`` ends with; None for the last piece."""
        return self._edges[at + 1]

    def free(self, at: int, entry: Tensors) -> Tensors:
        """Run a piece on what its predecessor made.

        Args:
            at: Which piece.
            entry: The tensor it begins with; for the first piece, the network's inputs.

        Returns:
            Those of ``outputs`` that this piece makes, by name.
        """
        made = self._session(at, entry, ())(entry)
        self._dtypes |= {name: array.dtype for name, array in (entry | made).items()}
        return made

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Tensors:
        """Run every layer of a piece on tensors of another network, each on its own.

        Args:
            at: Which piece; it must have run freely before.
            entry: The other network's tensor that the piece begins with.
            given: Its tensors to take the place of those that this piece makes, by name;
                the same names at every call. Each is rounded to the type this network has.

        Returns:
            What the layers made of them: those of ``given`` that are made here, by name.
        """
        feeds = {
            name: array.astype(self._dtypes[name], copy=False)
            for name, array in (entry | given).items()
        }
        session = self._session(at, feeds, given)
        result = session({info.name: feeds[info.name] for info in session.inputs})
        return {name.removesuffix(OWN): array for name, array in result.items()}

    def settle(self) -> None:
        """Let go of the model: every piece has run in every way it will, and is open."""
        self._model = None

    def _session(
        self, at: int, feeds: Mapping[str, npt.NDArray[Any]], given: Collection[str]
    ) -> Session:
        """Return the session of a piece; the first call opens it, for the types of ``feeds``."""
        key = (at, bool(given))
        if key not in self._sessions:
            if self._model is None:
                raise RuntimeError(f"piece {at} has not been opened before settle()")
            outputs = given or self._outputs
            model = piece(
                self._model,
                self._wiring,
                (self._edges[at], self._edges[at + 1]),
                outputs=outputs,
                feeds=feeds,
                given=given,
            )
            self._sessions[key] = open_session(model, alone=False)
        return self._sessions[key]
