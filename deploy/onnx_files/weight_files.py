"""The files beside an ONNX file that hold its weights, found with distrust.

An ONNX file may name any path for its weights, anywhere in the graph, and TensorRT would
read it. Only files inside the model's own folder are let through.

Source: onnx.proto3 (field numbers); CVE-2022-25882 and its kin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from core.errors import InputError
from deploy.onnx_files.protobuf_wire import fields, message, number, text

__all__ = ["weight_files", "weight_names"]

_EXTERNAL = 1  # TensorProto.DataLocation


def weight_files(data: bytes, path: Path) -> tuple[Path, ...]:
    """Return the weight files of an ONNX model, sorted, each once.

    Args:
        data: The whole ONNX file.
        path: Where it lies.

    Raises:
        InputError: A file that is missing, or that is not in the model's folder.
    """
    return tuple(_inside(path, name) for name in weight_names(data, str(path)))


def weight_names(data: bytes, where: str) -> tuple[str, ...]:
    """Return what an ONNX model calls its weight files, sorted, each once; () for none.

    Args:
        data: The whole ONNX file.
        where: Its name, for the error text.

    Raises:
        InputError: Not ONNX.
    """
    try:
        return tuple(sorted(set(_of(_MODEL, memoryview(data)))))
    except (ValueError, RecursionError) as err:
        raise InputError(
            f"{where}: not an ONNX model, or a broken one ({err})", hint="export it again"
        ) from err


def _inside(path: Path, name: str) -> Path:
    folder = path.parent.resolve()
    file = folder / name
    if not name or "\0" in name or not file.resolve().is_relative_to(folder):
        raise InputError(
            f"{path}: its weights at {name!r} are not in the model's folder",
            hint="export the model with its weights beside it; trust no model that asks this",
        )
    if not file.is_file():
        raise InputError(
            f"{path}: its weights file {name!r} is missing", hint="copy it beside the model"
        )
    return path.parent / name


# A walk is a table: field number → how to walk the message in that field.
_Walk = Mapping[int, Callable[[memoryview], Iterator[str]]]


def _of(walk: _Walk, data: memoryview) -> Iterator[str]:
    for field, value in fields(data):
        if field in walk:
            yield from walk[field](message(value))


def _tensor(data: memoryview) -> Iterator[str]:
    location, external = "", False
    for field, value in fields(data):
        if field == 13:
            entry = dict(fields(message(value)))
            location = text(entry.get(2)) if text(entry.get(1)) == "location" else location
        elif field == 14:
            external = number(value) == _EXTERNAL
    if external:
        yield location


def _sparse(data: memoryview) -> Iterator[str]:
    return _of({1: _tensor, 2: _tensor}, data)


def _attribute(data: memoryview) -> Iterator[str]:
    walk = {5: _tensor, 6: _graph, 10: _tensor, 11: _graph, 22: _sparse, 23: _sparse}
    return _of(walk, data)


def _node(data: memoryview) -> Iterator[str]:
    return _of({5: _attribute}, data)


def _graph(data: memoryview) -> Iterator[str]:
    return _of({1: _node, 5: _tensor, 15: _sparse}, data)


def _function(data: memoryview) -> Iterator[str]:
    return _of({7: _node, 11: _attribute}, data)


_MODEL: _Walk = {7: _graph, 25: _function}
