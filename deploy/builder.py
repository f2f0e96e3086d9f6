"""TensorRT driven for one build: parse, configure, compile. Both flavours go this way."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.errors import BuildError, InputError, MissingBackendError
from deploy.build_progress import BuildProgress
from deploy.flavour import Flavour
from deploy.manifest import Binding, ShapeRange
from deploy.network_facts import bindings, layer_precisions
from deploy.onnx_reader import TensorType
from deploy.target import BuildTarget, OptimizationProfile
from deploy.trt_log import ParserFault, TensorrtLog, build_failure, parser_failure

__all__ = ["DEFAULT_PROFILE", "Network", "compile_plan", "parse", "resolve_profiles"]

DEFAULT_PROFILE = OptimizationProfile(1, 8, 32)
Profiles = tuple[Mapping[str, ShapeRange], ...]


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
        if not parser.parse(data, path=str(path.resolve())):
            faults = [_fault(parser.get_error(i)) for i in range(parser.num_errors)]
            raise parser_failure(str(path), faults, log)
        inputs, outputs = bindings(native)
        layers = layer_precisions(native)
    return Network(flavour, log, native, builder, parser, inputs, outputs, layers)


def _fault(error: Any) -> ParserFault:
    return ParserFault(error.node_name(), error.node_operator(), error.code().name, error.desc())


def compile_plan(
    network: Network, target: BuildTarget, profiles: Profiles, watch: BuildProgress
) -> memoryview:
    """Compile a parsed network.

    Returns:
        The plan's bytes; TensorRT's own memory, not a copy.

    Raises:
        BuildError: TensorRT refuses the network, a profile or a target.
        MissingBackendError: It needs a GPU for that.
    """
    flavour, log = network.flavour, network.log
    with flavour.logging(log):
        config = _configure(network, target, profiles, flavour.monitor(watch))
        plan = network.builder.build_serialized_network(network.native, config)
    if watch.error is not None:
        raise watch.error
    if plan is None:
        raise build_failure("the engine", log)
    return memoryview(plan)


def _configure(network: Network, target: BuildTarget, profiles: Profiles, monitor: Any) -> Any:
    flavour = network.flavour
    trt = flavour.module
    options: dict[str, Any] = {
        "profiling_verbosity": trt.ProfilingVerbosity.DETAILED,
        "builder_optimization_level": target.optimization_level,
        "progress_monitor": monitor,
    }
    if target.workspace_bytes is not None:
        pool = trt.MemoryPoolType.WORKSPACE
        options["memory_pool_limits"] = {pool: target.workspace_bytes}
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
                hint="leave out --level, --workspace and --target to see which it is",
            ) from err
    config.clear_flag(trt.BuilderFlag.TF32)
    return config


def resolve_profiles(
    inputs: Sequence[TensorType], asked: Sequence[OptimizationProfile], where: str
) -> Profiles:
    """Return the shapes of every input in every profile.

    Args:
        inputs: The graph's inputs; the first dimension is the batch.
        asked: Batch sizes; none for the default, or for the network's own batch where fixed.
        where: The file, for the error text.

    Raises:
        InputError: An input's shape is unknown or free in more than its batch, or its batch
            is fixed and another one was asked for.
    """
    if not inputs:
        raise InputError(f"{where}: has no inputs", hint="export the network with an input")
    fixed = {t.shape[0] for t in inputs if t.shape and isinstance(t.shape[0], int)}
    for size in fixed:
        for profile in asked:
            if (profile.min, profile.max) != (size, size):
                raise InputError(
                    f"{where}: its batch is fixed at {size}, --batch asks for {profile}",
                    hint=f"leave --batch out, say --batch {size}, or export with a dynamic batch",
                )
    own = tuple(OptimizationProfile(size, size, size) for size in fixed if isinstance(size, int))
    profiles = tuple(asked) or own[:1] or (DEFAULT_PROFILE,)
    return tuple({t.name: _range(t, profile, where) for t in inputs} for profile in profiles)


def _range(tensor: TensorType, profile: OptimizationProfile, where: str) -> ShapeRange:
    if not tensor.shape:
        raise InputError(
            f"{where}: the shape of input {tensor.name!r} is unknown",
            hint="export it with a shape, e.g. (N, 3, 224, 224)",
        )
    rest = [d for d in tensor.shape[1:] if isinstance(d, int) and d > 0]
    if len(rest) < len(tensor.shape) - 1:
        raise InputError(
            f"{where}: input {tensor.name!r} is {tensor.shape}; only its batch may be free",
            hint="export it with a fixed channel count, height and width",
        )
    batch = tensor.shape[0]
    sizes = (profile.min, profile.opt, profile.max)
    return ShapeRange(*((batch if isinstance(batch, int) else n, *rest) for n in sizes))
