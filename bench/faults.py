"""Faults planted in one layer: does the comparison name it, first and worst?

``python -m bench.faults OPTIMIZED.onnx INT8.onnx --cases 100`` plants random faults, one at a
time, and holds the verdict against the layer that was touched. ``--seed`` picks other ones.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from deploy.comparison.run import compare_models
from deploy.images import ImageRequest
from exporter.precision import to_float16

__all__ = ["FAULTS", "Planted", "main", "plant"]

_SUFFIXES = (".shifted", ".equalized")  # the comparison knows tensors without


@dataclass(frozen=True, slots=True)
class Planted:
    """A faulty network, what it is to be compared with, and the tensor to be named."""

    reference: onnx.ModelProto
    candidate: onnx.ModelProto
    tensor: str
    what: str


class _Net:
    """A network under the knife."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        self.nodes = self.model.graph.node
        self.constants = {i.name: i for i in self.model.graph.initializer}
        self.makers = {name: node for node in self.nodes for name in node.output}

    def get(self, name: str) -> Any:
        return numpy_helper.to_array(self.constants[name]).copy()

    def put(self, name: str, value: Any) -> None:
        array = np.ascontiguousarray(value)
        self.constants[name].CopyFrom(numpy_helper.from_array(array, name))

    def layers(self, *kinds: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if node.op_type in kinds]

    def weight(self, node: onnx.NodeProto) -> str:
        """Name the initializer that holds a layer's weights, codes or not."""
        name = node.input[1]
        return str(self.makers[name].input[0] if name in self.makers else name)

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]


def _own_name(tensor: str) -> str:
    for suffix in _SUFFIXES:
        tensor = tensor.removesuffix(suffix)
    return tensor


Fault = Callable[[_Net, np.random.Generator], "tuple[str, str] | None"]


def _conv(net: _Net, random: np.random.Generator, *kinds: str) -> onnx.NodeProto:
    layers = net.layers(*(kinds or ("Conv", "Gemm")))
    return layers[int(random.integers(len(layers)))]


def _weight_scale(net: _Net, random: np.random.Generator) -> tuple[str, str]:
    """A weight's scales ×2, the codes left."""
    node = _conv(net, random)
    scale = net.makers[node.input[1]].input[1]
    net.put(scale, net.get(scale) * np.float32(2))
    return node.output[0], "weight scale ×2"


def _activation_scale(net: _Net, random: np.random.Generator) -> tuple[str, str]:
    """The scale of an activation's Q and DQ ×2."""
    quantizers = net.layers("QuantizeLinear")
    node = quantizers[int(random.integers(len(quantizers)))]
    net.put(node.input[1], net.get(node.input[1]) * np.float32(2))
    return node.input[0], "activation scale ×2"


def _zeroed(net: _Net, random: np.random.Generator) -> tuple[str, str] | None:
    """One channel of a weight set to zero."""
    node = _conv(net, random)
    name = net.weight(node)
    codes = net.get(name)
    channel = int(random.integers(len(codes)))
    if not codes[channel].any():
        return None  # it was
    codes[channel] = 0
    net.put(name, codes)
    return node.output[0], f"channel {channel} zeroed"


def _swapped(net: _Net, random: np.random.Generator) -> tuple[str, str] | None:
    """Two channels of a weight in each other's place."""
    node = _conv(net, random)
    name = net.weight(node)
    codes = net.get(name)
    a, b = random.choice(len(codes), 2, replace=False)
    if np.array_equal(codes[a], codes[b]):
        return None
    codes[[a, b]] = codes[[b, a]]
    net.put(name, codes)
    return node.output[0], f"channels {a} and {b} swapped"


def _bias(net: _Net, random: np.random.Generator) -> tuple[str, str]:
    """A bias set to zero."""
    node = _conv(net, random)
    net.put(node.input[2], net.get(node.input[2]) * 0)
    return node.output[0], "bias dropped"


def _shortcut(net: _Net, random: np.random.Generator) -> tuple[str, str] | None:
    """The shortcut of an addition in float."""
    sums = [n for n in net.layers("Add") if any("dequantized" in name for name in n.input)]
    node = sums[int(random.integers(len(sums)))]
    at = next(i for i, name in enumerate(node.input) if "dequantized" in name)
    codes = net.makers[node.input[at]].input[0]
    node.input[at] = net.makers[codes].input[0]
    return node.output[0], "shortcut not quantized"


def _uint8(net: _Net, random: np.random.Generator) -> tuple[str, str]:
    """An activation's codes as uint8, with zero point 128."""
    quantizers = net.layers("QuantizeLinear")
    node = quantizers[int(random.integers(len(quantizers)))]
    net.put(node.input[2], np.array(128, np.uint8))
    return node.input[0], "zero point 128, uint8"


def _transposed(net: _Net, _: np.random.Generator) -> tuple[str, str]:
    """The classifier's weights read in the order of their transpose."""
    (node,) = net.layers("Gemm")
    name = net.weight(node)
    codes = net.get(name)
    net.put(name, codes.T.reshape(codes.shape))
    return node.output[0], "classifier transposed"


def _padding(net: _Net, random: np.random.Generator) -> tuple[str, str] | None:
    """A convolution's padding on one side only, or none."""
    padded = [n for n in net.layers("Conv") if any(_pads(n).ints)]
    node = padded[int(random.integers(len(padded)))]
    pads = list(_pads(node).ints)
    half = len(pads) // 2
    moved = random.random() < 0.5
    _pads(node).ints[:] = [0] * half + [2 * p for p in pads[half:]] if moved else [0] * len(pads)
    return node.output[0], "padding moved" if moved else "padding left out"


