"""The ONNX file that an engine is made of: read, and bound by digest to what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from core.artifacts import regular, sha256_bytes, sha256_file
from core.errors import InputError
from deploy.onnx_files.reader import Graph, read_graph
from deploy.onnx_files.weight_files import weight_files
from exporter.card import Card

__all__ = ["OnnxSource", "digests", "examine", "read_onnx"]


@dataclass(frozen=True, slots=True)
class OnnxSource:
    """What an ONNX file says of itself, and the digests of what it is made of."""

    graph: Graph
    card: Card
    parents: Mapping[str, str]


def read_onnx(path: Path, output: Path) -> bytes:
    """Return the bytes of an ONNX file that ``output`` must not overwrite.

    Raises:
        InputError: It cannot be read, or is the output.
    """
    if os.path.realpath(path) == os.path.realpath(output):  # no error where links go round
        raise InputError(
            f"{output}: the engine would overwrite its ONNX file", hint="name another file with -o"
        )
    try:
        return regular(path).read_bytes()
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})",
            hint="name an ONNX file; strata quantize makes one",
        ) from err


def examine(data: bytes, path: Path) -> OnnxSource:
    """Read structure, card and digests of an ONNX file.

    Args:
        data: The whole file.
        path: Where it lies.

    Raises:
        InputError: Not ONNX, or its weights are missing or outside its folder.
    """
    graph = read_graph(data, where=str(path))
    card = Card.from_metadata(graph.metadata, where=str(path))
    return OnnxSource(graph, replace(card, parents={}), dict(card.parents) | digests(data, path))


def digests(data: bytes, path: Path) -> dict[str, str]:
    """Return role → SHA-256 of an ONNX file and of the weights beside it.

    Raises:
        InputError: Not ONNX, or its weights are missing or outside its folder.
    """
    found = {"onnx": sha256_bytes(data)}
    return found | {f"weights/{f.name}": sha256_file(f) for f in weight_files(data, path)}
