"""A model for ONNX Runtime to read, with inner tensors among its outputs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from core.artifacts import regular
from core.errors import InputError, OutputError
from exporter.session_errors import not_onnx

__all__ = ["readable"]


@contextmanager
def readable(
    model: Path | bytes | onnx.ModelProto, outputs: Sequence[str] | None, where: str
) -> Iterator[str | bytes]:
    """Yield what ONNX Runtime should read: the model, with ``outputs`` appended.

    Two serialized messages, one behind the other, parse as their merge, and repeated
    fields of a merge are appended: the model needs no copy in memory. It goes through a
    file, because onnxruntime holds on to the bytes it is given.
    """
    tail, external = b"", False
    if outputs is not None:
        graph = model.graph if isinstance(model, onnx.ModelProto) else _parse(model, where)
        tail = _appended(graph, outputs, where)
        external = any(weight.data_location for weight in graph.initializer)
        del graph
    if isinstance(model, bytes) or external:  # weights elsewhere are found from bytes alone
        yield (model if isinstance(model, bytes) else _bytes(model)) + tail
        return
    with tempfile.TemporaryDirectory(prefix="strata-") as folder:
        file = Path(folder, "model.onnx")
        try:
            with file.open("wb") as copy:
                if isinstance(model, Path):
                    with model.open("rb") as original:
                        shutil.copyfileobj(original, copy)
                else:
                    copy.write(_bytes(model))
                copy.write(tail)
        except OSError as err:
            raise OutputError(
                f"{where}: no room for a copy in {tempfile.gettempdir()} ({err.strerror})",
                hint="free some space, or point TMPDIR at another folder",
            ) from err
        yield str(file)


def _appended(graph: onnx.GraphProto, outputs: Sequence[str], where: str) -> bytes:
    """Return a message that adds outputs; their types are left to ONNX Runtime to infer."""
    own = {output.name for output in graph.output}
    known = {name for node in graph.node for name in node.output} | {i.name for i in graph.input}
    more = onnx.ModelProto()
    for name in dict.fromkeys(outputs):
        if name not in known:
            raise InputError(
                f"{where}: no tensor named {name!r}", hint="name a node's output of this graph"
            )
        if name not in own:
            more.graph.output.add().name = name
    return _bytes(more)


def _parse(model: Path | bytes, where: str) -> onnx.GraphProto:
    """Return the graph of a serialized model."""
    try:
        return onnx.load_model_from_string(_bytes(model)).graph
    except OSError as err:
        raise InputError(
            f"{where}: cannot be read ({err.strerror})", hint="check the path and its permissions"
        ) from err
    except DecodeError as err:
        raise not_onnx(where) from err


def _bytes(model: Path | bytes | onnx.ModelProto) -> bytes:
    """Return a model as a serialized message."""
    if isinstance(model, Path):
        return regular(model).read_bytes()
    if isinstance(model, bytes):
        return model
    data: bytes = model.SerializeToString()
    return data
