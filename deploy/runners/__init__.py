"""Models that can be run, whatever runs them: names and arrays in, names and arrays out.

A runner is ``Callable[[Tensors], Tensors]``. Each backend is one module that opens its kind
of model as a :class:`Model`; whoever evaluates never knows which is which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import InputError, MissingBackendError
from exporter.card import Card

__all__ = ["Model", "Runner", "Tensors", "open_model"]

Tensors = dict[str, npt.NDArray[Any]]
Runner = Callable[[Tensors], Tensors]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """An open classifier.

    Attributes:
        name: As reports name it: a file name, or what the user typed; no folder.
        sha256: Digest of the file, or of the weights.
        backend: What runs it.
        card: What it says of itself: preprocess, labels.
        image: Name of its input.
        output: Name of its logits.
        run: One array for ``image``, float32 (n, 3, h, w), in; all outputs out.
        shape: Of its input, (n, 3, h, w), a name or None where free; None when not known.
        calls: How many threads may call it at once, and should where there are many images;
            1 for one that keeps the machine busy by itself.
    """

    name: str
    sha256: str
    backend: str
    card: Card
    image: str
    output: str
    run: Runner
    shape: tuple[int | str | None, ...] | None = None
    calls: int = 1

    def logits(self, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Answer for some images.

        Args:
            images: float32, (n, 3, h, w).

        Returns:
            Logits in float64, (n, classes).

        Raises:
            InputError: The model takes another shape, or its output is not a row an image.
            GraphError: It failed.
        """
        values = self.run({self.image: images})[self.output]
        if values.ndim != 2 or len(values) != len(images):
            shape = "×".join(map(str, values.shape))
            raise InputError(
                f"{self.name}: output {self.output!r} is {shape} for {len(images)} images, "
                "not a row of logits an image",
                hint="name a classifier; a backbone (--features) has no answers",
            )
        return values.astype(np.float64)


def open_model(text: str, *, fast: bool = False, many: bool = False) -> Model:
    """Open a model by what the user typed.

    ``FILE.onnx`` runs in ONNX Runtime, ``torch:WEIGHTS`` in PyTorch, ``FILE.engine`` in TensorRT
    on a GPU; ``trt-network:FILE.onnx`` is the network that TensorRT's parser makes of the file,
    evaluated on the CPU.

    Args:
        text: One of these.
        fast: Let ONNX Runtime run a network with rounding in it by its fast kernels (see
            :mod:`deploy.runners.onnx`).
        many: Open it for many images: for several calls at once where that is the faster way.

    Raises:
        InputError: Of no kind that can be run, or unreadable.
        MissingBackendError: The library that runs it is not installed.
        GraphError: It is refused by that library.
        BuildError: It is refused by TensorRT's parser.
    """
    kind, _, rest = text.partition(":")
    try:
        if kind == "torch" and rest:
            from deploy.runners.torch import open_torch

            return open_torch(rest)
        if kind == "trt-network" and rest:
            from deploy.runners.network import open_network

            return open_network(Path(rest))
        if text.endswith(".onnx"):
            from deploy.runners.onnx import open_onnx

            return open_onnx(Path(text), fast=fast, many=many)
        if text.endswith((".engine", ".plan")):
            from deploy.runners.engine import open_engine_file

            return open_engine_file(Path(text))
    except ImportError as err:
        raise MissingBackendError(
            f"{text}: running it needs a library that is not here ({err})",
            hint="pip install 'strata[export]'",
        ) from err
    raise InputError(
        f"{text}: not a model that can be run",
        hint="give FILE.onnx, FILE.engine, trt-network:FILE.onnx, or torch:WEIGHTS (fashion-mnist, "
        "imagenet, a .safetensors file, …)",
    )