def _pads(node: onnx.NodeProto) -> onnx.AttributeProto:
    return next((a for a in node.attribute if a.name == "pads"), onnx.AttributeProto())


FAULTS: dict[str, Fault] = {
    "weight scale ×2": _weight_scale,
    "activation scale ×2": _activation_scale,
    "channel zeroed": _zeroed,
    "channels swapped": _swapped,
    "bias dropped": _bias,
    "missing shortcut Q": _shortcut,
    "uint8 zero point": _uint8,
    "classifier transposed": _transposed,
    "wrong padding": _padding,
}
_OVERFLOW = "FP16 overflow"


def plant(
    kind: str, optimized: onnx.ModelProto, int8: onnx.ModelProto, random: np.random.Generator
) -> Planted:
    """Plant a fault of one kind in a layer picked at random.

    Args:
        kind: One of :data:`FAULTS`, or an overflow in float16.
        optimized: The network in float.
        int8: The same in INT8.
        random: Picks the layer.
    """
    if kind == _OVERFLOW:
        return _overflow(optimized, random)
    while True:
        net = _Net(int8)
        done = FAULTS[kind](net, random)
        if done is not None:
            tensor, what = done
            return Planted(optimized, net.model, _own_name(tensor), what)


def _overflow(optimized: onnx.ModelProto, random: np.random.Generator) -> Planted:
    """Make a layer's output huge, and the weights behind its ReLU as much smaller."""
    net = _Net(optimized)
    pairs = []
    for node in net.layers("Conv"):
        relu = [n for n in net.readers(node.output[0]) if n.op_type == "Relu"]
        behind = net.readers(relu[0].output[0]) if relu else []
        if len(net.readers(node.output[0])) == len(behind) == 1 and behind[0].op_type == "Conv":
            pairs.append((node, behind[0]))
    first, second = pairs[int(random.integers(len(pairs)))]
    factor = np.float32(2.0**18)
    for name in first.input[1:]:
        # As much as float16 weights can hold; the rest comes of large weights before.
        net.put(name, net.get(name) * factor)
    net.put(second.input[1], net.get(second.input[1]) / factor)
    reference = net.model
    half = _Net(to_float16(_clipped(reference)))
    return Planted(reference, half.model, first.output[0], "beyond 65504")


def _clipped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the network with weights that float16 can hold."""
    net = _Net(model)
    for name in net.constants:
        value = net.get(name)
        if value.dtype == np.float32:
            net.put(name, np.clip(value, -65504.0, 65504.0))
    return net.model


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant faults and print how many were named; exit code 1 when fewer than 99 of 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimized", type=Path)
    parser.add_argument("int8", type=Path)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[*FAULTS, _OVERFLOW])
    parser.add_argument("--no-table", action="store_true", help="leave out calibration.json")
    parser.add_argument("--data", default="fashion-mnist:test")
    options = parser.parse_args(arguments)
    pair = onnx.load(options.optimized), onnx.load(options.int8)
    random = np.random.default_rng(options.seed)
    hits: dict[str, Counter[str]] = defaultdict(Counter)
    request = ImageRequest(data=options.data, images=options.images)
    with tempfile.TemporaryDirectory() as folder:
        table = options.int8.with_name("calibration.json")
        if table.is_file() and not options.no_table:
            shutil.copy(table, folder)
        for case in range(options.cases):
            kind = options.kinds[case % len(options.kinds)]
            planted = plant(kind, *pair, random)
            _judge(planted, Path(folder), request, hits[kind])
    rows = [
        [kind, str(h["cases"]), str(h["first"]), str(h["worst"]), str(h["others"])]
        for kind, h in hits.items()
    ]
    print(_table([["fault", "cases", "named first", "top of list", "others"], *rows]))
    both = sum(h["both"] for h in hits.values())
    print(f"{both} of {options.cases} named first and worst")
    return int(both < 0.99 * options.cases)


def _judge(planted: Planted, folder: Path, request: ImageRequest, hits: Counter[str]) -> None:
    """Compare a faulty network, and count what its verdict names."""
    paths = folder / "reference.onnx", folder / "candidate.onnx"
    for path, model in zip(paths, (planted.reference, planted.candidate), strict=True):
        onnx.save(model, path)
    report = compare_models([str(path) for path in paths], request)
    (verdict,) = report.verdicts
    first = verdict.first == planted.tensor
    worst = bool(verdict.blame) and verdict.blame[0].tensor == planted.tensor
    hits["cases"] += 1
    hits["first"] += first
    hits["worst"] += worst
    hits["both"] += first and worst
    hits["others"] += sum(blame.tensor != planted.tensor for blame in verdict.blame)
    if not (first and worst):
        named = [(b.tensor, str(b.reason), round(b.excess_db, 1)) for b in verdict.blame[:3]]
        print(f"  missed: {planted.what} at {planted.tensor}; first {verdict.first}, {named}")


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as text, words to the left and numbers to the right."""
    return "\n".join(f"{row[0]:<24}" + "".join(f"{cell:>14}" for cell in row[1:]) for row in rows)


if __name__ == "__main__":
    raise SystemExit(main())
