"""Build an engine: an ONNX file and a target in, a plan and its manifest out.

Both flavours go one way. The network is strongly typed (its ONNX graph alone says what is
INT8, FP16 or FP32), TF32 is off so that FP32 means FP32, and profiling verbosity is
DETAILED so that the plan can be inspected.

Two builds of ``strata build`` give the same bytes: see :mod:`deploy.engines.alone`. Within
another program a range of batch sizes may come out in another order, with the same kernels.
"""

from __future__ import annotations

import hashlib
import platform
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import MissingBackendError
from core.progress import Progress, silent
from deploy.engines.alone import Relay, run_alone
from deploy.engines.build_progress import BuildProgress, deferred_interrupt
from deploy.engines.builder import Network, compile_plan, parse
from deploy.engines.debug_tensors import mark_debug_tensors
from deploy.engines.engine_file import write_engine
from deploy.engines.flavour import Flavour, load_flavour
from deploy.engines.log import Listener, TensorrtLog
from deploy.engines.manifest import Manifest
from deploy.engines.onnx_source import OnnxSource, examine, read_onnx
from deploy.engines.option_refusals import refuse_int8_refit, refuse_options, refuse_unknown_options
from deploy.engines.parsed_shapes import refuse_other_shapes
from deploy.engines.plan_header import HEADER_BYTES, parse_header
from deploy.engines.profiles import Profiles, resolve_profiles
from deploy.engines.refusals import refuse_graph, refuse_target
from deploy.engines.target import BuildTarget
from deploy.engines.timing_cache import TimingCache
from deploy.machines.host import find_gpus

__all__ = ["EngineArtifact", "build"]


@dataclass(frozen=True, slots=True)
class EngineArtifact:
    """A plan on the disk and what is known of it.

    Attributes:
        plan: The file.
        manifest: What lies beside it.
        seconds: Wall time from reading the ONNX file to the written plan.
        peak_bytes: The most memory this process has held so far.
        warnings: What TensorRT warned of, each once.
    """

    plan: Path
    manifest: Manifest
    seconds: float
    peak_bytes: int
    warnings: tuple[str, ...]


def build(
    onnx_path: Path,
    target: BuildTarget,
    output: Path,
    *,
    flavour: Flavour | None = None,
    progress: Progress = silent,
    listen: Listener | None = None,
) -> EngineArtifact:
    """Build ``onnx_path`` for ``target``; write the plan and, beside it, its manifest.

    Args:
        onnx_path: The network; precision is what its graph says.
        target: Profiles, GPUs and options.
        output: The plan to write; its manifest is ``output`` with ``.json`` behind it.
        flavour: Which TensorRT; None for :func:`deploy.engines.flavour.load_flavour`'s choice.
        progress: Told percent done, and TensorRT's phase.
        listen: Given each line of TensorRT's log as it comes.

    Raises:
        InputError: The ONNX file cannot be read, or its input does not take these batches, or
            the timing cache is none for this machine.
        BuildError: TensorRT cannot build this network for this target, or in this way.
        MissingBackendError: No such TensorRT here, or it needs a GPU.
        OutputError: The plan, or the timing cache, cannot be written.
        KeyboardInterrupt: Ctrl-C or SIGTERM; nothing is left behind.
    """
    start = time.monotonic()
    data = read_onnx(onnx_path, output)
    source = examine(data, onnx_path)
    profiles = resolve_profiles(source.graph.inputs, target, str(onnx_path))
    flavour = flavour or load_flavour()
    _refuse_machine(flavour, target)
    refuse_graph(source.graph, str(onnx_path), target.capabilities)
    cache = TimingCache(target.options.timing_cache) if target.options.timing_cache else None
    relay = Relay(progress, listen)
    log = TensorrtLog(relay.listen)

    def compiled() -> tuple[Network, memoryview]:
        nonlocal data
        network = parse(flavour, data, onnx_path, log)
        data = b""  # TensorRT has its own copy of the weights by now
        refuse_other_shapes(source.graph.outputs, network.outputs, str(onnx_path))
        refuse_int8_refit(target.options, network.layers, str(onnx_path))
        if target.options.debug_tensors:
            mark_debug_tensors(network.native, source.graph)
        watch = BuildProgress(relay.progress, stop)
        return network, compile_plan(network, target, profiles, watch, cache)

    flavour.config_loader((), (), {})  # Polygraphy is imported here, and not while it builds
    with deferred_interrupt() as stop:
        network, plan = run_alone(compiled, relay, stop)
    manifest = _bind(_describe(network, target, profiles, source), plan, output.name)
    if cache is not None:
        manifest = replace(manifest, options={**manifest.options, "timing_cache": cache.origin})
    write_engine(plan, manifest, output)
    if cache is not None:
        cache.keep()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return EngineArtifact(output, manifest, time.monotonic() - start, peak, tuple(log.warnings))


def _refuse_machine(flavour: Flavour, target: BuildTarget) -> None:
    """Refuse what this flavour cannot build on this machine."""
    gpus = find_gpus()
    if not flavour.kind.builds_without_gpu and not gpus.devices:
        raise MissingBackendError(
            f"the flavour {flavour.name} builds on a machine with a GPU; here: {gpus.problem}",
            hint="--flavour rtx builds without one, for the GPUs named with --target",
        )
    here = tuple(gpu.capability for gpu in gpus.devices)
    refuse_target(flavour.name, target.capabilities, flavour.capabilities or here)
    refuse_options(flavour.name, target.options, gpus)
    refuse_unknown_options(flavour.module, flavour.version, target.options)


def _describe(
    network: Network, target: BuildTarget, profiles: Profiles, source: OnnxSource
) -> Manifest:
    """Return the manifest of a plan that is not bound to its bytes yet."""
    flavour = network.flavour
    here = tuple(str(gpu.capability) for gpu in find_gpus().devices[:1])
    named = tuple(map(str, target.capabilities))
    return Manifest(
        plan="",
        plan_bytes=0,
        plan_sha256="",
        flavour=flavour.name,
        version=flavour.version,
        platform=f"{platform.system().lower()}-{platform.machine().lower()}",
        targets=named if flavour.capabilities else here,
        inputs=network.inputs,
        outputs=network.outputs,
        profiles=profiles,
        layers=network.layers,
        parents=source.parents,
        options={
            "strongly_typed": True,
            "tf32": False,
            "profiling_verbosity": "detailed",
            "targets": "named" if named else "default",
            "timing_cache": None,
            **target.options.to_manifest(),
        },
        card=source.card,
    )


def _bind(manifest: Manifest, plan: memoryview, name: str) -> Manifest:
    """Add what only the plan's bytes say: digest, length, and the GPUs in its header."""
    header = parse_header(bytes(plan[:HEADER_BYTES]))
    known = header.capabilities if header.flavour == manifest.flavour else None
    targets = tuple(map(str, known or ())) or manifest.targets
    return replace(
        manifest,
        plan=name,
        plan_bytes=plan.nbytes,
        plan_sha256=hashlib.sha256(plan).hexdigest(),
        targets=targets,
    )
