"""TensorRT engines, run by TensorRT on the GPU of this machine."""

from __future__ import annotations

from pathlib import Path

from core.errors import BuildError, InputError, MissingBackendError
from deploy.bundle.cache import kernel_file
from deploy.engines.build_options import is_stripped
from deploy.engines.flavour import Flavour, load_flavour
from deploy.engines.manifest import Manifest, verify_plan
from deploy.engines.plan_weights import weights_beside
from deploy.machines.cuda import Cuda, load_cuda
from deploy.preflights.facts import FLAVOUR_NAMES
from deploy.runners import Model
from deploy.runners.engine_files import EngineFiles
from deploy.runners.engine_session import EngineSession

__all__ = ["open_engine", "open_engine_file"]

_LOGITS = "logits"  # the name that our own files give their answer


def open_engine(
    flavour: Flavour,
    plan: bytes,
    manifest: Manifest,
    *,
    cuda: Cuda | None = None,
    files: EngineFiles | None = None,
) -> tuple[Model, EngineSession]:
    """Load an engine.

    Args:
        flavour: The TensorRT that loads it.
        plan: The plan's bytes, whose digest is the manifest's.
        manifest: Its manifest.
        cuda: The GPU; None for the first of this machine.
        files: What it needs besides its plan; None for nothing.

    Returns:
        A model to ask, and the session to close.

    Raises:
        InputError: It is not a network of one image and one answer.
        BuildError: TensorRT does not load it here.
        MissingBackendError: No GPU, or one with too little memory.
    """
    names = [binding.name for binding in manifest.outputs]
    output = names[0] if len(names) == 1 else _LOGITS
    if output not in names:
        raise InputError(
            f"{manifest.plan}: {len(names)} outputs ({', '.join(names)}), and none is named "
            f"{_LOGITS!r}",
            hint="name a classifier; a backbone (--features) has no answers",
        )
    device = cuda or load_cuda()
    try:
        session = EngineSession(flavour, plan, manifest, device, files or EngineFiles())
    except (BuildError, InputError, MissingBackendError):
        device.close()
        raise
    model = Model(
        name=manifest.plan,
        sha256=manifest.plan_sha256,
        backend=f"{FLAVOUR_NAMES[manifest.flavour]} {flavour.version}",
        card=manifest.card,
        image=session.input.name,
        output=output,
        run=session,
        shape=tuple(n if n >= 0 else None for n in session.input.shape),
    )
    return model, session


def open_engine_file(path: Path) -> Model:
    """Load an engine from its file, with its manifest beside it, until the process ends.

    Raises:
        InputError: Plan or manifest is missing, damaged or another's; or it was built without
            weights and its ONNX file is not beside it.
        BuildError: TensorRT does not load it here.
        MissingBackendError: No such TensorRT here, or no GPU.
    """
    manifest = verify_plan(path)
    flavour = load_flavour(manifest.flavour)
    weights = weights_beside(path, manifest) if is_stripped(manifest.options) else None
    kernels = kernel_file(manifest.plan_sha256, flavour.version)
    files = EngineFiles(kernels, weights)
    return open_engine(flavour, path.read_bytes(), manifest, files=files)[0]
