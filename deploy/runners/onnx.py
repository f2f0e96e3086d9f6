"""ONNX files, run by ONNX Runtime for their answers.

A float32 network runs by ONNX Runtime's fast kernels: only the last bits of its answers move.
With rounding in the graph (Q/DQ, float16) the last bits decide which code a value on an edge
gets, and one flip makes others behind it. Such a network runs with all optimizations off, the
reference of all comparisons, or on request by the fast kernels, Q and DQ left as they are, in
0.6 of the time. A trained ResNet-50 in INT8 then gave another answer for 5 of 2,000 images, its
logits 36 dB from the reference's in the median: as far as two correct evaluators are apart.
(ONNX Runtime's integer kernels, which a default session takes, gave 4 % other answers.)
"""

from __future__ import annotations

from pathlib import Path

import onnx

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.runners import Model
from exporter.onnx_file import card_of, load
from exporter.session import Session, open_session

__all__ = ["open_onnx"]

_FLOAT16 = onnx.TensorProto.FLOAT16
_LOGITS = "logits"  # the name that our own files give their answer


def open_onnx(path: Path, *, fast: bool = False) -> Model:
    """Open an ONNX file.

    Args:
        path: The file.
        fast: Take the fast kernels for a network with rounding in it, too.

    Raises:
        InputError: It cannot be read, or is not a network of one image and one answer.
        MissingBackendError: onnxruntime is not installed.
        GraphError: ONNX Runtime cannot run it.
    """
    model = load(path)
    card = card_of(model, where=str(path))
    rounds = _rounds(model)
    del model  # before ONNX Runtime reads the file
    # Models take turns on each batch: threads that spin would take the other one's CPU.
    session = open_session(path, optimize=fast or not rounds, alone=False)
    if len(session.inputs) != 1:
        names = ", ".join(info.name for info in session.inputs)
        raise InputError(
            f"{path}: {len(session.inputs)} inputs ({names}); Strata feeds one, the image",
            hint="export the network with its image as the only input",
        )
    return Model(
        name=path.name,
        sha256=sha256_file(path),
        backend="onnxruntime, fast kernels" if fast and rounds else "onnxruntime",
        card=card,
        image=session.inputs[0].name,
        output=_output(session, path),
        run=session,
    )


def _rounds(model: onnx.ModelProto) -> bool:
    """Tell whether a network rounds on purpose: by Q/DQ, or by float16 tensors."""
    graph = model.graph
    half = any(initializer.data_type == _FLOAT16 for initializer in graph.initializer)
    return half or any(node.op_type == "QuantizeLinear" for node in graph.node)


def _output(session: Session, path: Path) -> str:
    """Return the name of the output that holds the answer."""
    if len(session.outputs) == 1:
        return session.outputs[0]
    if _LOGITS in session.outputs:
        return _LOGITS
    raise InputError(
        f"{path}: {len(session.outputs)} outputs ({', '.join(session.outputs)}), "
        f"and none is named {_LOGITS!r}",
        hint="name a classifier; a backbone (--features) has no answers",
    )
