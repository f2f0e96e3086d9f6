"""A PyTorch network as a model of a comparison: its modules, run one by one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from deploy.comparison.graphs.wiring import Step, Wiring, wire
from deploy.comparison.sides.side import Side, Walker
from deploy.comparison.values.report import Subject
from deploy.runners.torch_layers import TorchLayers, TorchModule, open_layers
from exporter.names import INPUT
from exporter.session import TensorInfo, Tensors

__all__ = ["TorchPieces", "torch_side"]


def torch_side(text: str) -> Side:
    """Open a PyTorch network for comparison.

    Args:
        text: A depth, or weights.

    Raises:
        InputError: No such weights.
    """
    layers = open_layers(text)
    steps = (Step(m.path, m.op_type, m.reads, (m.made,)) for m in layers.modules)
    wiring = wire((INPUT,), steps)

    def open_pieces(cuts: Sequence[str], outputs: Collection[str], runs: int) -> Walker:
        del runs  # PyTorch shares the CPUs among them by itself
        return TorchPieces(layers, wiring, cuts, outputs)

    return Side(
        where=f"torch:{text}",
        subject=Subject(
            name=layers.name,
            file=layers.file,
            sha256=layers.sha256,
            stage="weights",
            backend="PyTorch",
            file_bytes=layers.file_bytes,
        ),
        card=layers.card,
        image=TensorInfo(INPUT, ("batch", 3, "height", "width"), np.dtype(np.float32)),
        outputs=dict(layers.outputs),
        wiring=wiring,
        open=open_pieces,
    )


class TorchPieces:
    """A PyTorch network that runs piece by piece, freely or on other tensors.

    Args:
        layers: Its modules.
        wiring: What depends on what.
        cuts: Where to cut it: some of the wiring's cuts, in order.
        outputs: Tensors to return; the cuts are always returned.
    """

    def __init__(
        self,
        layers: TorchLayers,
        wiring: Wiring,
        cuts: Sequence[str],
        outputs: Collection[str],
    ) -> None:
        self._layers = layers
        self._outputs = {*outputs, *cuts}
        self._ends = (*cuts, None)
        edges = [-1, *(wiring.makers[cut].position for cut in cuts), len(layers.modules)]
        self._pieces = [layers.modules[first + 1 : last + 1] for first, last in pairwise(edges)]

    def free(self, at: int, entry: Tensors) -> tuple[Tensors, Tensors]:
        """Run a piece; return what it makes, by name, and what the next one begins with."""
        result = self._run(self._pieces[at], dict(entry), {})
        end = self._ends[at]
        return result, {end: result[end]} if end else {}

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Tensors:
        """Run every module of a piece on tensors of another network, each on its own.

        Args:
            at: Which piece.
            entry: The other network's tensor that the piece begins with.
            given: Its tensors to take the place of those that this piece makes, by name.

        Returns:
            What the modules made of them: those of ``given`` that are made here, by name.
        """
        held = {name: _float32(array) for name, array in (entry | given).items()}
        made = self._run(self._pieces[at], {n: held[n] for n in entry}, held)
        return {name: array for name, array in made.items() if name in given}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return float32, the type of all tensors here."""
        del name
        return np.dtype(np.float32)

    def _run(self, modules: Sequence[TorchModule], values: Tensors, given: Tensors) -> Tensors:
        """Run modules in order; what was given takes the place of what they make."""
        last = {name: at for at, module in enumerate(modules) for name in module.reads}
        result: Tensors = {}
        for at, module in enumerate(modules):
            made = self._layers.apply(module, values)
            if module.made in self._outputs:
                result[module.made] = made
            values[module.made] = given.get(module.made, made)
            for name in module.reads:
                if last[name] == at:
                    values.pop(name, None)
        return result


def _float32(array: Any) -> Any:
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)
