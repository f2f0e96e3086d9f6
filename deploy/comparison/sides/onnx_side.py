"""An ONNX file as a model of a comparison, run by ONNX Runtime, optimizations off."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.comparison.graphs.graph import Graph, split_weights
from deploy.comparison.graphs.holding import Holdings, holdings_of
from deploy.comparison.graphs.layer_facts import strides_of
from deploy.comparison.graphs.quantizers import quantizers_of
from deploy.comparison.graphs.tensor_shapes import tensor_shapes, unpacked_bytes
from deploy.comparison.graphs.wiring import Wiring, wiring_of
from deploy.comparison.sides.pieces import Pieces
from deploy.comparison.sides.side import Side, Walker
from deploy.comparison.values.report import Subject
from exporter.card import Card
from exporter.onnx_file import card_of, load
from exporter.quantization.table import CalibrationTable
from exporter.session import TensorInfo

__all__ = ["onnx_side", "subject_of"]


def onnx_side(path: Path) -> Side:
    """Open an ONNX file for comparison.

    Raises:
        InputError: It cannot be read, or is not a network of one image input.
    """
    graph, card, holdings = _load(path)
    model = graph.model
    wiring = wiring_of(model)

    def open_pieces(cuts: Sequence[str], outputs: Collection[str], runs: int) -> Walker:
        return Pieces(graph, wiring, cuts, outputs, holdings, runs)

    def inferred(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        return tensor_shapes(model, shapes)

    return Side(
        where=str(path),
        subject=subject_of(path, card),
        card=card,
        image=_image_of(model, wiring, str(path)),
        outputs={value.name: _info(value).shape for value in model.graph.output},
        wiring=wiring,
        quantizers=quantizers_of(graph, holdings),
        holdings=holdings,
        strided=strides_of(graph),
        amaxes=_amaxes(path, card),
        open=open_pieces,
        graph=graph,
        shapes=inferred,
        unpacked=unpacked_bytes(model),
    )


def subject_of(path: Path, card: Card, kind: str = "", backend: str = "ONNX Runtime") -> Subject:
    """Return what a report says of a file."""
    return Subject(
        name=kind + path.name,
        file=path.name,
        sha256=sha256_file(path),
        stage=card.stage,
        backend=backend,
        file_bytes=path.stat().st_size,
        parents=dict(sorted(card.parents.items())) or None,
        synthetic=card.synthetic,
        cautions=card.cautions,
    )


def _amaxes(path: Path, card: Card) -> dict[str, float]:
    """Return what the calibration table chose that the graph was made with, if it is there."""
    beside = path.with_name("calibration.json")
    if "calibration" not in card.parents or not beside.is_file():
        return {}
    try:
        if sha256_file(beside) != card.parents["calibration"]:
            return {}  # of another graph of this folder
        return {n: chosen.amax for n, chosen in CalibrationTable.read(beside).tensors.items()}
    except InputError:
        return {}  # an older one; the table is a help, not a need


def _load(path: Path) -> tuple[Graph, Card, Holdings]:
    """Read an ONNX file, with the tensors that it holds otherwise under their own names.

    Returns:
        The graph, its card, and how it holds those tensors.

    Raises:
        InputError: It cannot be read.
    """
    model = load(path)
    card = card_of(model, where=str(path))
    there = {name for node in model.graph.node for name in node.output}
    holdings = holdings_of(card, there, str(path))
    _take_own_names(model, {held.name: name for name, held in holdings.items()})
    return split_weights(model), card, holdings


def _take_own_names(model: onnx.ModelProto, renamed: Mapping[str, str]) -> None:
    """Give tensors other names in place: held name → own name."""
    for node in model.graph.node:
        for names in (node.input, node.output):
            for at, name in enumerate(names):
                if name in renamed:
                    names[at] = renamed[name]
    for output in model.graph.output:
        output.name = renamed.get(output.name, output.name)


def _image_of(model: onnx.ModelProto, wiring: Wiring, where: str) -> TensorInfo:
    """Return the only input of a graph.

    Raises:
        InputError: It has several, or one that is no image.
    """
    inputs = [value for value in model.graph.input if value.name in wiring.inputs]
    if len(inputs) != 1:
        names = ", ".join(wiring.inputs)
        raise InputError(
            f"{where}: {len(inputs)} inputs ({names}); Strata feeds one, the image",
            hint="export the network with its image as the only input",
        )
    image = _info(inputs[0])
    if image.dtype.kind != "f":
        raise InputError(
            f"{where}: its input {image.name!r} is {image.dtype}, not real numbers",
            hint="export the network without its preprocessing: Strata does that",
        )
    return image


def _info(value: onnx.ValueInfoProto) -> TensorInfo:
    """Read a graph input or output."""
    tensor = value.type.tensor_type
    dims = tensor.shape.dim
    shape = tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims)
    return TensorInfo(value.name, shape, np.dtype(tensor_dtype_to_np_dtype(tensor.elem_type)))
