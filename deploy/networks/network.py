"""Evaluate the network that TensorRT's own parser built, on the CPU, layer by layer.

This proves what TensorRT is asked to compute: every layer's output, rounded to the layer's
own type as a strongly typed network rounds it, whatever the parser made of the ONNX file.
It does not prove what TensorRT's kernels compute; for that, run the engine on a GPU.

Nothing of TensorRT is needed once the network is read.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from core.artifacts import regular
from core.errors import GraphError, InputError
from deploy.engines.builder import parse
from deploy.engines.flavour import Flavour, load_flavour
from deploy.engines.log import Listener, TensorrtLog
from deploy.engines.parsed_shapes import refuse_other_shapes
from deploy.engines.refusals import refuse_graph
from deploy.networks.ops.base import Unsupported
from deploy.networks.reader import Layer, read_layers, read_tensor
from deploy.networks.run import Network, Tensors, apply_layer
from deploy.onnx_files.reader import Graph, read_graph

__all__ = ["Network", "Tensors", "read_network"]


def read_network(
    source: Path | bytes, flavour: Flavour | None = None, *, listen: Listener | None = None
) -> Network:
    """Let TensorRT parse an ONNX file, and copy what it built.

    Args:
        source: The file, or its bytes (then without external weights).
        flavour: Which TensorRT; None for :func:`deploy.engines.flavour.load_flavour`'s choice.
        listen: Given each line of TensorRT's log as it comes.

    Raises:
        InputError: It cannot be read, or is not ONNX.
        BuildError: TensorRT would not build it; the node is named.
        MissingBackendError: No TensorRT is installed, or it does not start here.
        GraphError: It has a layer that the evaluation does not know; the layer is named.
    """
    path = source if isinstance(source, Path) else Path("the model")
    data = _bytes_of(source) if isinstance(source, Path) else source
    graph = read_graph(data, where=str(path))
    refuse_graph(graph, str(path), ())
    flavour = flavour or load_flavour()
    parsed = parse(flavour, data, path, TensorrtLog(listen))
    del data  # TensorRT has its own copy of the weights by now
    refuse_other_shapes(graph.outputs, parsed.outputs, str(path))
    native = parsed.native
    try:
        inputs = tuple(read_tensor(native.get_input(i)) for i in range(native.num_inputs))
    except Unsupported as err:
        raise GraphError(f"{path}: {err}", hint="feed float32 or float16 images") from err
    outputs = tuple(str(native.get_output(i).name) for i in range(native.num_outputs))
    with flavour.logging(parsed.log):
        layers = read_layers(flavour.module, native, graph.constants, where=str(path))
    rest, constants = _fold(path.name, layers, outputs)
    return Network(
        name=path.name,
        flavour=f"{flavour.name} {flavour.version}",
        inputs=inputs,
        outputs=outputs,
        layers=rest,
        constants=constants,
        known=_names(graph),
        facts={fact.name: fact for fact in (*inputs, *(layer.output for layer in layers))},
    )


def _bytes_of(path: Path) -> bytes:
    try:
        return regular(path).read_bytes()
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})", hint="name an ONNX file"
        ) from err


def _names(graph: Graph) -> frozenset[str]:
    """Return the names of all tensors of an ONNX graph."""
    made = itertools.chain.from_iterable(node.outputs for node in graph.nodes)
    return frozenset((*made, *graph.constants, *(fact.name for fact in graph.inputs)))


def _fold(
    name: str, layers: Sequence[Layer], outputs: Sequence[str]
) -> tuple[tuple[Layer, ...], Tensors]:
    """Evaluate what depends on no input; return the other layers, and the constants they read."""
    constants: Tensors = {}
    rest: list[Layer] = []
    for layer in layers:
        if all(i is None or i in constants for i in layer.inputs):
            constants[layer.output.name] = apply_layer(name, layer, constants, None)
        else:
            rest.append(layer)
    read = {i for layer in rest for i in layer.inputs} | set(outputs)
    return tuple(rest), {key: array for key, array in constants.items() if key in read}
