"""Which files of a bundle Triton serves, and by which of its backends.

Triton has a backend for TensorRT and one for ONNX Runtime, and none for TensorRT-RTX: an RTX plan
is refused, with the ways that are left. A server has one TensorRT, and a plan serves that one
only; so all plans are of one version and one platform, one for each compute capability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from core.errors import BuildError, InputError
from deploy.bundle.contents import MODEL, BundledPlan, Contents
from deploy.bundle.reader import Bundle
from deploy.engines.build_options import brings_runtime, is_stripped
from deploy.engines.target import capability_of
from deploy.onnx_files.reader import read_graph
from deploy.triton.interface import (
    Batches,
    Interface,
    interface_of_graph,
    interface_of_manifest,
)

__all__ = ["WAY_OUT", "Backend", "Choice", "ServedFile", "choose_files"]

Backend = Literal["tensorrt", "onnxruntime"]
WAY_OUT = (
    "--backend onnxruntime serves the ONNX, --accelerate has ONNX Runtime build a TensorRT plan of "
    "it on the server; or build a plan with --flavour tensorrt on such a GPU and bundle it"
)
_SERVERS = "linux-x86_64"
_HARDWARE = "hardware_compatibility"


@dataclass(frozen=True, slots=True)
class ServedFile:
    """A model file: its name in the bundle, its name in the version folder, what it is for.

    Attributes:
        capability: Dotted, ``8.6``; empty for an ONNX file, which any GPU runs.
        manifest: Name of its manifest in the bundle; empty for an ONNX file.
    """

    source: str
    name: str
    capability: str = ""
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is served.

    Attributes:
        backend: Triton's.
        files: One ONNX file, or a plan for each compute capability.
        interface: What all of them take and give.
        version: Of TensorRT; empty for ONNX.
        quantized: Whether the graph holds Q/DQ.
        half: Whether it holds float16.
        default: Name of the file for GPUs without a plan of their own; empty for none.
        brings_runtime: Whether the plans bring their own runtime, which the server must allow.
        usual: The widest batches of the bundle's plans, for a graph; None where none says.
        notes: What a person should know.
    """

    backend: Backend
    files: tuple[ServedFile, ...]
    interface: Interface
    version: str = ""
    quantized: bool = False
    half: bool = False
    default: str = ""
    brings_runtime: bool = False
    usual: Batches | None = None
    notes: tuple[str, ...] = ()


def choose_files(bundle: Bundle, contents: Contents, asked: Backend | None) -> Choice:
    """Choose what Triton serves of a bundle.

    Args:
        bundle: The open bundle.
        contents: What it says of its network.
        asked: The backend; None for TensorRT where there is a plan, else ONNX Runtime.

    Raises:
        BuildError: Only RTX plans are there, and they were not ruled out by ``asked``.
        InputError: No plan, or plans that no single server loads; or a damaged file.
    """
    plans = [plan for plan in contents.plans if plan.manifest.flavour == "tensorrt"]
    others = [plan for plan in contents.plans if plan.manifest.flavour != "tensorrt"]
    if asked == "onnxruntime" or (asked is None and not contents.plans):
        return _onnx(bundle, contents, asked)
    if not plans and others:
        raise BuildError(
            f"{bundle.path}: its plans are TensorRT-RTX's ({others[0].file}), and Triton has no "
            "backend for TensorRT-RTX",
            hint=WAY_OUT,
        )
    if not plans:
        raise InputError(f"{bundle.path}: holds no plan", hint=WAY_OUT)
    choice = _plans(bundle, plans)
    notes = tuple(f"{plan.file} is left out: Triton runs no RTX plans" for plan in others)
    return replace(choice, notes=(*choice.notes, *notes))


def _onnx(bundle: Bundle, contents: Contents, asked: Backend | None) -> Choice:
    graph = read_graph(bundle.read(MODEL), where=f"{bundle.path}: {MODEL}")
    size = contents.preprocess.input_size if contents.preprocess is not None else None
    interface = interface_of_graph(graph, size=size, where=f"{bundle.path}: {MODEL}")
    profiles = [b for plan in contents.plans for b in interface_of_manifest(plan.manifest).profiles]
    return Choice(
        backend="onnxruntime",
        files=(ServedFile(MODEL, MODEL),),
        interface=interface,
        quantized=any(node.op == "QuantizeLinear" for node in graph.nodes),
        half=any(constant.dtype == "float16" for constant in graph.constants.values()),
        usual=max(profiles, key=lambda batches: batches.max, default=None),
        notes=() if asked else ("it holds no plan: ONNX Runtime serves its graph",),
    )


def _plans(bundle: Bundle, plans: Sequence[BundledPlan]) -> Choice:
    """Return the plans of one platform and one version, one for each compute capability."""
    served = [plan for plan in plans if plan.manifest.platform == _SERVERS] or list(plans)
    for what in ("platform", "version"):
        values = sorted({getattr(plan.manifest, what) for plan in served})
        if len(values) > 1:
            raise InputError(
                f"{bundle.path}: its plans are of {len(values)} TensorRT {what}s "
                f"({', '.join(values)}); a server has one",
                hint="bundle the plans of one of them: strata bundle DIR --plan FILE",
            )
    for plan in served:
        if is_stripped(plan.manifest.options):
            raise InputError(
                f"{bundle.path}: {plan.file} was built without its weights, and Triton gives none",
                hint="build it without --strip-weights",
            )
    files = _by_capability(bundle, served)
    movable = {p.file for p in served if p.manifest.options.get(_HARDWARE) == "ampere_plus"}
    return Choice(
        backend="tensorrt",
        files=files,
        default=next((file.name for file in files if file.source in movable), ""),
        brings_runtime=any(brings_runtime(plan.manifest.options) for plan in served),
        interface=_one_interface(bundle, served),
        version=served[0].manifest.version,
        notes=tuple(
            f"{plan.file} is left out: it is for {plan.manifest.platform}"
            for plan in plans
            if plan not in served
        ),
    )


def _by_capability(bundle: Bundle, plans: Sequence[BundledPlan]) -> tuple[ServedFile, ...]:
    files: dict[str, ServedFile] = {}
    for plan in plans:
        for target in plan.manifest.targets:
            if target in files:
                raise InputError(
                    f"{bundle.path}: {files[target].source} and {plan.file} are both for {target}",
                    hint="bundle one plan for each GPU",
                )
            name, dotted = f"model_{target}.plan", capability_of(target).dotted
            files[target] = ServedFile(plan.file, name, dotted, f"{plan.file}.json")
    if not files:
        raise InputError(
            f"{bundle.path}: its plans do not say for which GPUs they are",
            hint="build them again with this Strata, which notes it",
        )
    return tuple(files[target] for target in sorted(files))


def _one_interface(bundle: Bundle, plans: Sequence[BundledPlan]) -> Interface:
    interfaces = {interface_of_manifest(plan.manifest) for plan in plans}
    first, *rest = sorted(interfaces, key=str)
    for other in rest:
        if (other.inputs, other.outputs) != (first.inputs, first.outputs):
            raise InputError(
                f"{bundle.path}: its plans take or give other tensors than one another",
                hint="build them from one ONNX file with one --size",
            )
        if other.profiles != first.profiles:
            raise InputError(
                f"{bundle.path}: its plans are for other batch sizes than one another, and one "
                "configuration holds for all GPUs",
                hint="build them with the same --batch",
            )
    return first
