"""Weights as a value: the network they fit, how to prepare images, where they come from.

On disk: a safetensors file whose metadata holds the rest, one JSON text a key. It is
written here, not by the safetensors library, which orders metadata at random: the same
checkpoint must give the same bytes. Source of the format: safetensors' README, "Format".
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from calib_data.preprocess import PreprocessSpec
from core.artifacts import write_whole
from core.errors import InputError
from exporter.models.config import ResNetConfig
from exporter.models.resnet import ResNet, skeleton

__all__ = ["Checkpoint", "read_safetensors", "save_checkpoint", "state_digest"]

_DTYPES = {torch.float32: "F32", torch.int64: "I64"}  # all that a ResNet is made of


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A network's weights and what is known of them.

    Attributes:
        config: The network.
        state_dict: Name → tensor, float32 (counters int64), exactly the network's entries.
        preprocess: How an image becomes its input; None when its inputs are tensors.
        labels: Class names by index; empty when unknown.
        origin: Where the weights come from, e.g. ``name``, ``sha256``, ``top1``.
        notes: What was assumed or changed on the way in, for the user's eyes.
    """

    config: ResNetConfig
    state_dict: Mapping[str, Tensor]
    preprocess: PreprocessSpec | None
    labels: tuple[str, ...] = ()
    origin: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def network(self) -> ResNet:
        """Return the network with these weights, ready for inference (they are shared)."""
        network = skeleton(self.config)
        network.load_state_dict(dict(self.state_dict), assign=True)
        return network.eval().requires_grad_(False)


def save_checkpoint(checkpoint: Checkpoint, path: Path) -> None:
    """Write a checkpoint as safetensors, whole or not at all; the same one gives the same bytes.

    Raises:
        OutputError: It cannot be written.
    """
    preprocess = checkpoint.preprocess
    metadata = {
        "strata.config": checkpoint.config.to_json(),
        "strata.labels": json.dumps(checkpoint.labels, ensure_ascii=False),
        "strata.origin": json.dumps(dict(checkpoint.origin), sort_keys=True, ensure_ascii=False),
        "strata.preprocess": "null" if preprocess is None else preprocess.to_json(),
    }
    header: dict[str, object] = {"__metadata__": metadata}
    # Wide types first keeps every tensor aligned.
    names = sorted(
        checkpoint.state_dict, key=lambda name: (-checkpoint.state_dict[name].itemsize, name)
    )
    end = 0
    for name in names:
        tensor = checkpoint.state_dict[name]
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": _DTYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with write_whole(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(_bytes(checkpoint.state_dict[name]))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a safetensors file of any origin.

    Returns:
        Name → tensor (the file's own, memory-mapped), and the metadata.

    Raises:
        InputError: Missing, truncated or not safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, dict(file.metadata() or {})
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror or err})",
            hint="check the path and its permissions",
        ) from err
    except SafetensorError as err:
        raise InputError(
            f"{path}: truncated or no safetensors file ({err})",
            hint="fetch or make the file again",
        ) from err


def state_digest(state_dict: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 over names, types, shapes and values, whatever the order."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    """Return a tensor's values in C order, little-endian."""
    values = tensor.detach().contiguous().numpy()
    return memoryview(values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes())
