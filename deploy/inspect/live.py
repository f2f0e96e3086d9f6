"""Kernels of a ``tensorrt`` plan, asked of TensorRT itself on a machine with a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from core.errors import BuildError, InputError, MissingBackendError
from deploy.engines.flavour import Flavour, load_flavour
from deploy.engines.log import TensorrtLog
from deploy.engines.manifest import Manifest
from deploy.engines.plan_loading import load_plan
from deploy.inspect.engine_shapes import profile_shapes
from deploy.inspect.inspector import kernels_of_inspector
from deploy.inspect.kernels import KernelGraph
from deploy.machines.host import find_gpus

__all__ = ["inspector_texts", "live_kernels"]


def live_kernels(
    engine: Path, manifest: Manifest, batch: int | None
) -> tuple[tuple[KernelGraph, ...], str]:
    """Return the kernels of each profile, or none and why.

    Args:
        engine: A plan whose digest is the manifest's: loading it runs its code.
        manifest: Its manifest.
        batch: Images that the sizes are for; None for what each profile is tuned for.
    """
    gpus = find_gpus()
    if not gpus.devices:
        return (), f"a plan of the flavour tensorrt is read on a GPU; here: {gpus.problem}"
    try:
        texts = inspector_texts(load_flavour("tensorrt"), engine, manifest, batch)
    except (MissingBackendError, BuildError) as err:
        return (), err.problem
    graphs = []
    for index, text in enumerate(texts):
        shapes = profile_shapes(manifest, index, batch)
        first = next(iter(shapes.values()), (1,))
        try:
            graphs.append(kernels_of_inspector(text, batch=max(1, *first[:1])))
        except ValueError as err:
            return (), f"what TensorRT's EngineInspector says is not as it was known ({err})"
    return tuple(graphs), ""


def inspector_texts(
    flavour: Flavour, engine: Path, manifest: Manifest, batch: int | None
) -> tuple[str, ...]:
    """Return what the EngineInspector says of each profile, as JSON.

    Raises:
        InputError: The file cannot be read.
        BuildError: TensorRT does not load the plan.
    """
    trt: Any = flavour.module
    log = TensorrtLog()
    try:
        data = engine.read_bytes()
    except OSError as err:
        raise InputError(f"{engine}: cannot be read ({err.strerror})", hint="name it") from err
    with flavour.logging(log):
        # What is in it is known without the weights of a plan that lacks them.
        _runtime, loaded = load_plan(flavour, data, manifest, log)
        inspector = loaded.create_engine_inspector()
        texts = []
        for index in range(max(1, len(manifest.profiles))):
            # Shapes are known to the inspector only within a context that has them.
            context = loaded.create_execution_context()
            context.set_optimization_profile_async(index, 0)
            for name, shape in profile_shapes(manifest, index, batch).items():
                context.set_input_shape(name, shape)
            inspector.execution_context = context
            texts.append(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
        return tuple(texts)
