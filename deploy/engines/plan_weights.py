"""The weights of a plan that was built without them: from the ONNX file it was built from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.artifacts import regular
from core.errors import BuildError, InputError
from deploy.engines.flavour import Flavour
from deploy.engines.log import TensorrtLog, clean
from deploy.engines.manifest import Manifest
from deploy.engines.onnx_source import digests

__all__ = ["OnnxWeights", "give_weights", "onnx_beside", "weights_beside"]

_HINT = "strata build builds it again, with its weights"


@dataclass(frozen=True, slots=True)
class OnnxWeights:
    """An ONNX file that weights are taken from: its bytes, and where it lies."""

    data: bytes
    path: Path


def onnx_beside(engine: Path, manifest: Manifest) -> OnnxWeights | None:
    """Find the ONNX file that a plan was built from, in the plan's folder, by its digest.

    Args:
        engine: The plan.
        manifest: Its manifest.

    Returns:
        The file; None where it is not there.
    """
    likely = engine.with_suffix(".onnx")
    others = sorted(path for path in engine.parent.glob("*.onnx") if path != likely)
    for path in (likely, *others):
        try:
            data = regular(path).read_bytes()
            found = digests(data, path)
        except (OSError, InputError):  # not that one
            continue
        if all(manifest.parents.get(role) == digest for role, digest in found.items()):
            return OnnxWeights(data, path)
    return None


def weights_beside(engine: Path, manifest: Manifest) -> OnnxWeights:
    """Find the ONNX file of a plan that was built without weights; as :func:`onnx_beside`.

    Raises:
        InputError: It is not there.
    """
    found = onnx_beside(engine, manifest)
    if found is not None:
        return found
    raise InputError(
        f"{engine}: was built without its weights, and the ONNX file they come from (sha256 "
        f"{manifest.parents['onnx'][:12]}…) is not beside it",
        hint="copy that file there, or make a plan with weights: strata refit ENGINE ONNX -o PLAN",
    )


def give_weights(flavour: Flavour, engine: Any, weights: OnnxWeights, log: TensorrtLog) -> None:
    """Let TensorRT take the weights of a loaded engine from an ONNX file.

    Args:
        flavour: The TensorRT that loaded it, whose lines go to ``log`` meanwhile.
        engine: TensorRT's ``ICudaEngine``.
        weights: The ONNX file.
        log: What TensorRT says.

    Raises:
        BuildError: It refuses them.
    """
    trt = flavour.module
    refitter = trt.Refitter(engine, flavour.logger)
    parser = trt.OnnxParserRefitter(refitter, flavour.logger)
    if not parser.refit_from_bytes(weights.data, str(weights.path.resolve())):
        said = [clean(parser.get_error(at).desc()) for at in range(parser.num_errors)]
        raise _refused(weights, [*said, *log.errors])
    if not refitter.refit_cuda_engine():
        missing = list(refitter.get_missing_weights())
        lacks = [f"{len(missing)} weights are missing ({missing[0]})"] if missing else []
        raise _refused(weights, [*lacks, *log.errors])


def _refused(weights: OnnxWeights, said: Iterable[str]) -> BuildError:
    why = "; ".join(filter(None, said)) or "it says no reason"
    return BuildError(
        f"{weights.path}: TensorRT does not take its weights for this plan: {why}", hint=_HINT
    )
