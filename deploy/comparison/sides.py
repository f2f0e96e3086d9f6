"""The two networks of a comparison, and whether they can be compared at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.comparison.report import Subject
from deploy.comparison.rows import Seen
from deploy.comparison.segments import Wiring, wiring_of
from exporter.onnx_file import Card, card_of, load
from exporter.passes.shift import SUFFIX
from exporter.session import TensorInfo

__all__ = ["Side", "check_outputs", "check_pair", "open_side"]

Shape = tuple[int | str | None, ...]


@dataclass(slots=True)
class Side:
    """One of the networks.

    Attributes:
        path: Its file.
        subject: What a report says of it.
        card: What the file says of itself.
        image: Its only input.
        outputs: Declared shape of each output, by name.
        wiring: What depends on what in it.
        shifts: Tensor → constant c, for each that it holds less c (full-range INT8); here
            such a tensor goes by the name that it has elsewhere.
    """

    path: Path
    subject: Subject
    card: Card
    image: TensorInfo
    outputs: dict[str, Shape]
    wiring: Wiring
    shifts: dict[str, float]
    _model: onnx.ModelProto | None

    def take_model(self) -> onnx.ModelProto:
        """Hand the graph over; it is not kept here, so that its memory can be given back."""
        model, self._model = self._model, None
        if model is None:
            raise RuntimeError("the model was taken before")
        return model

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
                f"{self.path}: its input {self.image.name!r} is {_text(shape)}, "
                f"the images come as {_text(images.shape)}",
                hint=f"it takes {batch} at a time: give --batch {batch}, and --images a multiple "
                "of it"
                if batch is not None and batch != len(images)
                else "prepare them for it: --preprocess with its size, or export it with theirs",
            )
        return {self.image.name: images.astype(self.image.dtype, copy=False)}


def open_side(path: Path) -> Side:
    """Open an ONNX file for comparison.

    Raises:
        InputError: It cannot be read, or is not a network of one image input.
    """
    model = load(path)
    card = card_of(model, where=str(path))
    shifts = _take_own_names(model, card.shifts)
    wiring = wiring_of(model)
    inputs = [value for value in model.graph.input if value.name in wiring.inputs]
    if len(inputs) != 1:
        names = ", ".join(wiring.inputs)
        raise InputError(
            f"{path}: {len(inputs)} inputs ({names}); Strata feeds one, the image",
            hint="export the network with its image as the only input",
        )
    image = _info(inputs[0])
    if image.dtype.kind != "f":
        raise InputError(
            f"{path}: its input {image.name!r} is {image.dtype}, not real numbers",
            hint="export the network without its preprocessing: Strata does that",
        )
    subject = Subject(path.name, sha256_file(path), card.stage)
    outputs = {value.name: _info(value).shape for value in model.graph.output}
    return Side(path, subject, card, image, outputs, wiring, shifts, model)


def _take_own_names(model: onnx.ModelProto, shifts: Mapping[str, float]) -> dict[str, float]:
    """Rename each ``T.shifted`` to T in place; return the constants of those there are."""
    nodes = model.graph.node
    there = {name for node in nodes for name in node.output}
    renamed = {
        name + SUFFIX: name for name in shifts if name + SUFFIX in there and name not in there
    }
    for node in nodes:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name in renamed:
                    names[at] = renamed[name]
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)
    return {name: shifts[name] for name in renamed.values()}


def check_pair(reference: Side, candidate: Side) -> None:
    """Refuse two networks that answer different questions.

    Raises:
        InputError: They have other inputs or other classes.
    """
    ours, theirs = candidate.image, reference.image
    if ours.name != theirs.name or not _agree(ours.shape, theirs.shape):
        raise InputError(
            f"{candidate.path}: its input is {ours.name!r} {_text(ours.shape)}, "
            f"that of {reference.path} is {theirs.name!r} {_text(theirs.shape)}",
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
            f"{sides[1].path}: its output {name!r} is {_text(ours)}, "
            f"that of {sides[0].path} is {_text(theirs)}",
            hint="compare two forms of one network: they answer for the same classes",
        )


def _agree(a: Sequence[Any], b: Sequence[Any]) -> bool:
    """Tell whether two shapes agree where both are fixed."""
    return len(a) == len(b) and all(
        x == y or not isinstance(x, int) or not isinstance(y, int)
        for x, y in zip(a, b, strict=True)
    )


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    """Read a graph input or output."""
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)
    return TensorInfo(value.name, shape, np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type)))


def _text(shape: Sequence[Any]) -> str:
    """Write a shape as N×3×224×224."""
    return "×".join("?" if size is None else str(size) for size in shape) or "a scalar"
