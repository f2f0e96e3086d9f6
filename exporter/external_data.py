"""Weights that an ONNX file keeps in other files, read with distrust.

An ONNX file may name any path for its weights. Only a regular file inside the model's own
folder is read: an absolute path, a ``..`` or a symbolic link could pull in any file of the
machine (CVE-2022-25882, CVE-2024-5187 and their kin).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
import onnx

from core.errors import InputError

__all__ = ["load_external_data", "tensors_of"]

# One-byte types of numpy that ONNX does not pack; the others (int4, float6, …) share bytes.
_WHOLE_BYTES = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8, onnx.TensorProto.BOOL)


def load_external_data(model: onnx.ModelProto, path: Path) -> None:
    """Move every external tensor's bytes into the model; check the length of the others.

    Args:
        model: As parsed; changed in place.
        path: The ONNX file; its folder is the only place that is read.

    Raises:
        InputError: A location outside that folder, a missing or too short file, or a
            length that does not fit the tensor's shape and type.
    """
    for tensor in tensors_of(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            tensor.raw_data = _read(tensor, path)
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        elif tensor.HasField("raw_data"):
            _check_length(tensor, len(tensor.raw_data), f"{path}: weights of {tensor.name!r}")


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor in the file: initializers and attributes, subgraphs and functions too."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield sparse.values
                yield sparse.indices
            if attribute.HasField("g"):
                yield from _of_graph(attribute.g)
            for graph in attribute.graphs:
                yield from _of_graph(graph)


def _read(tensor: onnx.TensorProto, path: Path) -> bytes:
    """Return one tensor's bytes from the file it names."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    where = f"{path}: weights of {tensor.name!r}"
    data = _inside(path.parent, entries.get("location", ""), where)
    try:
        offset = int(entries.get("offset", "0"))
        length = int(entries["length"]) if "length" in entries else data.stat().st_size - offset
        if offset < 0 or length < 0 or offset + length > data.stat().st_size:
            raise InputError(
                f"{where}: bytes {offset}…{offset + length} asked of {data.name}, "
                f"which has {data.stat().st_size}",
                hint="copy the model and its weights file again, together",
            )
        _check_length(tensor, length, where)
        with data.open("rb") as file:
            file.seek(offset)
            return file.read(length)
    except ValueError as err:
        raise InputError(
            f"{where}: offset or length is no number ({err})",
            hint="export the model again",
        ) from err
    except OSError as err:
        raise InputError(
            f"{where}: {data.name} cannot be read ({err.strerror})",
            hint="copy the weights file beside the model",
        ) from err


def _inside(folder: Path, location: str, where: str) -> Path:
    """Return the weights file, refusing whatever leaves ``folder``."""
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).anchor
    if not location or "\0" in location or absolute or ".." in parts:
        raise InputError(
            f"{where}: location {location!r} is not inside the model's folder",
            hint="export the model with its weights beside it, and trust no model that asks this",
        )
    path = folder / location
    steps = [path, *path.parents][: len(PurePosixPath(location).parts)]
    if any(step.is_symlink() for step in steps):
        raise InputError(
            f"{where}: {location!r} is a symbolic link, which may lead outside the model's folder",
            hint="put the weights file itself beside the model",
        )
    if not path.is_file():
        raise InputError(
            f"{where}: the file {location!r} is missing or not a file",
            hint="copy the weights file beside the model",
        )
    return path


def _check_length(tensor: onnx.TensorProto, length: int, where: str) -> None:
    """Refuse bytes that cannot be the tensor its shape and type promise."""
    try:
        dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
    except (KeyError, ValueError) as err:
        raise InputError(
            f"{where}: unknown element type {tensor.data_type}", hint="export the model again"
        ) from err
    if dtype.itemsize == 1 and tensor.data_type not in _WHOLE_BYTES:
        return  # packed: the checker knows better
    expected = math.prod(tensor.dims) * dtype.itemsize
    if length != expected:
        raise InputError(
            f"{where}: {length} bytes for {dtype.name} of shape {list(tensor.dims)}, "
            f"which takes {expected}",
            hint="copy the model and its weights file again, together",
        )
