"""The models of a comparison, and whether they can be compared at all."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from core.errors import InputError
from deploy.comparison.graphs.graph import Graph
from deploy.comparison.graphs.holding import Holdings, Made
from deploy.comparison.graphs.quantizers import Quantizer
from deploy.comparison.graphs.wiring import Wiring
from deploy.comparison.sums.rows import Seen
from deploy.comparison.values.report import Subject
from exporter.card import Card
from exporter.session import TensorInfo, Tensors

__all__ = ["Side", "Walker", "check_outputs", "check_pair"]

Shape = tuple[int | str | None, ...]
Shapes = Mapping[str, tuple[int, ...]]


class Walker(Protocol):
    """A model that runs piece by piece, freely or on another model's tensors.

    It keeps nothing of a run: where `Side.alone` does not say otherwise, several may be under
    way at once, each in a thread of its own.
    """

    def free(self, at: int, entry: Tensors) -> tuple[Made, Tensors]:
        """Run a piece freely.

        Args:
            at: Which piece.
            entry: What it begins with: the model's inputs, or what the piece before returned.

        Returns:
            What it makes, by name; and what the next piece begins with, as the model holds it.
        """

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Made:
        """Run every layer of a piece on another model's tensors.

        Args:
            at: Which piece.
            entry: What the piece begins with, by name and as this model holds it.
            given: Tensors to take the place of those that it makes, likewise.

        Returns:
            What its layers make of them, those of ``given`` that are made here.
        """

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type in which the model holds a tensor that it has made."""


@dataclass(slots=True)
class Side:
    """One of the models.

    Attributes:
        where: Its file or name, for error texts.
        subject: What a report says of it.
        card: What the file says of itself.
        image: Its only input.
        outputs: Declared shape of each output, by name.
        wiring: What depends on what in it.
        open: Opens it: takes the cuts, the tensors to return, and how many runs will be under
            way at once.
        quantizers: Of its activations, by tensor.
        holdings: How it holds tensors that it does not hold as they are.
        strided: Tensors of which a layer reads only every so many elements, and how many.
        amaxes: What calibration chose for its quantizers, where the table lies beside it.
        graph: For facts of its layers; None when it has none.
        shapes: Tensor → shape for inputs of given shapes, where it is known without a run.
        unpacked: Bytes of the weights that are dequantized to make a tensor.
        opaque: Only its outputs can be seen: it runs whole, and no layer of it can be fed.
        feedable: A layer of it can be fed another model's tensors.
        alone: It runs one batch at a time, each as large as it is given.
    """

    where: str
    subject: Subject
    card: Card
    image: TensorInfo
    outputs: dict[str, Shape]
    wiring: Wiring
    open: Callable[[Sequence[str], Collection[str], int], Walker]
    quantizers: Mapping[str, Quantizer] = field(default_factory=dict)
    holdings: Holdings = field(default_factory=dict)
    strided: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    amaxes: Mapping[str, float] = field(default_factory=dict)
    graph: Graph | None = None
    shapes: Callable[[Shapes], Shapes] = field(default=lambda _: {})
    unpacked: Mapping[str, int] = field(default_factory=dict)
    opaque: bool = False
    feedable: bool = True
    alone: bool = False

    def feed(self, images: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[Any]]:
        """Return what this network is fed for some images, float32 (n, 3, h, w).

        Raises:
            InputError: The network takes another shape.
        """
        shape = self.image.shape
        fits = len(shape) == 4 and all(
            size == want or not isinstance(want, int)
            for size, want in zip(images.shape, shape, strict=True)
        )
        if not fits:
            batch = shape[0] if shape and isinstance(shape[0], int) else None
            raise InputError(
                f"{self.where}: its input {self.image.name!r} is {_text(shape)}, "
                f"the images come as {_text(images.shape)}",
                hint=f"it takes {batch} at a time: give --batch {batch}, and --images a multiple "
                "of it"
                if batch is not None and batch != len(images)
                else "prepare them for it: --preprocess with its size, or export it with theirs",
            )
        return {self.image.name: images.astype(self.image.dtype, copy=False)}


def check_pair(reference: Side, candidate: Side) -> None:
    """Refuse two networks that answer different questions.

    Raises:
        InputError: They have other inputs or other classes.
    """
    ours, theirs = candidate.image, reference.image
    if ours.name != theirs.name or not _agree(ours.shape, theirs.shape):
        raise InputError(
            f"{candidate.where}: its input is {ours.name!r} {_text(ours.shape)}, "
            f"that of {reference.where} is {theirs.name!r} {_text(theirs.shape)}",
            hint="compare two forms of one network: they share the input's name and shape",
        )
    for name in reference.outputs.keys() & candidate.outputs.keys():
        _check_output(
            (reference, candidate), name, reference.outputs[name], candidate.outputs[name]
        )


def check_outputs(reference: Side, candidate: Side, seen: Mapping[str, Seen]) -> None:
    """Refuse two networks whose outputs turned out to differ in shape.

    Raises:
        InputError: They answer for other classes.
    """
    for name in reference.outputs:
        if name in seen:
            _check_output((reference, candidate), name, *seen[name].shapes)


def _check_output(
    sides: tuple[Side, Side], name: str, theirs: Sequence[Any], ours: Sequence[Any]
) -> None:
    """Refuse outputs of one name and two shapes."""
    if not _agree(theirs, ours):
        raise InputError(
            f"{sides[1].where}: its output {name!r} is {_text(ours)}, "
            f"that of {sides[0].where} is {_text(theirs)}",
            hint="compare two forms of one network: they answer for the same classes",
        )


def _agree(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Tell whether two shapes agree where both are fixed."""
    return len(a) == len(b) and all(
        x == y or not isinstance(x, int) or not isinstance(y, int)
        for x, y in zip(a, b, strict=True)
    )


def _text(shape: Sequence[Any]) -> str:
    """Write a shape as N×3×224×224."""
    return "×".join("?" if size is None else str(size) for size in shape) or "a scalar"
