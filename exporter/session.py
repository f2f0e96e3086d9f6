"""ONNX Runtime behind one call: names and arrays in, names and arrays out.

The only module that imports onnxruntime, and only when a session is opened. An edge machine
has no onnx: only what appends outputs to a model needs it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import GraphError, InputError, MissingBackendError, OutputError
from exporter.session_errors import session_failure
from exporter.session_memory import empty_shared_memory, shared_memory, trim_heap

if TYPE_CHECKING:
    import onnx

__all__ = [
    "Session",
    "Shared",
    "TensorInfo",
    "Tensors",
    "check_feeds",
    "give_memory_back",
    "open_session",
    "write_optimized",
]

Tensors = dict[str, npt.NDArray[Any]]

_FATAL_ONLY = 4  # ONNX Runtime's severities: 0 verbose … 4 fatal; errors reach us as exceptions
_EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
_LITTLE = 1 << 22  # bytes free where a file did not fit
_WEIGHTS_BESIDE = "session.optimized_model_external_initializers_file_name"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a graph input is: its name, its shape and the type of its elements."""

    name: str
    shape: tuple[int | str | None, ...]  # a name or None where the dimension is free
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Shared:
    """A model whose large weights lie beside it: several sessions use them in place.

    Those sessions also share the memory they work in; see :func:`give_memory_back`.

    Attributes:
        model: The serialized model; the weights are initializers with data elsewhere, at ".".
        weights: Name → array, left as it is.
    """

    model: bytes
    weights: Mapping[str, npt.NDArray[Any]]


class Session:
    """An open model; call it with one array for each input (a ``Tensors -> Tensors`` runner).

    Attributes:
        inputs: What must be fed.
        outputs: The names that a call returns, in this order.
    """

    def __init__(
        self,
        native: Any,
        where: str,
        errors: tuple[type[Exception], ...],
        weights: Sequence[Any] = (),
    ) -> None:
        self.inputs = _inputs(native)
        self.outputs: tuple[str, ...] = tuple(o.name for o in native.get_outputs())
        self._native = native
        self._where = where
        self._errors = errors
        self._weights = weights  # ONNX Runtime reads them as long as the session lives

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
        check_feeds(self.inputs, feeds, self._where)
        try:
            values = self._native.run(self.outputs, feeds)
        except self._errors as err:
            raise session_failure(err, self._where) from err
        return dict(zip(self.outputs, values, strict=True))

    def close(self) -> None:
        """Give the network's memory back; it cannot be called again."""
        self._native = None
        self._weights = []
        trim_heap()


def check_feeds(inputs: Sequence[TensorInfo], feeds: Tensors, where: str) -> None:
    """Refuse feeds that ONNX Runtime would refuse with a text of its own.

    Args:
        inputs: What must be fed.
        feeds: What is.
        where: What the text calls the model.

    Raises:
        InputError: An input is missing, unknown, or of another type or shape.
    """
    wanted = {info.name: info for info in inputs}
    if feeds.keys() != wanted.keys():
        raise InputError(
            f"{where}: fed {sorted(feeds)}, but its inputs are {sorted(wanted)}",
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
                f"{where}: input {name!r} is {info.dtype} {_shape(info.shape)}, "
                f"fed {array.dtype} {_shape(array.shape)}",
                hint="check the preprocessing: crop size, layout N×3×H×W, float32",
            )


def open_session(
    model: Path | bytes | Shared | onnx.ModelProto,
    *,
    optimize: bool = False,
    threads: int = 0,
    outputs: Sequence[str] | None = None,
    alone: bool = True,
    name: str = "",
) -> Session:
    """Open a model in ONNX Runtime on the CPU.

    Args:
        model: A file, its bytes, the model itself (left as it is), or one with shared weights.
        optimize: False is the reference (all of ONNX Runtime's graph optimizations off,
            since its first level already moves the results of Q/DQ); True is its fastest
            that computes the same: Q/DQ stay, no integer kernels take their place.
        threads: Threads within an operator; 0 is one for each CPU this process may use.
        outputs: Tensors to return behind the model's own outputs, by name.
        alone: False for one of several sessions that take turns: it gives its memory back
            after each call, and its threads sleep in between (ONNX Runtime's would spin).
        name: What messages call a model that is no file.

    Raises:
        MissingBackendError: onnxruntime is not installed.
        InputError: No such file, not ONNX, or no such tensor.
        GraphError: ONNX Runtime cannot run the graph; the node is named.
        OutputError: No room for a temporary copy of the model.
    """
    ort, errors = _onnxruntime()
    where = str(model) if isinstance(model, Path) else name or "the model"
    options = _options(ort, model, optimize=optimize, threads=threads)
    if not alone:
        options.enable_cpu_mem_arena = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    weights: list[Any] = []
    if isinstance(model, Shared):
        options.enable_cpu_mem_arena = True
        options.add_session_config_entry(*shared_memory(ort))
        for name, array in model.weights.items():
            weights.append(ort.OrtValue.ortvalue_from_numpy(array))
            options.add_initializer(name, weights[-1])
        model = model.model
    with _source(model, outputs, where) as source:
        try:
            native = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except errors as err:
            raise session_failure(err, where) from err
    trim_heap()
    return Session(native, where, errors, weights)


