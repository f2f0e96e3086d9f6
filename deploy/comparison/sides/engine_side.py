"""A TensorRT engine on the GPU of this machine, as a model of a comparison.

An engine as it is shipped shows its outputs only: its kernels keep no tensor between them. So its
answers are compared, in one row an output, and the layers by the network that it was built from
(``trt-network:``). One built with ``--debug-tensors`` is another engine, and shows its layers.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from core.errors import InputError
from deploy.comparison.graphs.holding import AS_IT_IS
from deploy.comparison.graphs.wiring import Step, wire
from deploy.comparison.sides.debug_side import debug_side
from deploy.comparison.sides.onnx_side import onnx_side
from deploy.comparison.sides.side import Side
from deploy.comparison.values.report import Subject
from deploy.engines.build_options import shows_tensors
from deploy.engines.manifest import Manifest, verify_plan
from deploy.engines.plan_weights import onnx_beside
from deploy.runners import Model
from deploy.runners.engine import open_engine_file
from deploy.runners.engine_session import EngineSession
from deploy.runners.engine_tensors import InnerTensors
from exporter.session import TensorInfo, Tensors

__all__ = ["Whole", "engine_side"]


def engine_side(path: Path) -> Side:
    """Load an engine for comparison.

    Raises:
        InputError: Plan or manifest is missing, damaged or another's; or it was built with
            debug tensors and its ONNX file is not beside it.
        BuildError: TensorRT does not load it here.
        MissingBackendError: No such TensorRT here, or no GPU: it was not run.
    """
    manifest = verify_plan(path)
    onnx = onnx_beside(path, manifest) if shows_tensors(manifest.options) else None
    if shows_tensors(manifest.options) and onnx is None:
        raise InputError(
            f"{path}: shows the tensors within it, but the ONNX file that names them (sha256 "
            f"{manifest.parents['onnx'][:12]}…) is not beside it",
            hint="copy that file there",
        )
    model = open_engine_file(path)
    side = _outputs_side(path, manifest, model)
    if onnx is None or not isinstance(model.run, EngineSession):
        return side
    graph = onnx_side(onnx.path)
    names = [graph.holdings.get(n, AS_IT_IS).name or n for n in graph.wiring.makers]
    return debug_side(side, graph, InnerTensors(model.run, names))


def _outputs_side(path: Path, manifest: Manifest, model: Model) -> Side:
    """Return an engine of which only the outputs can be seen."""
    image = next(binding for binding in manifest.inputs if binding.name == model.image)
    shape = tuple(None if size < 0 else size for size in image.shape)
    outputs = tuple(binding.name for binding in manifest.outputs)
    return Side(
        where=str(path),
        subject=Subject(
            name=path.name,
            file=path.name,
            sha256=model.sha256,
            stage="engine",
            backend=model.backend,
            file_bytes=path.stat().st_size,
            parents=dict(sorted(manifest.parents.items())) or None,
            synthetic=model.card.synthetic,
            cautions=model.card.cautions,
        ),
        card=model.card,
        image=TensorInfo(model.image, shape, np.dtype(np.float32)),
        outputs={
            binding.name: tuple(None if size < 0 else size for size in binding.shape)
            for binding in manifest.outputs
        },
        wiring=wire((model.image,), [Step("engine", "Engine", (model.image,), outputs)]),
        open=lambda cuts, wanted, _: Whole(model, len(cuts) + 1, wanted),
        opaque=True,
        alone=True,
    )


class Whole:
    """A model that runs in one go: its outputs come with the last piece of the others.

    Args:
        model: It.
        pieces: How many pieces the others have.
        outputs: Which of its outputs to return.
    """

    def __init__(self, model: Model, pieces: int, outputs: Collection[str]) -> None:
        self._model, self._last = model, pieces - 1
        self._outputs = frozenset(outputs)
        self._dtypes: dict[str, np.dtype[Any]] = {}

    def free(self, at: int, entry: Tensors) -> tuple[Tensors, Tensors]:
        """Return nothing, and with the last piece all outputs; each begins with the inputs."""
        if at < self._last:
            return {}, entry
        made = self._model.run(entry)
        self._dtypes |= {name: array.dtype for name, array in made.items()}
        return {name: array for name, array in made.items() if name in self._outputs}, {}

    def fed(self, at: int, entry: Tensors, given: Tensors) -> Tensors:
        """Return nothing: no layer of it can be fed."""
        del at, entry, given
        return {}

    def dtype(self, name: str) -> np.dtype[Any]:
        """Return the type of an output that was made."""
        return self._dtypes[name]
