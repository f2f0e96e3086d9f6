"""A process of its own that evaluates or compares one network, and prints what it found as JSON.

python -m bench.trt.worker layers FILE.onnx COUNT [DATA]
python -m bench.trt.worker network|onnxruntime FILE.onnx COUNT
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx

from bench.images import prepared
from bench.trt.nets import random_feeds
from core.metrics import sqnr_db
from deploy.images import ImageRequest
from deploy.networks.network import read_network
from exporter.onnx_file import load
from exporter.session import Session, open_session

_BATCH = 8
Arrays = dict[str, np.ndarray]


class Codes:
    """Counts of equal INT8 codes, by tensor."""

    def __init__(self) -> None:
        self.by_name: dict[str, tuple[int, int]] = {}
        self.apart: int | None = None

    def add(self, name: str, ours: np.ndarray, theirs: np.ndarray) -> None:
        """Count one array."""
        off = np.abs(ours.astype(np.int16) - theirs)
        same, total = self.by_name.get(name, (0, 0))
        self.by_name[name] = (same + int(np.count_nonzero(off == 0)), total + off.size)
        self.apart = max(self.apart or 0, int(off.max()))

    @property
    def lowest(self) -> float | None:
        """The lowest share of equal codes; None without any."""
        return min((same / total for same, total in self.by_name.values()), default=None)


def layers(path: Path, count: int, data: str = "") -> dict[str, object]:
    """Hold every tensor of a network against ONNX Runtime's, image by image.

    Returns:
        ``free_db`` and ``own_db``: the lowest SQNR over all float tensors, run freely (a float32
        network) and with each layer fed the reference's tensors. Of INT8 codes: ``own_equal``,
        the lowest share over all Q outputs with each layer fed the reference's tensors;
        ``equal``, the same with the layers between two Q fed each other's, which is harder:
        their rounding adds up; ``apart``, by how much any code differs.
    """
    model = load(path)
    network = read_network(path)
    names = [name for node in model.graph.node for name in node.output if name]
    reference = open_session(model, outputs=names, threads=1)
    free: list[float] = []
    own: list[float] = []
    own_codes, codes = Codes(), Codes()
    for feeds in _images(model, path, count, data):
        expected = _expected(reference, feeds)
        kinds = {str(array.dtype) for array in expected.values()}
        if not kinds & {"float16", "int8"}:
            free += _db(network.stream(feeds), expected)
        own += _db(network.stream(feeds, replace=expected), expected, own_codes)
        given = {name: array for name, array in expected.items() if array.dtype == np.int8}
        if given:
            _db(network.stream(feeds, names=given, replace=given), given, codes)
    return {
        "tensors": len(names),
        "free_db": min(free, default=None),
        "own_db": min(own),
        "quantizers": len(codes.by_name),
        "own_equal": own_codes.lowest,
        "equal": codes.lowest,
        "apart": codes.apart,
    }


def _images(model: onnx.ModelProto, path: Path, count: int, data: str) -> Iterator[Arrays]:
    if not data:
        yield from (random_feeds(model, 1, seed) for seed in range(count))
        return
    for _, batch in prepared(path, ImageRequest(data, count, batch=_BATCH)).batches():
        yield {model.graph.input[0].name: batch}


def _expected(reference: Session, feeds: Arrays) -> Arrays:
    return {name: array for name, array in reference(feeds).items() if name not in feeds}


def _db(
    made: Iterable[tuple[str, np.ndarray]], expected: Arrays, codes: Codes | None = None
) -> list[float]:
    """Return the SQNR of each float tensor; count the INT8 ones."""
    found = []
    for name, array in made:
        if name in expected and array.dtype.kind == "f":
            found.append(sqnr_db(expected[name], array))
        elif name in expected and array.dtype == np.int8 and codes is not None:
            codes.add(name, array, expected[name])
    return found


def speed(kind: str, path: Path, count: int) -> dict[str, object]:
    """Run batches of noise; return CPU seconds a batch, the first one left out."""
    model = load(path)
    feeds = random_feeds(model, _BATCH)
    del model
    run: Callable[[Arrays], Arrays]
    run = read_network(path).run if kind == "network" else open_session(path, optimize=True)
    run(feeds)
    start = time.process_time()
    for _ in range(count):
        run(feeds)
    return {"batch": _BATCH, "cpu_s": (time.process_time() - start) / count}


def main() -> None:
    """Do what the arguments say."""
    kind, path, count, *data = sys.argv[1:]
    if kind == "layers":
        found = layers(Path(path), int(count), *data)
    else:
        found = speed(kind, Path(path), int(count))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
