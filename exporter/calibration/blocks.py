"""The graph that ONNX Runtime makes of a network, read for the tensors that it works in.

On a CPU with AVX its convolutions hold tensors in blocks of channels, and ``ReorderOutput``
makes of each what a graph's output must be::

    before:  Conv → b (in blocks) → ReorderOutput → relu1: graph output
    after:   Conv → b: graph output, which is relu1 in blocks

So nothing is written twice, and the next convolution reads ``b`` as it did before. Every node
that remains runs the kernel it ran: the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx

from exporter.pieces import reads

__all__ = ["Found", "find_tensors", "images_apart", "keep_needed"]

_OWN = "com.microsoft.nchwc"

# What makes of each number another one, the same wherever it lies, or only moves it. Not a matrix
# product: with more rows it sums in another order. Nor Max: whether 0 or −0 is the larger depends
# on where they lie.
_EACH = {"Add", "Clip", "Identity", "Mul", "Relu", "Sub"}
_ALONG = {"Concat", "Flatten"}  # where their axis is not that of the images


@dataclass(frozen=True, slots=True)
class Found:
    """Where a tensor of the network is in the graph.

    Attributes:
        name: Of the tensor there.
        channels: How many it has, in blocks; 0 where it is as the network has it.
    """

    name: str
    channels: int = 0


def find_tensors(
    graph: onnx.GraphProto, names: Sequence[str], alike: Mapping[str, str]
) -> dict[str, Found]:
    """Say where tensors are.

    Args:
        graph: As ONNX Runtime wrote it, ``names`` among its outputs.
        names: Of the network's tensors.
        alike: Some of them → others that must be held as they are.

    Returns:
        Of each name; in blocks, where the graph makes it from one in blocks.
    """
    found = {name: Found(name) for name in names}
    for node in graph.node:
        if (node.domain, node.op_type) == (_OWN, "ReorderOutput") and node.output[0] in found:
            facts = {attribute.name: attribute.i for attribute in node.attribute}
            if not facts.get("channels_last"):
                found[node.output[0]] = Found(node.input[0], facts.get("channels", 0))
    pairs = [pair for pair in alike.items() if found.keys() >= set(pair)]
    while unlike := [p for p in pairs if len({found[name].channels > 0 for name in p}) > 1]:
        found |= {name: Found(name) for pair in unlike for name in pair}
    return found


def keep_needed(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Make ``names`` the outputs, and leave out every node that none of them needs.

    Args:
        graph: Changed in place; what was said of its outputs is kept among its ``value_info``.
        names: Of tensors that its nodes make.
    """
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    graph.value_info.extend(graph.output)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))


def images_apart(graph: onnx.GraphProto) -> bool:
    """Return whether each image's numbers are the same, bit by bit, whatever images run with it.

    Convolutions and pools in blocks go image by image. Of all else this knows some operators that
    reckon each number by itself, if the images are the first axis of all that they read.
    """
    ranks = {info.name: len(info.type.tensor_type.shape.dim) for info in _known(graph)}
    ranks |= {name: 4 for node in graph.node if node.domain == _OWN for name in node.output}
    fixed = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    return all(node.domain == _OWN or _apart(node, ranks, fixed) for node in graph.node)


def _known(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    infos = (*graph.input, *graph.value_info)
    return (info for info in infos if info.type.tensor_type.HasField("shape"))


def _apart(
    node: onnx.NodeProto, ranks: Mapping[str, int], fixed: Mapping[str, tuple[int, ...]]
) -> bool:
    """Return the same of one node that is not in blocks.

    Args:
        node: Any.
        ranks: Of the tensors whose shape is known.
        fixed: Shapes of weights.
    """
    if node.domain or node.op_type not in _EACH | _ALONG:
        return False
    if node.op_type in _ALONG:
        axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
        return all(axis > 0 for axis in axes)  # one from the end may be the first
    made = [name for name in node.input if name and name not in fixed]
    rank = ranks.get(made[0], 0) if made else 0
    weights = [fixed[name] for name in node.input if name in fixed]
    return (
        rank > 0
        and all(ranks.get(name) == rank for name in made)
        and all(len(shape) < rank or (len(shape) == rank and shape[0] == 1) for shape in weights)
    )
