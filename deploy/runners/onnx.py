"""ONNX files, run by ONNX Runtime for their answers.

With Q/DQ in the graph, ONNX Runtime's optimizations stay on but for those that move or fuse
Q/DQ: each Q and DQ computes what it says, and the float convolutions between them get fast
kernels. Against all optimizations off only float rounding differs, at 0.6 of the time. On a
trained ResNet-50 in INT8 (4,000 images) every answer was the same and the median logits agreed
to 134 dB; 2 % of the images met a value on the edge of a code, and agreed to 27–60 dB. ONNX
Runtime's integer kernels, which a default session takes, changed 0.8 % of the answers.
"""

from __future__ import annotations

from pathlib import Path

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.runners import Model
from exporter.onnx_file import card_of, load
from exporter.session import Session, open_session

__all__ = ["open_onnx"]

_LOGITS = "logits"  # the name that our own files give their answer


def open_onnx(path: Path) -> Model:
    """Open an ONNX file.

    Raises:
        InputError: It cannot be read, or is not a network of one image and one answer.
        MissingBackendError: onnxruntime is not installed.
        GraphError: ONNX Runtime cannot run it.
    """
    card = card_of(load(path), where=str(path))
    # Models take turns on each batch: threads that spin would take the other one's CPU.
    session = open_session(path, optimize=True, alone=False)
    if len(session.inputs) != 1:
        names = ", ".join(info.name for info in session.inputs)
        raise InputError(
            f"{path}: {len(session.inputs)} inputs ({names}); Strata feeds one, the image",
            hint="export the network with its image as the only input",
        )
    return Model(
        name=path.name,
        sha256=sha256_file(path),
        backend="onnxruntime",
        card=card,
        image=session.inputs[0].name,
        output=_output(session, path),
        run=session,
    )


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
