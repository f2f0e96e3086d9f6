"""The float network as calibration runs it: what is counted is looked at where it is made.

ONNX Runtime optimizes the network as always. What it made of it then runs in pieces of a few
tensors each, which are counted before the next piece runs: so memory holds few of them, and
each as ONNX Runtime itself holds it (:mod:`exporter.calibration.blocks`).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
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
from exporter.external_data import load_external_data
from exporter.pieces import Pieces
from exporter.session import (
    TensorInfo,
    check_feeds,
    give_memory_back,
    open_session,
    write_optimized,
)
from exporter.tensor_check import UNKNOWN_BYTES, image_bytes

__all__ = ["Activation", "Network"]

_PIECE_BYTES = 1 << 23  # what is made before it is counted; half or double is no faster
_TENSOR_BYTES = 14 << 20  # of one tensor, for all images of a run: four of a ResNet at 224×224
_MOST_TOGETHER = 16  # images

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

    Every operator runs in one thread: some sum in another order in more.

    Args:
        model: ONNX file.
        taps: What to return.

    Attributes:
        input: The one that takes images, (N, C, H, W).
        batch: Images that a run must take; 0 when it takes any number.
        together: Images that a run takes at most, to be quick and small; they do not change what
            is made of each other.

    Raises:
        GraphError: It does not take one batch of images, or ONNX Runtime cannot run it.
        InputError: The model cannot be read, or has no such tensors.
        MissingBackendError: onnxruntime is not installed.
        OutputError: No room for temporary copies of the model.
    """

    def __init__(self, model: Path, taps: Taps) -> None:
        self._where = str(model)
        # What is mapped may outlive its name, but not on every network's disk.
        with tempfile.TemporaryDirectory(prefix="strata-", ignore_cleanup_errors=True) as folder:
            file = Path(folder, "optimized.onnx")
            self.input = _image_input(write_optimized(model, file, taps.all))
            optimized = onnx.load(file, load_external_data=False)
            weights = _map_weights(optimized, file)
        graph = optimized.graph
        made = [name for name in taps.all if name != self.input.name]
        self._found = find_tensors(graph, made, taps.passed)
        self._names = {found.name: name for name, found in self._found.items()}
        self._input = self.input.name in taps.tensors, self.input.name in taps.passed
        sizes = _sizes(graph)
        keep_needed(graph, list(self._names))
        size = self.input.shape[0]
        self.batch = size if isinstance(size, int) else 0
        # A tensor of unknown shape leaves no room for a second image.
        room = _TENSOR_BYTES // max(
            [*sizes.values(), *(sizes.get(n, UNKNOWN_BYTES) for n in made), 1]
        )
        self.together = self.batch or max(1, min(room, _MOST_TOGETHER))
        if not self.batch and not images_apart(graph):
            self.together = 1
        held = {f.name: self.together * sizes.get(n, UNKNOWN_BYTES) for n, f in self._found.items()}
        self._pieces = Pieces(optimized, held, _PIECE_BYTES, weights, threads=1, name=self._where)

    def check(self, image: npt.NDArray[np.float32]) -> None:
        """Refuse an image, (C, H, W), that the network does not take.

        Raises:
            InputError: It has another shape or type.
        """
        batch = np.broadcast_to(image, (max(self.batch, 1), *image.shape))
        check_feeds((self.input,), {self.input.name: batch}, self._where)

    def run(self, images: npt.NDArray[np.float32]) -> Iterator[tuple[str, Activation]]:
        """Yield each tensor that was asked for, in the order of the graph.

        Args:
            images: (N, C, H, W) float32, each as :meth:`check` wants it.

        Raises:
            GraphError: A node failed, or a tensor is not float32 with the images first.
        """
        wanted, changed = self._input
        if wanted:
            yield self.input.name, Activation(images.copy() if changed else images)
        for part in self._pieces.run({self.input.name: images}):
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


def _map_weights(model: onnx.ModelProto, file: Path) -> dict[str, _Array]:
    """Return the weights that lie beside a graph, mapped from their file.

    Args:
        model: As ONNX Runtime wrote it. Names that file no more: the graph's weights are left for
            :class:`~exporter.session.Shared` to give, those of subgraphs are read into it.
        file: Where it was written.
    """
    weights: dict[str, _Array] = {}
    for weight in model.graph.initializer:
        facts = {entry.key: entry.value for entry in weight.external_data}
        if facts:
            kind = onnx.helper.tensor_dtype_to_np_dtype(weight.data_type)
            at, shape = int(facts.get("offset", 0)), tuple(weight.dims)
            path = file.with_name(facts["location"])
            weights[weight.name] = np.memmap(path, kind, "r", at, shape)
            weight.data_location = onnx.TensorProto.DEFAULT
    load_external_data(model, file)
    for weight in model.graph.initializer:
        if weight.name in weights:
            weight.data_location = onnx.TensorProto.EXTERNAL
            for entry in weight.external_data:
                if entry.key == "location":
                    entry.value = "."
    return weights


def _sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Return what is known to be a tensor → bytes of one image's; ``UNKNOWN_BYTES`` of some."""
    infos = (*graph.input, *graph.value_info, *graph.output)
    tensors = (info for info in infos if info.type.WhichOneof("value") == "tensor_type")
    return {info.name: image_bytes(info.type) for info in tensors}


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
