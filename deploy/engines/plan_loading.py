"""A plan loaded by TensorRT, as its manifest says that it must be; loading it runs its code."""

from __future__ import annotations

from typing import Any

from core.errors import BuildError, InputError
from deploy.engines.build_options import brings_runtime, is_stripped
from deploy.engines.flavour import Flavour
from deploy.engines.log import TensorrtLog
from deploy.engines.manifest import Manifest
from deploy.engines.plan_weights import OnnxWeights, give_weights
from deploy.preflights.facts import FLAVOUR_NAMES

__all__ = ["load_plan", "load_whole_plan", "not_loaded"]


def load_plan(
    flavour: Flavour, plan: bytes, manifest: Manifest, log: TensorrtLog
) -> tuple[Any, Any]:
    """Load a plan.

    Args:
        flavour: The TensorRT that loads it, whose lines go to ``log`` meanwhile.
        plan: Its bytes, whose digest was held against the manifest's.
        manifest: Its manifest.
        log: What TensorRT says.

    Returns:
        TensorRT's runtime, to be kept as long as the engine, and the engine.

    Raises:
        BuildError: TensorRT does not load it here.
    """
    runtime = flavour.module.Runtime(flavour.logger)
    if brings_runtime(manifest.options):
        # A version-compatible plan holds a library, which TensorRT runs only if told so.
        runtime.engine_host_code_allowed = True
    engine = runtime.deserialize_cuda_engine(plan)
    if not engine:
        raise not_loaded(flavour, manifest, log)
    return runtime, engine


def load_whole_plan(
    flavour: Flavour,
    plan: bytes,
    manifest: Manifest,
    log: TensorrtLog,
    weights: OnnxWeights | None = None,
) -> tuple[Any, Any]:
    """Load a plan and, where it was built without them, its weights.

    Args:
        flavour: As for :func:`load_plan`.
        plan: Its bytes.
        manifest: Its manifest.
        log: What TensorRT says.
        weights: The ONNX file it was built from, for a plan without weights.

    Returns:
        As :func:`load_plan`.

    Raises:
        BuildError: TensorRT does not load it here, or not its weights.
        InputError: It has no weights, and none were given.
    """
    stripped = is_stripped(manifest.options)
    if stripped and weights is None:
        raise InputError(
            f"{manifest.plan}: was built without its weights",
            hint="make a plan with weights: strata refit ENGINE ONNX -o PLAN",
        )
    runtime, engine = load_plan(flavour, plan, manifest, log)
    if stripped and weights is not None:
        give_weights(flavour, engine, weights, log)
    return runtime, engine


def not_loaded(flavour: Flavour, manifest: Manifest, log: TensorrtLog) -> BuildError:
    """Return the error for a plan that TensorRT refused."""
    said = "; ".join(log.errors) or "it says no reason"
    name = FLAVOUR_NAMES[manifest.flavour]
    return BuildError(
        f"{name} {flavour.version} does not load {manifest.plan}: {said}",
        hint="strata preflight says whether it fits; strata build builds it again here",
    )
