"""Tensors within a network marked, so that its engine can show them; another engine than without.

What a Q or DQ makes is left alone: marking it would keep convolutions from taking INT8. Of
all else, TensorRT fuses less: such an engine is for comparing, not for shipping.

Source: NvInfer.h, ``INetworkDefinition::markDebug``.
"""

from __future__ import annotations

from typing import Any

from deploy.onnx_files.reader import Graph

__all__ = ["mark_debug_tensors"]

_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_FLOATS = frozenset({"FLOAT", "HALF", "BF16"})


def mark_debug_tensors(network: Any, graph: Graph) -> tuple[str, ...]:
    """Mark every float tensor that depends on an input, but what Q and DQ make.

    Args:
        network: TensorRT's ``INetworkDefinition``.
        graph: The ONNX file it was parsed from.

    Returns:
        Names of the marked tensors, in the network's order.
    """
    wanted = _wanted(graph)
    outputs = {network.get_output(at).name for at in range(network.num_outputs)}
    marked = []
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        for at in range(layer.num_outputs):
            tensor = layer.get_output(at)
            known = tensor is not None and tensor.name in wanted and tensor.name not in outputs
            if known and tensor.dtype.name in _FLOATS and network.mark_debug(tensor):
                marked.append(str(tensor.name))
    return tuple(marked)


def _wanted(graph: Graph) -> set[str]:
    """Return what the nodes make of the inputs, but what Q and DQ make."""
    live = {tensor.name for tensor in graph.inputs}
    wanted: set[str] = set()
    for node in graph.nodes:
        if live.intersection(node.inputs):
            live.update(node.outputs)
            if node.op not in _QUANTIZERS:
                wanted.update(node.outputs)
    return wanted
