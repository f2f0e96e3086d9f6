"""From a bundle to a network that answers: checked, chosen, loaded, warmed up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from calib_data.preprocess import PreprocessSpec, preprocess_option
from core.artifacts import write_bytes
from core.errors import InputError
from core.progress import Progress, silent
from deploy.bundle.cache import PlanKey, cached_plan, kernel_file
from deploy.bundle.choose import On, Way, choose
from deploy.bundle.contents import MODEL, Contents, read_contents
from deploy.bundle.reader import Bundle, open_bundle
from deploy.classifier import Classifier
from deploy.engines.build import build
from deploy.engines.build_options import is_stripped
from deploy.engines.flavour import load_flavour
from deploy.engines.manifest import Manifest
from deploy.engines.plan_weights import OnnxWeights
from deploy.engines.target import BuildTarget, OptimizationProfile
from deploy.machines.cuda import load_cuda
from deploy.onnx_files.reader import read_graph
from deploy.preflights.described_host import DescribedHost, HostGpu, this_host

__all__ = ["Opening", "open_classifier"]

_BATCH = 8  # on the CPU: enough to keep its cores busy, little enough to wait for
_LARGEST = 64  # a plan may be tuned for more; images wait for their batch


@dataclass(frozen=True, slots=True)
class Opening:
    """How to open a bundle.

    Attributes:
        on: Where: ``auto`` is the GPU where there is one, else the CPU.
        batch: How many images travel together; None for what the plan was tuned for.
        preprocess: A preset or numbers, in place of what the bundle says.
        fast: ONNX Runtime's fast kernels for a network with rounding in it, too.
    """

    on: On = "auto"
    batch: int | None = None
    preprocess: str | None = None
    fast: bool = False


def open_classifier(
    path: Path,
    opening: Opening = Opening(),
    *,
    host: DescribedHost | None = None,
    progress: Progress = silent,
) -> Classifier:
    """Open a bundle for use on this machine.

    Args:
        path: The bundle.
        opening: Where and how.
        host: What this machine has; None to look.
        progress: Told percent done, and TensorRT's phase, when a plan is built.

    Raises:
        InputError: The bundle is damaged, or does not say how images are prepared.
        MissingBackendError: What would run it is not here.
        BuildError: TensorRT refuses the network, or to load the plan.
        GraphError: ONNX Runtime refuses the network.
        OutputError: A built plan cannot be kept.
    """
    host = host or this_host()
    with open_bundle(path) as bundle:
        contents = read_contents(bundle)
        spec = _spec(bundle, contents, opening)
        way = choose(bundle, contents, host, opening.on)
        if way.kind == "onnxruntime":
            classifier = _on_cpu(bundle, contents, spec, opening)
        else:
            classifier = _on_gpu(bundle, contents, spec, (way, host, opening, progress))
    classifier.notes = (*way.notes, *classifier.notes)
    return classifier


def _spec(bundle: Bundle, contents: Contents, opening: Opening) -> PreprocessSpec:
    if opening.preprocess is not None:
        return preprocess_option(opening.preprocess)
    if contents.preprocess is None:
        raise InputError(
            f"{bundle.path}: does not say how images are prepared for its network",
            hint="give --preprocess (a preset such as imagenet-v2, or numbers)",
        )
    return contents.preprocess


def _on_cpu(
    bundle: Bundle, contents: Contents, spec: PreprocessSpec, opening: Opening
) -> Classifier:
    from deploy.runners.onnx import open_onnx_bytes

    model = open_onnx_bytes(bundle.read(MODEL), MODEL, fast=opening.fast)
    return Classifier(model, spec, contents.labels, batch=opening.batch or _BATCH)


_Here = tuple[Way, DescribedHost, Opening, Progress]


def _on_gpu(bundle: Bundle, contents: Contents, spec: PreprocessSpec, here: _Here) -> Classifier:
    from deploy.runners.engine import open_engine
    from deploy.runners.engine_files import EngineFiles

    way, _, opening, _ = here
    if way.plan is not None:
        plan, manifest = bundle.read(way.plan.file), way.plan.manifest
        note = f"by {way.plan.file} of the bundle"
    else:
        plan, manifest, note = _built(bundle, contents, spec, here)
    flavour = load_flavour(manifest.flavour)
    files = EngineFiles(
        kernels=kernel_file(manifest.plan_sha256, flavour.version),
        weights=OnnxWeights(bundle.read(MODEL), Path(MODEL))
        if is_stripped(manifest.options)
        else None,
    )
    cuda = load_cuda(way.gpu)
    model, session = open_engine(flavour, plan, manifest, cuda=cuda, files=files)
    batch = opening.batch or min(_LARGEST, session.shapes.opt[0])
    classifier = Classifier(model, spec, contents.labels, batch=batch, close=session.close)
    classifier.notes = (note,)
    classifier.warm_up()
    session.keep_kernels()
    return classifier


def _built(
    bundle: Bundle, contents: Contents, spec: PreprocessSpec, here: _Here
) -> tuple[bytes, Manifest, str]:
    """Return a plan that was built on this machine, now or before."""
    way, host, _, progress = here
    flavour = load_flavour(way.flavour)
    gpu = (host.gpus or ())[way.gpu]
    target = _target(bundle, contents, spec, gpu if flavour.capabilities else None)
    key = PlanKey(
        model_sha256=contents.model_sha256,
        flavour=flavour.name,
        version=flavour.version,
        gpu=f"{gpu.capability}-{gpu.name}",
        batches=tuple(map(str, target.profiles)),
    )

    def make(plan: Path) -> None:
        graph = plan.with_name(MODEL)
        write_bytes(graph, bundle.read(MODEL))
        try:
            build(graph, target, plan, flavour=flavour, progress=progress)
        finally:
            graph.unlink()

    plan, manifest, new = cached_plan(key, make)
    how = "built here just now" if new else "built here before"
    return plan.read_bytes(), manifest, f"by {plan}, {how}"


def _target(
    bundle: Bundle, contents: Contents, spec: PreprocessSpec, gpu: HostGpu | None
) -> BuildTarget:
    """Return what to build: the batches of the bundle's plans, the size of its images."""
    profiles: tuple[OptimizationProfile, ...] = ()
    for plan in contents.plans[:1]:
        name = plan.manifest.inputs[0].name
        shapes = [profile[name] for profile in plan.manifest.profiles if name in profile]
        profiles = tuple(OptimizationProfile(s.min[0], s.opt[0], s.max[0]) for s in shapes)
    graph = read_graph(bundle.read(MODEL), where=f"{bundle.path}: {MODEL}")
    image = graph.inputs[0].shape or ()
    free = not all(isinstance(side, int) for side in image[2:])
    return BuildTarget(
        profiles=profiles,
        size=spec.input_size if free else None,
        capabilities=(gpu.capability,) if gpu is not None else (),
    )