def write_optimized(model: Path, file: Path, outputs: Sequence[str]) -> tuple[TensorInfo, ...]:
    """Write the graph that ONNX Runtime runs in place of a model: fused, laid out for this CPU.

    It holds operators of ONNX Runtime's own: only this version of it, on this machine, runs it.

    Args:
        model: ONNX file.
        file: Where to write it; its larger weights go into one file beside it.
        outputs: Tensors to return behind the model's own outputs, by name.

    Returns:
        The model's inputs.

    Raises:
        MissingBackendError, InputError, GraphError, OutputError: As :func:`open_session`.
    """
    ort, errors = _onnxruntime()
    options = _options(ort, model, optimize=True, threads=1)
    options.optimized_model_filepath = str(file)
    options.add_session_config_entry(_WEIGHTS_BESIDE, f"{file.name}.data")
    with _source(model, outputs, str(model)) as source:
        try:
            native = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
        except errors as err:
            if shutil.disk_usage(file.parent).free < _LITTLE:
                raise OutputError(
                    f"{model}: no room for what ONNX Runtime makes of it in {file.parent.parent}",
                    hint="free some space, or point TMPDIR at another folder",
                ) from err
            raise session_failure(err, str(model)) from err
    inputs = _inputs(native)
    del native
    trim_heap()
    return inputs


def _inputs(native: Any) -> tuple[TensorInfo, ...]:
    """Return what a session must be fed."""
    return tuple(TensorInfo(i.name, tuple(i.shape), _dtype(i.type)) for i in native.get_inputs())


def _options(ort: Any, model: object, *, optimize: bool, threads: int) -> Any:
    """Return what all sessions are opened with."""
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # Named outright: left to itself, ONNX Runtime counts CPUs that a container may not use.
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # A plan of all memory for each shape of input costs a fifth more of it, and saves no time.
    options.enable_mem_pattern = False
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if isinstance(model, Path):
        options.add_session_config_entry(_EXTERNAL_FOLDER, str(model.parent))
    return options


def give_memory_back() -> None:
    """Give the system back what sessions with shared weights have worked in and need no more."""
    if shared_memory.cache_info().currsize:
        empty_shared_memory(_onnxruntime()[0])


@contextmanager
def _source(
    model: Path | bytes | onnx.ModelProto, outputs: Sequence[str] | None, where: str
) -> Iterator[str | bytes]:
    """Yield what ONNX Runtime should read: a path, or bytes."""
    if outputs is None and isinstance(model, Path | bytes):
        yield str(model) if isinstance(model, Path) else model
        return
    from exporter.taps import readable

    with readable(model, outputs, where) as source:
        yield source


def _onnxruntime() -> tuple[Any, tuple[type[Exception], ...]]:
    """Import onnxruntime; return it and the exceptions it raises."""
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError as err:
        raise MissingBackendError(
            f"onnxruntime cannot be imported ({err})", hint="pip install onnxruntime"
        ) from err
    own = (value for value in vars(state).values() if isinstance(value, type))
    errors = tuple(value for value in own if issubclass(value, Exception))
    return onnxruntime, (*errors, RuntimeError)


def _dtype(text: str) -> np.dtype[Any]:
    """Return numpy's type for ONNX Runtime's ``tensor(float)``."""
    word = text.removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64"}
    try:
        return np.dtype(known.get(word, word))
    except TypeError as err:
        raise GraphError(
            f"an input is {text}, which numpy has no arrays of",
            hint="Strata feeds images: use a network that takes float32 or float16 tensors",
        ) from err


def _shape(shape: Sequence[int | str | None]) -> str:
    """Write a shape as 1×3×224×224, ``?`` where it is free and has no name."""
    return "×".join("?" if size is None else str(size) for size in shape) or "scalar"
