"""The graph that ONNX Runtime makes of a network, read for the tensors that it works in.

On a CPU with AVX its convolutions hold tensors in blocks of channels, and ``ReorderOutput``
makes of each what a graph's output must be::

    before:  Conv → b (in blocks) → ReorderOutput → relu1: graph output
    after:   Conv → b: graph output, which is relu1 in blocks

So nothing is written twice, and the next convolution reads ``b`` as it did before. Every node
that remains runs the kernel it ran: the numbers are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from exporter.pieces import reads

__all__ = ["Found", "find_tensors", "images_apart", "keep_needed"]

_OWN = "com.microsoft.nchwc"

# What makes of each image the same numbers whatever is beside it: convolutions and pools in
# blocks go image by image, and these round each number once. A matrix product, say, does not:
# with more rows, it sums in another order.
_APART = {"Add", "Clip", "Concat", "Div", "Flatten", "Identity", "Max", "Min", "Mul", "Relu", "Sub"}


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
                found[node.output[0]] = Found(node.input[0], facts["channels"])
    while unlike := [p for p in alike.items() if len({found[n].channels > 0 for n in p}) > 1]:
        found |= {name: Found(name) for pair in unlike for name in pair}
    return found


def keep_needed(graph: onnx.GraphProto, names: Sequence[str]) -> None:
    """Make ``names`` the outputs, and leave out every node that none of them needs."""
    needed, kept = set(names), []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(reads(node))
            kept.append(node)
    del graph.node[:], graph.output[:]
    graph.node.extend(reversed(kept))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names))


def images_apart(graph: onnx.GraphProto) -> bool:
    """Return whether each image's numbers are the same whatever images run with it."""
    return all(map(_apart, graph.node))


def _apart(node: onnx.NodeProto) -> bool:
    if node.domain == _OWN:
        return True
    axes = [attribute.i for attribute in node.attribute if attribute.name == "axis"]
    return not node.domain and node.op_type in _APART and all(axis > 0 for axis in axes)
