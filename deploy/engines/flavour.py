"""One seam for both flavours of TensorRT, and the only module that imports them.

========== ================ =======================================================
name       Python package   builds
========== ================ =======================================================
rtx        tensorrt_rtx     with or without a GPU, for the RTX GPUs that are named
tensorrt   tensorrt         on a machine with a GPU, for that GPU; Jetson included
========== ================ =======================================================

``auto`` takes rtx where it is installed, because it alone builds everywhere, and tensorrt
otherwise; on a machine whose own GPU rtx does not serve (Jetson, Hopper, data-centre
Blackwell) it takes tensorrt where that is installed.

Polygraphy makes the builder configuration and will run engines; parsing and building go
through the bindings, whose errors name the node. Both write to one logger.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from core.errors import InputError, MissingBackendError
from deploy.engines.build_progress import BuildProgress
from deploy.engines.flavour_kinds import FLAVOURS, FlavourKind, installed_flavours
from deploy.engines.log import Severity, TensorrtLog
from deploy.engines.manifest import ShapeRange
from deploy.engines.target import NOT_FOR_RTX, ComputeCapability
from deploy.machines.host import find_gpus

__all__ = ["Flavour", "load_flavour"]


@dataclass(slots=True)
class _Sink:
    """Where the process-wide native logger writes at the moment; None drops the line."""

    log: TensorrtLog | None = None


@dataclass(frozen=True, slots=True)
class Flavour:
    """An imported TensorRT.

    Attributes:
        kind: Name and nature.
        module: The Python bindings.
        version: Full version, e.g. ``"1.7.1.116"``.
        capabilities: GPUs that can be named as targets; empty where only the GPU at hand can.
        logger: The one logger of this process; TensorRT keeps the first that it is given.
    """

    kind: FlavourKind
    module: Any
    version: str
    capabilities: tuple[ComputeCapability, ...]
    logger: Any
    _sink: _Sink = field(repr=False)

    @property
    def name(self) -> str:
        """``"rtx"`` or ``"tensorrt"``."""
        return self.kind.name

    @contextmanager
    def logging(self, log: TensorrtLog) -> Iterator[TensorrtLog]:
        """Send TensorRT's lines to ``log`` inside the block."""
        self._sink.log = log
        try:
            yield log
        finally:
            self._sink.log = None

    def monitor(self, progress: BuildProgress) -> Any:
        """Return a native progress monitor that reports to ``progress``."""
        native: type[Any] = self.module.IProgressMonitor

        class Monitor(native):  # type: ignore[misc]
            def __init__(self) -> None:
                native.__init__(self)  # super() leaves the C++ object unmade

            def phase_start(self, phase_name: str, parent_phase: str | None, steps: int) -> None:
                progress.start(phase_name, parent_phase, steps)

            def step_complete(self, phase_name: str, step: int) -> bool:
                return progress.step(phase_name, step)

            def phase_finish(self, phase_name: str) -> None:
                progress.finish(phase_name)

        return Monitor()

    def debug_listener(self, take: Callable[..., bool]) -> Any:
        """Return a native listener that hands each debug tensor to ``take``.

        Args:
            take: Called with the tensor's name, its address, (whether it is memory of this
                side, the stream that made it) and (shape, numpy type).
        """
        module = self.module
        native: type[Any] = module.IDebugListener

        class Listener(native):  # type: ignore[misc]
            def __init__(self) -> None:
                native.__init__(self)  # super() leaves the C++ object unmade

            def process_debug_tensor(
                self, addr: Any, location: Any, kind: Any, shape: Any, name: str, stream: int
            ) -> bool:
                here = location == module.TensorLocation.HOST
                return take(name, addr, (here, int(stream)), (shape, module.nptype(kind)))

        return Listener()

    def config_loader(
        self,
        profiles: Sequence[Mapping[str, ShapeRange]],
        targets: Sequence[tuple[int, int]],
        options: Mapping[str, Any],
    ) -> Callable[[Any, Any], Any]:
        """Return Polygraphy's maker of a builder configuration: (builder, network) → config.

        Args:
            profiles: Shapes of the inputs that are not fixed.
            targets: GPUs, (major, minor); none for the flavour's own choice.
            options: As Polygraphy's ``CreateConfig`` names them.
        """
        backend = self._polygraphy("backend.trt")
        shapes = []
        for profile in profiles:
            shapes.append(backend.Profile())
            for name, given in profile.items():
                shapes[-1].add(name, given.min, given.opt, given.max)
        if self.name == "rtx":
            maker = self._polygraphy("backend.tensorrt_rtx").CreateConfigRTX
            extra: dict[str, Any] = {"compute_capabilities": list(targets) or None}
        else:
            maker, extra = backend.CreateConfig, {"tf32": False}
        loader: Callable[[Any, Any], Any] = maker(profiles=shapes, **extra, **options)
        return loader

    @property
    def polygraphy_error(self) -> type[Exception]:
        """What Polygraphy raises."""
        kind: type[Exception] = self._polygraphy("exception").PolygraphyException
        return kind

    def _polygraphy(self, name: str) -> Any:
        """Import a module of Polygraphy, bound to this flavour and its logger.

        Raises:
            InputError: Polygraphy already serves the other flavour in this process.
        """
        rtx = self.name == "rtx"
        if "polygraphy.config" not in sys.modules:
            # Polygraphy reads it once, when it is imported.
            os.environ["POLYGRAPHY_USE_TENSORRT_RTX"] = "1" if rtx else "0"
        if rtx != importlib.import_module("polygraphy.config").USE_TENSORRT_RTX:
            raise InputError(
                f"Polygraphy already serves the other flavour than {self.name} in this process",
                hint="it serves one flavour a process: start another one",
            )
        logger = importlib.import_module("polygraphy.logger").G_LOGGER
        logger.module_severity = logger.CRITICAL  # we report; an error raises all the same
        util = importlib.import_module("polygraphy.backend.trt.util")
        vars(util)["TRT_LOGGER"] = self.logger  # what get_trt_logger() hands to its loaders
        return importlib.import_module(f"polygraphy.{name}")


