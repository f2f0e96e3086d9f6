"""A plan with other weights: those it was built without, or those of another training.

What a plan without weights saves is bytes on the wire: one copy of the weights, in the ONNX
file, serves plans for many GPUs. It needs the GPU that the plan is for.

Source: TensorRT documentation, "Weight-Stripped Engines", "Refitting an Engine"; docstrings of
``OnnxParserRefitter`` and ``Refitter`` in tensorrt-rtx 1.7.1. Never run here: no GPU was at hand.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from core.artifacts import sha256_bytes
from core.errors import InputError
from deploy.engines.build_options import is_refittable, is_stripped
from deploy.engines.engine_file import write_engine
from deploy.engines.flavour import Flavour, load_flavour
from deploy.engines.log import TensorrtLog
from deploy.engines.manifest import Manifest, verify_plan
from deploy.engines.onnx_source import OnnxSource, examine, read_onnx
from deploy.engines.plan_loading import load_plan, not_loaded
from deploy.engines.plan_weights import OnnxWeights, give_weights
from deploy.preflights.described_host import DescribedHost, this_host
from deploy.preflights.preflight import preflight_bytes

__all__ = ["refit"]


def refit(
    engine: Path,
    onnx: Path,
    output: Path,
    *,
    flavour: Flavour | None = None,
    host: DescribedHost | None = None,
) -> Manifest:
    """Write a plan with the weights of an ONNX file, and its manifest.

    Args:
        engine: A plan that was built without weights, or to take others.
        onnx: The file it was built from, or one of the same network.
        output: The plan to write.
        flavour: The TensorRT to use; None for the plan's own.
        host: This machine; None to look.

    Returns:
        The new plan's manifest.

    Raises:
        InputError: The plan takes no weights, or not those; or a file is damaged.
        BuildError: TensorRT refuses the plan or the weights here.
        MissingBackendError: No such TensorRT here, or no GPU.
        OutputError: The plan cannot be written.
    """
    manifest = verify_plan(engine)
    data = read_onnx(onnx, output)
    source = examine(data, onnx)
    _refuse(engine, manifest, onnx, source)
    plan = engine.read_bytes()
    error = preflight_bytes(plan, manifest, host or this_host()).error()
    if error is not None:
        raise error
    flavour = flavour or load_flavour(manifest.flavour)
    new, kept = _filled(flavour, plan, manifest, OnnxWeights(data, onnx))
    made = replace(
        manifest,
        plan=output.name,
        plan_bytes=len(new),
        plan_sha256=sha256_bytes(new),
        parents=source.parents,
        card=source.card,
        accuracy=manifest.accuracy if _same(manifest, source) else {},
        options={**manifest.options, "weights": "in the plan", "refit": kept},
    )
    write_engine(memoryview(new), made, output)
    return made


def _refuse(engine: Path, manifest: Manifest, onnx: Path, source: OnnxSource) -> None:
    """Refuse a plan that takes no weights, and weights that are not its own."""
    if not is_stripped(manifest.options) and not is_refittable(manifest.options):
        raise InputError(
            f"{engine}: has its weights and takes no others",
            hint="build it with --strip-weights or --refit, or build the other ONNX file",
        )
    if not is_refittable(manifest.options) and not _same(manifest, source):
        raise InputError(
            f"{onnx}: not the file that {engine.name} was built from (sha256 "
            f"{source.parents['onnx'][:12]}…, it says {manifest.parents['onnx'][:12]}…); it takes "
            "the weights that it was built with, and with others computes anything",
            hint="name that file; a plan built with --refit takes other weights",
        )


def _same(manifest: Manifest, source: OnnxSource) -> bool:
    """Tell whether an ONNX file, with its weights, is the one that the plan was built from."""
    own = {role for role in source.parents if role == "onnx" or role.startswith("weights/")}
    return all(manifest.parents.get(role) == source.parents[role] for role in own)


def _filled(
    flavour: Flavour, plan: bytes, manifest: Manifest, weights: OnnxWeights
) -> tuple[bytes, bool]:
    """Return the plan with weights, and whether it takes others again."""
    trt: Any = flavour.module
    log = TensorrtLog()
    with flavour.logging(log):
        _runtime, engine = load_plan(flavour, plan, manifest, log)
        give_weights(flavour, engine, weights, log)
        config = engine.create_serialization_config()
        kept = is_refittable(manifest.options) and hasattr(trt.SerializationFlag, "INCLUDE_REFIT")
        if kept:
            config.set_flag(trt.SerializationFlag.INCLUDE_REFIT)
        new = engine.serialize_with_config(config)
        if new is None:
            raise not_loaded(flavour, manifest, log)
        return bytes(new), kept
