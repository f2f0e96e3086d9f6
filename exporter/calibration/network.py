"""The float network as calibration runs it: what is counted is looked at where it is made.

ONNX Runtime optimizes the network as always. What it made of it then runs in pieces of a few
tensors each, which are counted before the next piece runs: so memory holds few of them, and
each as ONNX Runtime itself holds it (:mod:`exporter.calibration.blocks`).
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from core.errors import GraphError
from exporter.calibration.blocks import find_tensors, images_apart, keep_needed
from exporter.calibration.work import Taps
from exporter.pieces import Pieces
from exporter.session import (
    TensorInfo,
    check_feeds,
    give_memory_back,
    open_session,
    write_optimized,
)

__all__ = ["Activation", "Network"]

_PIECE_BYTES = 1 << 23  # what is made before it is counted; half or double is no faster
_MOST_TOGETHER = 16  # images
_UNKNOWN_BYTES = 1 << 24  # reckoned with for a tensor of unknown shape

_Array = npt.NDArray[Any]

_REORDER = """<ir_version: 8, opset_import: ["" : 17, "com.microsoft.nchwc" : 1]>
g (float[1,16,1,2] x) => (float[1,16,1,2] y) { y = com.microsoft.nchwc.ReorderInput(x) }"""


@dataclass(frozen=True, slots=True)
class Activation:
    """What the network made of some images.

    Attributes:
        values: float32, contiguous, (N, …); or in blocks of channels, (N, G, P, B).
        channels: How many there are in the blocks; 0 where it is not in blocks.
    """

    values: npt.NDArray[np.float32]
    channels: int = 0

    def of(self, images: int) -> Activation:
        """Return that of the first so many images."""
        return Activation(self.values[:images], self.channels)

    def image(self, index: int) -> npt.NDArray[np.float32]:
        """Return the values of one image; of blocks (C, P)."""
        values: npt.NDArray[np.float32] = self.values[index]
        if not self.channels:
            return values
        groups, places, width = values.shape
        values = values.transpose(0, 2, 1).reshape(groups * width, places)
        return values[: self.channels]


class Network:
    """A float network that returns its inner tensors as it makes them; threads may run it at once.

    Args:
        model: ONNX file.
        taps: What to return.
        threads: Threads within an operator.

    Attributes:
        input: The one that takes images, (N, C, H, W).
        batch: Images that a run must take; 0 when it takes any number.
        together: Images that a run takes best; they do not change what is made of each other.

    Raises:
        GraphError: It does not take one batch of images, or ONNX Runtime cannot run it.
        InputError: The model cannot be read, or has no such tensors.
        MissingBackendError: onnxruntime is not installed.
        OutputError: No room for temporary copies of the model.
    """

    def __init__(self, model: Path, taps: Taps, threads: int) -> None:
        self._where = str(model)
        with tempfile.TemporaryDirectory(prefix="strata-") as folder:
            file = Path(folder, "optimized.onnx")
            inputs = write_optimized(model, file, taps.all)
            self.input = _image_input(inputs)
            optimized = onnx.load(file, load_external_data=False)
            weights = dict(_mapped(optimized.graph, file.parent))
        sizes = _sizes(optimized.graph)
        made = [name for name in taps.all if name != self.input.name]
        self._found = find_tensors(optimized.graph, made, taps.passed)
        self._names = {found.name: name for name, found in self._found.items()}
        self._input_wanted = self.input.name in taps.tensors
        keep_needed(optimized.graph, list(self._names))
        self.batch = _fixed(self.input.shape[0])
        largest = max((sizes[name] for name in made), default=_PIECE_BYTES)
        apart = not self.batch and images_apart(optimized.graph)
        most = max(1, min(_MOST_TOGETHER, _PIECE_BYTES // largest)) if apart else 1
        self.together = self.batch or most
        bytes_ = {found.name: self.together * sizes[n] for n, found in self._found.items()}
        self._pieces = Pieces(optimized, bytes_, _PIECE_BYTES, weights=weights, threads=threads)

    def run(self, images: npt.NDArray[np.float32]) -> Iterator[tuple[str, Activation]]:
        """Yield each tensor that was asked for, in the order of the graph.

        Args:
            images: (N, C, H, W) float32.

        Raises:
            GraphError: A node failed, or a tensor is not float32 with the images first.
            InputError: The network takes no such images.
        """
        feeds = {self.input.name: images}
        check_feeds((self.input,), feeds, self._where)
        if self._input_wanted:
            yield self.input.name, Activation(images)
        for part in self._pieces.run(feeds):
            for inner in list(part):
                # Taken out, so that its memory serves the next piece once it is counted.
                name = self._names[inner]
                values = _rows(part.pop(inner), name, len(images))
                channels = self._found[name].channels
                yield name, Activation(_in_blocks(values) if channels else values, channels)

    def close(self) -> None:
        """Give the network's memory back; it cannot be run again."""
        self._pieces.close()
        give_memory_back()


def _image_input(inputs: tuple[TensorInfo, ...]) -> TensorInfo:
    """Return the one input that takes images."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].dtype != np.float32:
        found = ", ".join(f"{i.name} {i.dtype} of rank {len(i.shape)}" for i in inputs)
        raise GraphError(
            f"the network's inputs are {found}, not one batch of images",
            hint="Strata calibrates networks with one input, N×C×H×W float32",
        )
    return inputs[0]


def _fixed(size: int | str | None) -> int:
    return size if isinstance(size, int) else 0


def _mapped(graph: onnx.GraphProto, folder: Path) -> Iterator[tuple[str, _Array]]:
    """Yield the weights that lie beside a graph, mapped from their file; it names none any more."""
    for weight in graph.initializer:
        facts = {entry.key: entry.value for entry in weight.external_data}
        if facts:
            kind = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
            at, shape = int(facts.get("offset", 0)), tuple(weight.dims)
            yield weight.name, np.memmap(folder / facts["location"], kind, "r", at, shape)
            for entry in weight.external_data:
                if entry.key == "location":
                    entry.value = "."  # what Shared takes for data that are given


def _sizes(graph: onnx.GraphProto) -> Mapping[str, int]:
    """Return the graph's outputs → bytes of one image's."""
    sizes = {}
    for output in graph.output:
        shape = output.type.tensor_type.shape
        dims = [dim.dim_value for dim in shape.dim][1:]
        known = output.type.tensor_type.HasField("shape") and 0 not in dims
        sizes[output.name] = 4 * math.prod(dims) if known else _UNKNOWN_BYTES
    return sizes


def _rows(array: _Array, name: str, batch: int) -> npt.NDArray[np.float32]:
    """Return an activation, whose first axis is the batch."""
    if array.dtype != np.float32 or array.ndim == 0 or len(array) != batch:
        raise GraphError(
            f"tensor {name!r} is {array.dtype} of shape {array.shape}, not float32 with the "
            f"batch of {batch} first",
            hint="leave the layer that reads it in float: --exclude, or edit the plan",
        )
    return array


def _in_blocks(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return (N, C, H, W), as ONNX Runtime says of a tensor in blocks, as (N, G, P, B)."""
    width = _block_width()
    images, channels, height, across = values.shape
    return values.reshape(images, channels // width, height * across, width)


@cache
def _block_width() -> int:
    """Return the channels of a block, by what becomes of two places of different values."""
    places = np.zeros((1, 16, 1, 2), np.float32)
    places[..., 1] = 1
    session = open_session(onnx.parser.parse_model(_REORDER), threads=1)
    return int(np.argmax(session({"x": places})["y"].reshape(-1)))