def load_flavour(name: str = "auto") -> Flavour:
    """Import a flavour.

    Args:
        name: ``"rtx"``, ``"tensorrt"``, or ``"auto"`` (see the module's docstring).

    Raises:
        InputError: Another name.
        MissingBackendError: It is not installed, or cannot be imported.
    """
    if name != "auto" and name not in FLAVOURS:
        raise InputError(
            f"--flavour {name!r} is not known", hint=f"one of auto, {', '.join(FLAVOURS)}"
        )
    return _load(_choose() if name == "auto" else name)


def _choose() -> str:
    here = installed_flavours()
    if not here:
        raise MissingBackendError(
            "no TensorRT is installed",
            hint=f"{FLAVOURS['rtx'].hint} builds with or without a GPU; "
            f"{FLAVOURS['tensorrt'].hint} on a machine with one",
        )
    own = {gpu.capability for gpu in find_gpus().devices}
    if own and own <= set(NOT_FOR_RTX) and "tensorrt" in here:
        return "tensorrt"
    return next(iter(here))


@cache
def _load(name: str) -> Flavour:
    kind = FLAVOURS[name]
    try:
        module = importlib.import_module(kind.module)
    except ModuleNotFoundError as err:
        raise MissingBackendError(
            f"the flavour {name} is not installed (no Python package {kind.module})", hint=kind.hint
        ) from err
    except (ImportError, OSError) as err:  # a library of CUDA or of TensorRT itself is missing
        raise MissingBackendError(
            f"{kind.module} is installed, but cannot be imported ({err})",
            hint=f"install it again: {kind.hint}; `strata doctor` says what is here",
        ) from err
    sink = _Sink()
    known = getattr(module, "ComputeCapability", None)
    names = [n for n in getattr(known, "__members__", ()) if n.startswith("SM")]
    return Flavour(
        kind=kind,
        module=module,
        version=str(module.__version__),
        capabilities=tuple(sorted(ComputeCapability.from_digits(n[2:]) for n in names)),
        logger=_native_logger(module, sink),
        _sink=sink,
    )


def _native_logger(module: Any, sink: _Sink) -> Any:
    native: type[Any] = module.ILogger
    severities: dict[Any, Severity] = {
        module.ILogger.Severity.INTERNAL_ERROR: "error",
        module.ILogger.Severity.ERROR: "error",
        module.ILogger.Severity.WARNING: "warning",
        module.ILogger.Severity.INFO: "info",
    }

    class Logger(native):  # type: ignore[misc]
        def __init__(self) -> None:
            native.__init__(self)  # super() leaves the C++ object unmade

        def log(self, severity: Any, msg: str) -> None:
            if sink.log is not None:
                sink.log.add(severities.get(severity, "verbose"), msg)

    return Logger()
