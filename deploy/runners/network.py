"""The network that TensorRT's parser makes of an ONNX file, evaluated on the CPU.

It answers what TensorRT was asked to compute, not what its kernels compute.
"""

from __future__ import annotations

from pathlib import Path

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.networks.network import Network, read_network
from deploy.onnx_files.reader import read_graph
from deploy.runners import Model
from exporter.card import Card

__all__ = ["open_network"]

_LOGITS = "logits"  # the name that our own files give their answer


def open_network(path: Path) -> Model:
    """Open an ONNX file by TensorRT's parser.

    Raises:
        InputError: It cannot be read, or is not a network of one image and one answer.
        BuildError: TensorRT would not build it.
        MissingBackendError: No TensorRT is installed, or it does not start here.
        GraphError: It has a layer that the evaluation does not know.
    """
    network = read_network(path)
    card = Card.from_metadata(
        read_graph(path.read_bytes(), where=str(path)).metadata, where=str(path)
    )
    if len(network.inputs) != 1:
        names = ", ".join(fact.name for fact in network.inputs)
        raise InputError(
            f"{path}: {len(network.inputs)} inputs ({names}); Strata feeds one, the image",
            hint="export the network with its image as the only input",
        )
    return Model(
        name=f"trt-network:{path.name}",
        sha256=sha256_file(path),
        backend=f"parsed by {network.flavour}, evaluated on the CPU",
        card=card,
        image=network.inputs[0].name,
        output=_output(network, path),
        run=network.run,
        shape=tuple(n if n >= 0 else None for n in network.inputs[0].shape),
    )


def _output(network: Network, path: Path) -> str:
    """Return the name of the output that holds the answer."""
    if len(network.outputs) == 1:
        return network.outputs[0]
    if _LOGITS in network.outputs:
        return _LOGITS
    raise InputError(
        f"{path}: {len(network.outputs)} outputs ({', '.join(network.outputs)}), "
        f"and none is named {_LOGITS!r}",
        hint="name a classifier; a backbone (--features) has no answers",
    )
