"""Convolutions over a few pixels as matrix products, which run over all images of a batch.

A convolution kernel takes one image after the other and reads all weights for each. Where
every output pixel reads every input pixel in use, as in the last stages of a ResNet on 32×32
pixels, the convolution is one product of all images with one matrix, and the weights are
read once a batch::

    Conv(x: N×C×h×w, W: K×C×a×b, B) → y: N×K×p×q
    Reshape(Gemm(Flatten(x[used pixels]), W': K·p·q × C·used, B')) → y

Only the order of the sums differs. It is for running, not for keeping: tensors keep their
names, and a product the name of its convolution, but the graph says less than it did.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

__all__ = ["as_products"]

Floats = npt.NDArray[np.float32]

_OPSET = 10  # the first with the Slice that is used
_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_GROWTH = 2  # times the weights that a matrix may have


@dataclass(frozen=True, slots=True)
class _Axis:
    """A spatial axis of a convolution in which every output pixel reads every used input.

    Attributes:
        size: Input pixels.
        used: Those that are read, rising, a constant step apart.
        taps: Place in the kernel that joins output o and used input i, (outputs, used).
    """

    size: int
    used: range
    taps: npt.NDArray[np.int64]


def as_products(model: onnx.ModelProto) -> list[str]:
    """Rewrite, in place, each convolution that is a product of matrices.

    Sizes are those that the graph states; where it states none, a convolution stays.

    Args:
        model: Any graph. Weights are float32 constants, perhaps behind a DequantizeLinear.

    Returns:
        The tensors whose convolution was rewritten.
    """
    opset = max((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), default=0)
    inner = any(a.type in _GRAPHS for node in model.graph.node for a in node.attribute)
    if opset < _OPSET or inner:  # an inner graph may read any tensor
        return []
    graph = _Graph(model.graph)
    nodes: list[onnx.NodeProto] = []
    done: list[str] = []
    for node in model.graph.node:
        new = graph.product(node)
        nodes += new or [node]
        done += [node.output[0]] if new else []
    if done:
        del model.graph.node[:]
        model.graph.node.extend(_read(nodes, {output.name for output in model.graph.output}))
        _drop_weights(model.graph)
    return done


class _Graph:
    """Constants and sizes of a graph, and the constants that are added to it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        fed = {info.name for info in graph.input}
        self._constants = {w.name: w for w in graph.initializer if w.name not in fed}
        self._makers = {name: node for node in graph.node for name in node.output}
        infos = (*graph.input, *graph.value_info, *graph.output)
        self._shapes = {info.name: info.type.tensor_type.shape.dim for info in infos}
        self._names = {*self._constants, *self._makers, *self._shapes, *fed}

    def product(self, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
        """Return the nodes of the product that a convolution is; None where it is none."""
        axes = self._axes(node)
        weight = self._value(node.input[1]) if axes else None
        if axes is None or weight is None or weight.ndim != 4:
            return None
        biased = len(node.input) > 2 and bool(node.input[2])
        bias = self._value(node.input[2]) if biased else np.zeros(len(weight), np.float32)
        if bias is None or bias.shape != weight.shape[:1]:
            return None
        y, pixels = node.output[0], [len(axis.taps) for axis in axes]
        cut, x = self._cut(node.input[0], y, axes)
        flat, rows = self._free(f"{y}.flat"), self._free(f"{y}.rows")
        matrix = self._add(f"{y}.matrix", _matrix(weight, *axes))
        spread = self._add(f"{y}.spread", np.repeat(bias, pixels[0] * pixels[1]))
        shape = self._add(f"{y}.shape", np.array([0, len(weight), *pixels], np.int64))
        return [
            *cut,
            helper.make_node("Flatten", [x], [flat], axis=1),
            helper.make_node("Gemm", [flat, matrix, spread], [rows], name=node.name, transB=1),
            helper.make_node("Reshape", [rows, shape], [y]),
        ]

    def _axes(self, node: onnx.NodeProto) -> tuple[_Axis, _Axis] | None:
        """Return both axes of a convolution that is a product; None for any other node."""
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        weight = self._constants.get(self._behind(node.input[1])) if len(node.input) > 1 else None
        if (
            node.op_type != "Conv"
            or node.domain not in ("", "ai.onnx")
            or given.get("group", 1) != 1
            or given.get("auto_pad", b"NOTSET") != b"NOTSET"
            or weight is None
            or len(weight.dims) != 4
        ):
            return None
        sides = [self._sides(name) for name in (node.input[0], node.output[0])]
        if not all(sides):
            return None
        pads, strides = given.get("pads", [0] * 4), given.get("strides", [1, 1])
        dilations = given.get("dilations", [1, 1])
        found = [
            _axis(sides[0][at], sides[1][at], weight.dims[2 + at], (strides, pads, dilations), at)
            for at in (0, 1)
        ]
        down, across = found
        if down is None or across is None:
            return None
        size = down.taps.size * across.taps.size
        return (down, across) if size <= _GROWTH * weight.dims[2] * weight.dims[3] else None

    def _sides(self, name: str) -> tuple[int, ...]:
        """Return the height and width of a tensor; () where the graph does not state both."""
        sides = tuple(dim.dim_value for dim in self._shapes.get(name, ()))
        return sides[2:] if len(sides) == 4 and min(sides[2:]) > 0 else ()

    def _behind(self, name: str) -> str:
        """Return the constant that a DequantizeLinear reads, or the tensor itself."""
        maker = self._makers.get(name)
        return maker.input[0] if maker is not None and maker.op_type == "DequantizeLinear" else name

    def _value(self, name: str) -> Floats | None:
        """Return the value of a constant in float32; None for anything else."""
        stored = self._constants.get(self._behind(name))
        if stored is None:
            return None
        array = numpy_helper.to_array(stored)
        if stored.name != name:
            return self._dequantized(self._makers[name], array)
        return array if array.dtype == np.float32 else None

    def _dequantized(self, node: onnx.NodeProto, codes: npt.NDArray[Any]) -> Floats | None:
        """Return (code − zero point) · scale, as ONNX Runtime computes it."""
        given = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        operands = [self._constants[name] for name in node.input[1:] if name in self._constants]
        if len(operands) < len(node.input) - 1 or given.get("block_size", 0):
            return None
        scale, *zero = (numpy_helper.to_array(operand) for operand in operands)
        if scale.dtype != np.float32 or codes.dtype not in (np.int8, np.uint8, np.int32):
            return None
        along = [1] * codes.ndim
        if scale.size > 1:
            along[given.get("axis", 1)] = -1
        less = zero[0].reshape(along).astype(np.int32) if zero else np.int32(0)
        values: Floats = (codes.astype(np.int32) - less).astype(np.float32) * scale.reshape(along)
        return values

    def _cut(self, x: str, y: str, axes: tuple[_Axis, _Axis]) -> tuple[list[onnx.NodeProto], str]:
        """Return what takes the used pixels of ``x``, and the name of what it gives."""
        if all(len(axis.used) == axis.size for axis in axes):
            return [], x
        operands = {
            "starts": [axis.used.start for axis in axes],
            "ends": [axis.used.stop for axis in axes],
            "axes": [2, 3],
            "steps": [axis.used.step for axis in axes],
        }
        names = [self._add(f"{y}.{k}", np.array(v, np.int64)) for k, v in operands.items()]
        used = self._free(f"{y}.used")
        return [helper.make_node("Slice", [x, *names], [used])], used

    def _add(self, name: str, array: npt.NDArray[Any]) -> str:
        name = self._free(name)
        self._graph.initializer.append(numpy_helper.from_array(array, name))
        return name

    def _free(self, name: str) -> str:
        """Return a name that no tensor has, and take it."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def _axis(
    size: int, outputs: int, kernel: int, given: tuple[Any, Any, Any], at: int
) -> _Axis | None:
    """Return one axis; None where an output pixel does not read a pixel that another reads."""
    strides, pads, dilations = given
    taps: dict[tuple[int, int], int] = {}
    for output, tap in product(range(outputs), range(kernel)):
        pixel = output * strides[at] - pads[at] + tap * dilations[at]
        if 0 <= pixel < size:
            taps[output, pixel] = tap
    used = sorted({pixel for _, pixel in taps})
    if not used or len(taps) != outputs * len(used):
        return None
    step = used[1] - used[0] if len(used) > 1 else 1
    read = range(used[0], used[-1] + 1, step)
    if list(read) != used:
        return None
    table = [[taps[output, pixel] for pixel in used] for output in range(outputs)]
    return _Axis(size, read, np.array(table, np.int64))


def _matrix(weight: Floats, down: _Axis, across: _Axis) -> Floats:
    """Return the weights of (K, C, a, b) for each pair of pixels: (K·p·q, C·used)."""
    spread = weight[:, :, down.taps[:, :, None, None], across.taps[None, None]]  # K C p u q v
    return np.ascontiguousarray(spread.transpose(0, 2, 4, 1, 3, 5)).reshape(
        len(weight) * len(down.taps) * len(across.taps), -1
    )


def _read(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """Return the nodes that something reads."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    return kept[::-1]


def _drop_weights(graph: onnx.GraphProto) -> None:
    """Remove the initializers that nothing reads."""
    read = {name for node in graph.node for name in node.input}
    read.update(output.name for output in graph.output)
    kept = [weight for weight in graph.initializer if weight.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)
