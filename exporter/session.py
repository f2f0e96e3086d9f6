"""ONNX Runtime behind one call: names and arrays in, names and arrays out.

The only module that imports onnxruntime, and only when a session is opened.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from core.errors import GraphError, InputError, MissingBackendError, StrataError

__all__ = ["Session", "TensorInfo", "Tensors", "open_session"]

Tensors = dict[str, npt.NDArray[Any]]

_FATAL_ONLY = 4  # ONNX Runtime's severities: 0 verbose … 4 fatal; errors reach us as exceptions


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a graph input is: its name, its shape and the type of its elements."""

    name: str
    shape: tuple[int | str | None, ...]  # a name or None where the dimension is free
    dtype: np.dtype[Any]


class Session:
    """An open model; call it with one array for each input (a ``Tensors -> Tensors`` runner).

    Attributes:
        inputs: What must be fed.
        outputs: The names that a call returns, in this order.
    """

    def __init__(self, native: Any, where: str, errors: tuple[type[Exception], ...]) -> None:
        self.inputs = tuple(
            TensorInfo(i.name, tuple(i.shape), _dtype(i.type)) for i in native.get_inputs()
        )
        self.outputs: tuple[str, ...] = tuple(o.name for o in native.get_outputs())
        self._native = native
        self._where = where
        self._errors = errors

    def __call__(self, feeds: Tensors) -> Tensors:
        """Run the model once.

        Args:
            feeds: One array for each of ``inputs``, by name, of its type and shape.

        Returns:
            One array for each of ``outputs``, by name.

        Raises:
            InputError: An input is missing, unknown, or of another type or shape.
            GraphError: A node failed; it is named.
        """
        self._check(feeds)
        try:
            values = self._native.run(self.outputs, feeds)
        except self._errors as err:
            raise _failure(err, self._where) from err
        return dict(zip(self.outputs, values, strict=True))

    def _check(self, feeds: Tensors) -> None:
        """Refuse feeds that ONNX Runtime would refuse with a text of its own."""
        wanted = {info.name: info for info in self.inputs}
        if feeds.keys() != wanted.keys():
            raise InputError(
                f"{self._where}: fed {sorted(feeds)}, but its inputs are {sorted(wanted)}",
                hint="feed one array for each input",
            )
        for name, array in feeds.items():
            info = wanted[name]
            fits = len(array.shape) == len(info.shape) and all(
                size == want or not isinstance(want, int)
                for size, want in zip(array.shape, info.shape, strict=True)
            )
            if array.dtype != info.dtype or not fits:
                raise InputError(
                    f"{self._where}: input {name!r} is {info.dtype} {_shape(info.shape)}, "
                    f"fed {array.dtype} {_shape(array.shape)}",
                    hint="check the preprocessing: crop size, layout N×3×H×W, float32",
                )


def open_session(
    model: Path | bytes | onnx.ModelProto,
    *,
    optimize: bool = False,
    threads: int = 0,
    outputs: Sequence[str] | None = None,
) -> Session:
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: A file, its bytes, or the model itself (left as it is).
        optimize: False is the reference (all of ONNX Runtime's graph optimizations off,
            since its first level already moves the results of Q/DQ); True is its fastest.
        threads: Threads within an operator; 0 is one for each CPU this process may use.
        outputs: Tensors to return behind the model's own outputs, by name.

    Raises:
        MissingBackendError: onnxruntime is not installed.
        InputError: No such file, not ONNX, or no such tensor.
        GraphError: ONNX Runtime cannot run the graph; the node is named.
    """
    ort, errors = _onnxruntime()
    where = str(model) if isinstance(model, Path) else "the model"
    source = _with_outputs(model, outputs, where)
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Named outright: left to itself, ONNX Runtime counts CPUs that a container may not use.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    if isinstance(model, Path) and isinstance(source, bytes):
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(model.parent)
        )
    try:
        native = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except errors as err:
        raise _failure(err, where) from err
    return Session(native, where, errors)


def _onnxruntime() -> tuple[Any, tuple[type[Exception], ...]]:
    """Import onnxruntime; return it and the exceptions it raises."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as err:
        raise MissingBackendError(
            f"onnxruntime cannot be imported ({err})", hint="pip install 'strata[export]'"
        ) from err
    own = (value for value in vars(state).values() if isinstance(value, type))
    errors = tuple(value for value in own if issubclass(value, Exception))
    return onnxruntime, (*errors, RuntimeError)


def _with_outputs(
    model: Path | bytes | onnx.ModelProto, outputs: Sequence[str] | None, where: str
) -> str | bytes:
    """Return what ONNX Runtime should read: a path, or bytes with ``outputs`` appended.

    Two serialized messages, one behind the other, parse as their merge, and repeated
    fields of a merge are appended: the model needs no copy. The types are left empty;
    ONNX Runtime infers them.
    """
    if outputs is None:
        if isinstance(model, Path):
            return str(model)
        return model if isinstance(model, bytes) else _bytes(model)
    data, graph = _parse(model, where)
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
    return data + _bytes(more)


def _parse(model: Path | bytes | onnx.ModelProto, where: str) -> tuple[bytes, onnx.GraphProto]:
    """Return a model's bytes and its graph."""
    if isinstance(model, onnx.ModelProto):
        return _bytes(model), model.graph
    try:
        data = model.read_bytes() if isinstance(model, Path) else model
        return data, onnx.load_model_from_string(data).graph
    except OSError as err:
        raise InputError(
            f"{where}: cannot be read ({err.strerror})", hint="check the path and its permissions"
        ) from err
    except DecodeError as err:
        raise _not_onnx(where) from err


def _bytes(model: onnx.ModelProto) -> bytes:
    """Serialize a model."""
    data: bytes = model.SerializeToString()
    return data


def _not_onnx(where: str) -> InputError:
    """Say that a file is not ONNX."""
    return InputError(
        f"{where}: not an ONNX model, or not all of it", hint="export or copy the file again"
    )


def _failure(err: Exception, where: str) -> StrataError:
    """Turn an exception of ONNX Runtime into one of ours, with the node it names."""
    text = " ".join(str(err).split())
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    kind = type(err).__name__
    if kind == "NoSuchFile":
        return InputError(f"{where}: no such file", hint="check the path")
    if kind in {"InvalidProtobuf", "NoModel"} or "No graph was found" in text:
        return _not_onnx(where)
    node = re.search(r"Name:\s?'([^']+)'|[Nn]ode\s?\(([^)]+)\)|[Nn]ode:\s?(\S+)", text)
    name = next((group for group in node.groups() if group), None) if node else None
    at = f"node {name!r}: " if name else ""
    return GraphError(
        f"{where}: {at}ONNX Runtime refused it: {text}",
        hint="check this part of the graph; `strata inspect` shows it",
    )


def _dtype(text: str) -> np.dtype[Any]:
    """Return numpy's type for ONNX Runtime's ``tensor(float)``."""
    word = text.removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64"}
    return np.dtype(known.get(word, word))


def _shape(shape: Sequence[int | str | None]) -> str:
    """Write a shape as 1×3×224×224, ``?`` where it is free and has no name."""
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"
