"""ONNX files, run by ONNX Runtime for their answers.

A float32 network runs by ONNX Runtime's fast kernels: only the last bits of its answers move.
With rounding in the graph (Q/DQ, float16) the last bits decide which code a value on an edge
gets, and one flip makes others behind it. Such a network runs with all optimizations off, the
reference of all comparisons, or on request by the fast kernels, Q and DQ left as they are, in
0.6 of the time. A trained ResNet-50 in INT8 then gave another answer for 5 of 2,000 images, its
logits 36 dB from the reference's in the median: as far as two correct evaluators are apart.
(ONNX Runtime's integer kernels, which a default session takes, gave 4 % other answers: without
VNNI they saturate.)

For many images, each call takes one thread, and one call a CPU runs at once. No thread waits for
another at the end of each operator, and the answer to an image has the same bits in any batch
and on any number of CPUs: ONNX Runtime divides its sums among the threads of a call. Where images
are small, the fast kernels get the last convolutions as matrix products (exporter.products).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.artifacts import regular, sha256_bytes
from core.errors import InputError
from deploy.onnx_files.reader import Graph, read_graph
from deploy.onnx_files.weight_files import weight_files, weight_names
from deploy.runners import Model, Runner, Tensors
from exporter.card import Card
from exporter.session import Session, open_session

if TYPE_CHECKING:
    import onnx

__all__ = ["open_onnx", "open_onnx_bytes"]

_LOGITS = "logits"  # the name that our own files give their answer
_SMALL = 64  # pixels a side; a ResNet makes 2×2 of them
_SEVERAL = 2  # images; with one, ONNX Runtime multiplies by another kernel, to other last bits


def open_onnx(path: Path, *, fast: bool = False, many: bool = False) -> Model:
    """Open an ONNX file.

    Args:
        path: The file.
        fast: Take the fast kernels for a network with rounding in it, too.
        many: One thread a call, for several calls at once.

    Raises:
        InputError: It cannot be read, or is not a network of one image and one answer.
        MissingBackendError: onnxruntime is not installed.
        GraphError: ONNX Runtime cannot run it.
    """
    try:
        data = regular(path).read_bytes()
    except OSError as err:
        raise InputError(
            f"{path}: cannot be read ({err.strerror})", hint="check the path and its permissions"
        ) from err
    graph = read_graph(data, where=str(path))
    weight_files(data, path)  # refuses what lies elsewhere
    digest = sha256_bytes(data)
    del data  # before ONNX Runtime reads the file
    return _open(path, graph, (path.name, digest), fast=fast, many=many)


def open_onnx_bytes(data: bytes, name: str, *, fast: bool = False) -> Model:
    """Open an ONNX file that was read from elsewhere, a bundle; ``name`` is what to call it.

    Raises:
        InputError: It is not a network of one image and one answer, or not all of it.
        MissingBackendError: onnxruntime is not installed.
        GraphError: ONNX Runtime cannot run it.
    """
    graph = read_graph(data, where=name)
    if names := weight_names(data, name):  # ONNX Runtime would look for them anywhere
        raise InputError(
            f"{name}: its weights lie in another file ({names[0]!r})",
            hint="trust no bundle that asks this; strata bundle makes none",
        )
    return _open(data, graph, (name, sha256_bytes(data)), fast=fast, many=False)


def _open(
    source: Path | bytes, graph: Graph, known: tuple[str, str], *, fast: bool, many: bool
) -> Model:
    """Open a file or its bytes, once its structure was read; known are its name and digest."""
    name, digest = known
    where = str(source) if isinstance(source, Path) else name
    rounds = _rounds(graph)
    # Models take turns on each batch: threads that spin would take the other one's CPU.
    optimize = fast or not rounds
    session = open_session(
        _lean(source, graph) if many and optimize else source,
        optimize=optimize,
        threads=1 if many else 0,
        alone=False,
        name=where,
    )
    if len(session.inputs) != 1:
        names = ", ".join(info.name for info in session.inputs)
        raise InputError(
            f"{where}: {len(session.inputs)} inputs ({names}); Strata feeds one, the image",
            hint="export the network with its image as the only input",
        )
    return Model(
        name=name,
        sha256=digest,
        backend="onnxruntime, fast kernels" if fast and rounds else "onnxruntime",
        card=Card.from_metadata(graph.metadata, where=where),
        image=session.inputs[0].name,
        output=_output(session, where),
        run=_steady(session) if many else session,
        shape=session.inputs[0].shape,
        calls=len(os.sched_getaffinity(0)) if many else 1,
    )


def _lean(source: Path | bytes, graph: Graph) -> Path | bytes | onnx.ModelProto:
    """Return the network in the form that the fast kernels are quickest with."""
    sides = (graph.inputs[0].shape or ())[2:] if graph.inputs else ()
    small = len(sides) == 2 and all(isinstance(side, int) and side <= _SMALL for side in sides)
    if not small or isinstance(source, bytes):
        return source
    try:
        from exporter.onnx_file import load
        from exporter.products import as_products
    except ImportError:  # an edge machine has no onnx
        return source
    model = load(source)
    return model if as_products(model) else source


def _steady(session: Session) -> Runner:
    """Return a runner whose answer to an image does not depend on how many come with it.

    It takes any number of images, too, where the network's batch is fixed.
    """
    image = session.inputs[0]
    fixed = image.shape[0] if image.shape else None

    def run(feeds: Tensors) -> Tensors:
        images = feeds[image.name]
        if len(images) >= _SEVERAL and not isinstance(fixed, int):
            return session(feeds)
        size, last = fixed if isinstance(fixed, int) else _SEVERAL, len(images) - 1
        rows = [np.arange(at, at + size).clip(max=last) for at in range(0, len(images), size)]
        parts = [session({image.name: images[some]}) for some in rows]
        return {
            name: np.concatenate([np.atleast_1d(part[name]) for part in parts])[: len(images)]
            for name in session.outputs
        }

    return run


def _rounds(graph: Graph) -> bool:
    """Tell whether a network rounds on purpose: by Q/DQ, or by float16 tensors."""
    half = any(constant.dtype == "float16" for constant in graph.constants.values())
    return half or any(node.op == "QuantizeLinear" for node in graph.nodes)


def _output(session: Session, where: str) -> str:
    """Return the name of the output that holds the answer."""
    if len(session.outputs) == 1:
        return session.outputs[0]
    if _LOGITS in session.outputs:
        return _LOGITS
    raise InputError(
        f"{where}: {len(session.outputs)} outputs ({', '.join(session.outputs)}), "
        f"and none is named {_LOGITS!r}",
        hint="name a classifier; a backbone (--features) has no answers",
    )
