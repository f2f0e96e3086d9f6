"""Compare two evaluations of one network, tensor by tensor, in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from core.errors import AccuracyError
from core.metrics import Difference, difference
from core.progress import Progress, silent
from exporter.pieces import Pieces
from exporter.session import TensorInfo, Tensors

__all__ = [
    "CHUNK_BYTES",
    "FLOOR_DB",
    "UNKNOWN_BYTES",
    "CheckOptions",
    "Drive",
    "Sink",
    "TensorCheck",
    "check_tensors",
    "image_bytes",
    "random_feed",
    "tensor_bytes",
]

FLOOR_DB = 100.0  # float32 rounding alone leaves 120 dB and more; a wrong weight far less

CHUNK_BYTES = 1 << 28  # tensors that each side makes at once
_FREE_SIZE = 64  # pixels, for random images of a model of any size
UNKNOWN_BYTES = 1 << 24  # reckoned with for a tensor of unknown shape

Array = npt.NDArray[Any]
Sink = Callable[[str, Array], None]
Drive = Callable[[Tensors, Sink], None]


@dataclass(frozen=True, slots=True)
class CheckOptions:
    """Which tensors are measured, and how they are judged.

    Attributes:
        sizes: Tensors, in graph order → bytes of one image's.
        floor_db: SQNR that each must reach.
        strict: NaN and infinities never pass; else they do where both sides have the same.
    """

    sizes: Mapping[str, int]
    floor_db: float = FLOOR_DB
    strict: bool = True


@dataclass(frozen=True, slots=True)
class TensorCheck:
    """What a check found.

    Attributes:
        sqnr_db: Every tensor that both sides have, in graph order → SQNR in dB.
        floor_db: What each must reach.
    """

    sqnr_db: Mapping[str, float]
    floor_db: float

    @property
    def worst(self) -> tuple[str, float]:
        """The tensor of the lowest SQNR, and that; NaN counts as lowest."""
        return min(self.sqnr_db.items(), key=lambda item: _rank(item[1]))

    def require(self, what: str) -> None:
        """Refuse the candidate when a tensor is under the floor.

        Args:
            what: What was checked, for the error text.

        Raises:
            AccuracyError: The first such tensor, in graph order, is named.
        """
        bad = [name for name, db in self.sqnr_db.items() if not db >= self.floor_db]
        if bad:
            raise AccuracyError(
                f"{what}: tensor {bad[0]!r} has an SQNR of {self.sqnr_db[bad[0]]:.1f} dB, under "
                f"{self.floor_db:g} dB; {len(bad)} of {len(self.sqnr_db)} tensors are",
                hint="look at the node that makes that tensor: it is the first that goes wrong",
            )


def check_tensors(
    drive: Drive,
    candidate: onnx.ModelProto,
    feeds: Sequence[Tensors],
    options: CheckOptions,
    *,
    progress: Progress = silent,
) -> TensorCheck:
    """Run both sides on the same inputs and measure every tensor, each as soon as both have it.

    Args:
        drive: The reference: runs on a feed and hands each tensor on, by name, in any order.
        candidate: The graph that is measured; it runs in pieces, a step behind.
        feeds: What to feed, one after another.
        options: Which tensors, and how they are judged.
        progress: Told of each tensor.
    """
    found: dict[str, Difference] = {}
    rows = (len(array) for feed in feeds for array in feed.values() if array.ndim)
    images = max(rows, default=1)
    sizes = {name: size * images for name, size in options.sizes.items()}
    pieces = Pieces(candidate, sizes, CHUNK_BYTES)
    for turn, feed in enumerate(feeds):
        _measure(drive, feed, pieces.run(feed), found, options)
        progress(turn + 1, len(feeds))
    # An empty tensor has nothing to measure: of the same shape, it is equal.
    sqnr = {name: found[name].sqnr_db if found[name].count else math.inf for name in sizes}
    return TensorCheck(sqnr, options.floor_db)


def _measure(
    drive: Drive,
    feed: Tensors,
    parts: Iterator[Tensors],
    found: dict[str, Difference],
    options: CheckOptions,
) -> None:
    """Add one feed's differences to ``found``."""
    waiting: Tensors = {}  # of the reference, until the candidate has them
    part: Tensors = next(parts)

    def take(name: str, reference: Array) -> None:
        nonlocal part
        waiting[name] = reference
        while part.keys() <= waiting.keys():
            for mine, array in part.items():
                difference = _difference(waiting.pop(mine), array, strict=options.strict)
                found[mine] = found.get(mine, Difference()) + difference
            following = next(parts, None)
            if following is None:
                part = {"": np.empty(0)}  # nothing more to come; no tensor has that name
                return
            part = following

    drive(feed, take)
    missing = [name for name in options.sizes if name not in found]
    if missing:
        raise ValueError(f"the reference never made {missing[0]!r}")


def tensor_bytes(model: onnx.ModelProto) -> dict[str, int]:
    """Return the tensors that nodes make, in graph order → bytes of one image's.

    Args:
        model: With the shapes that are known; a first free dimension is the batch.
    """
    graph = model.graph
    infos = {info.name: info.type for info in (*graph.value_info, *graph.output)}
    sizes: dict[str, int] = {}
    for name in (name for node in graph.node for name in node.output if name):
        kind = infos.get(name, onnx.TypeProto())
        if kind.WhichOneof("value") not in (None, "tensor_type"):
            continue  # a sequence or an optional: no numbers of its own
        sizes[name] = image_bytes(kind)
    return sizes


def image_bytes(kind: onnx.TypeProto) -> int:
    """Return the bytes of one image's tensor; ``UNKNOWN_BYTES`` if its shape is not known.

    Args:
        kind: Its type and shape; the first dimension is the batch.
    """
    info = kind.tensor_type
    dims = [dim.dim_value for dim in info.shape.dim][1:]
    known = info.HasField("shape") and 0 not in dims
    return 4 * math.prod(dims) if known else UNKNOWN_BYTES


def random_feed(inputs: Sequence[TensorInfo], *, batch: int = 2, seed: int = 0) -> Tensors:
    """Return one random array for each input: standard normal, or 0 and 1 for whole numbers.

    Args:
        inputs: What the model wants.
        batch: For a free first dimension; other free ones get 64.
        seed: Of the numbers.
    """
    generator = np.random.Generator(np.random.PCG64(seed))
    feed: Tensors = {}
    for info in inputs:
        free = [batch, *[_FREE_SIZE] * len(info.shape)]
        shape = [s if isinstance(s, int) else f for s, f in zip(info.shape, free, strict=False)]
        if np.issubdtype(info.dtype, np.floating):
            feed[info.name] = generator.standard_normal(shape).astype(info.dtype)
        else:
            feed[info.name] = generator.integers(0, 2, shape).astype(info.dtype)
    return feed


def _difference(left: Array, right: Array, *, strict: bool) -> Difference:
    """Measure one pair; another shape is as wrong as can be."""
    if left.shape != right.shape:
        return Difference(count=left.size, nonfinite=left.size or 1)
    a, b = left.ravel(), right.ravel()
    if not strict and np.issubdtype(a.dtype, np.inexact):
        same = ~np.isfinite(a) & ((a == b) | (np.isnan(a) & np.isnan(b)))
        if same.any():
            a, b = np.where(same, 0, a), np.where(same, 0, b)
    return difference(a, b)


def _rank(db: float) -> float:
    return -math.inf if math.isnan(db) else db
