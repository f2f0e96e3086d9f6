"""TensorRT driven for one build: parse, configure, compile. Both flavours go this way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BuildError, MissingBackendError
from deploy.engines.build_options import BuildOptions
from deploy.engines.build_progress import BuildProgress
from deploy.engines.flavour import Flavour
from deploy.engines.log import ParserFault, TensorrtLog, build_failure, parser_failure
from deploy.engines.manifest import Binding
from deploy.engines.profiles import Profiles
from deploy.engines.target import BuildTarget
from deploy.engines.timing_cache import TimingCache
from deploy.networks.facts import bindings, layer_precisions
from deploy.onnx_files.weight_files import weight_files

__all__ = ["Network", "compile_plan", "parse"]


@dataclass(frozen=True, slots=True)
class Network:
    """A parsed network.

    Attributes:
        flavour: Whose it is.
        log: What TensorRT said of it so far.
        native: TensorRT's ``INetworkDefinition``.
        builder: TensorRT's ``Builder`` that made it.
        parser: It owns the weights and must live as long as the network.
        layers: Operator → precision → names of layers with weights.
    """

    flavour: Flavour
    log: TensorrtLog
    native: Any
    builder: Any
    parser: Any
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    layers: Mapping[str, Mapping[str, tuple[str, ...]]]


def parse(flavour: Flavour, data: bytes, path: Path, log: TensorrtLog) -> Network:
    """Let TensorRT's parser read an ONNX file, strongly typed.

    Args:
        flavour: Which TensorRT.
        data: The whole file.
        path: Where it lies, for its external weights and the error text.
        log: Where TensorRT's lines go.

    Raises:
        BuildError: The parser refuses it; the node is named.
        MissingBackendError: TensorRT does not start without a GPU here.
    """
    trt = flavour.module
    with flavour.logging(log):
        try:
            builder = trt.Builder(flavour.logger)
        except TypeError as err:  # pybind's word for a null pointer: no driver, no device
            raise MissingBackendError(
                f"{flavour.kind.module} {flavour.version} does not start here "
                f"({'; '.join(log.errors) or err})",
                hint="`strata doctor` says what this machine has",
            ) from err
        flag = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        native = builder.create_network(flag)
        parser = trt.OnnxParser(native, flavour.logger)
        # Said only where it is needed: a plan may differ by how long it is (deploy.engines.alone).
        beside = {"path": str(path.resolve())} if weight_files(data, path) else {}
        if not parser.parse(data, **beside):
            faults = [_fault(parser.get_error(i)) for i in range(parser.num_errors)]
            raise parser_failure(str(path), faults, log)
        inputs, outputs = bindings(native)
        layers = layer_precisions(native)
    return Network(flavour, log, native, builder, parser, inputs, outputs, layers)


def _fault(error: Any) -> ParserFault:
    return ParserFault(error.node_name(), error.node_operator(), error.code().name, error.desc())


def compile_plan(
    network: Network,
    target: BuildTarget,
    profiles: Profiles,
    watch: BuildProgress,
    cache: TimingCache | None = None,
) -> memoryview:
    """Compile a parsed network.

    Args:
        network: It.
        target: What for, and how.
        profiles: Shapes of its inputs.
        watch: Told of the progress; may stop it.
        cache: How long kernels took before; handed over here, and for the caller to keep.

    Returns:
        The plan's bytes; TensorRT's own memory, not a copy.

    Raises:
        BuildError: TensorRT refuses the network, a profile, a target or an option.
        InputError: The timing cache is none for this machine.
        MissingBackendError: It needs a GPU for that.
    """
    flavour, log = network.flavour, network.log
    with flavour.logging(log):
        config = _configure(network, target, profiles, flavour.monitor(watch))
        if cache is not None:
            cache.attach(config, log)
        plan = network.builder.build_serialized_network(network.native, config)
    if watch.error is not None:
        raise watch.error
    if plan is None:
        raise build_failure("the engine", log)
    return memoryview(plan)


def _configure(network: Network, target: BuildTarget, profiles: Profiles, monitor: Any) -> Any:
    flavour = network.flavour
    trt = flavour.module
    options = _options(trt, target.options) | {"progress_monitor": monitor}
    targets = [(c.major, c.minor) for c in target.capabilities]
    dynamic = any(-1 in binding.shape for binding in network.inputs)
    with warnings.catch_warnings():
        # Polygraphy makes a timing cache, which TensorRT-RTX ignores and calls deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        create = flavour.config_loader(profiles if dynamic else (), targets, options)
        try:
            config = create(network.builder, network.native)
        except flavour.polygraphy_error as err:
            raise BuildError(
                f"TensorRT refused the build's options: {err}",
                hint="leave out --level, --workspace, --target and the like to see which it is",
            ) from err
    config.clear_flag(trt.BuilderFlag.TF32)
    return config


def _options(trt: Any, options: BuildOptions) -> dict[str, Any]:
    """Return options as Polygraphy's ``CreateConfig`` names them."""
    found: dict[str, Any] = {
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "builder_optimization_level": options.optimization_level,
        "strip_plan": options.strip_weights,
        "refittable": options.refit,
        "version_compatible": options.version_compatible,
    }
    if options.workspace_bytes is not None:
        found["memory_pool_limits"] = {trt.MemoryPoolType.WORKSPACE: options.workspace_bytes}
    if options.hardware is not None:
        levels = trt.HardwareCompatibilityLevel
        found["hardware_compatibility_level"] = getattr(levels, options.hardware.upper())
    return found
