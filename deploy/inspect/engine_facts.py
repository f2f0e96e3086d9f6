"""Everything that can be said of an engine: its header, its manifest, its kernels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.artifacts import regular
from core.errors import InputError
from deploy.engines.manifest import Manifest, read_manifest, verify_plan
from deploy.engines.plan_header import PlanHeader, read_header
from deploy.inspect.engine_shapes import bare_shapes, profile_shapes
from deploy.inspect.inspector import kernels_of_inspector
from deploy.inspect.kernels import KernelGraph
from deploy.inspect.plan_graph import parse_graph
from deploy.inspect.plan_kernels import kernels_of_plan
from deploy.inspect.plan_text import compiled_text
from deploy.inspect.weighted import Asked

__all__ = ["EngineFacts", "inspect_engine", "inspect_export"]


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What is known of an engine.

    Attributes:
        path: The file, as it was named.
        bytes: Its size.
        trouble: What is wrong with its manifest, or between the two; empty when all is well.
        graphs: Kernels of each optimization profile, where they could be read.
        unknown: Why there are no kernels; empty when there are.
    """

    path: str
    bytes: int
    header: PlanHeader
    manifest: Manifest | None
    trouble: str
    graphs: tuple[KernelGraph, ...]
    unknown: str

    @property
    def asked(self) -> Asked:
        """Names and precisions of the layers with weights, as the manifest has them."""
        return self.manifest.layers if self.manifest else {}

    @property
    def version(self) -> str:
        """Version of the TensorRT that built it; empty when nothing tells."""
        return self.header.version or (self.manifest.version if self.manifest else "")

    @property
    def flavour(self) -> str:
        """``"rtx"`` or ``"tensorrt"``; empty when nothing tells."""
        return self.header.flavour or (self.manifest.flavour if self.manifest else "")


def inspect_engine(engine: Path, *, batch: int | None = None) -> EngineFacts:
    """Look into an engine. It is not loaded, except one of the flavour tensorrt on a GPU.

    Args:
        engine: The plan; its manifest lies beside it, or not.
        batch: Images that the sizes are for; None for what each profile is tuned for.

    Raises:
        InputError: The file cannot be read, nothing tells what it is, or its profiles do not
            take this batch.
    """
    header = read_header(engine)
    manifest, trouble = _manifest(engine)
    size = engine.stat().st_size
    if not size or (header.flavour is None and manifest is None):
        what = "a TensorRT plan, as far as its first bytes tell, and it has no manifest"
        raise InputError(
            f"{engine}: {f'not {what}' if size else 'an empty file, no engine'}",
            hint="copy it again whole, or build it again; strata build makes an engine",
        )
    graphs: tuple[KernelGraph, ...] = ()
    if header.flavour == "tensorrt" and manifest is not None and not trouble:
        from deploy.inspect.live import live_kernels

        graphs, unknown = live_kernels(engine, manifest, batch)
    else:
        graphs, unknown = _graphs(engine, header, manifest, batch)
    return EngineFacts(str(engine), size, header, manifest, trouble, graphs, unknown)


def inspect_export(file: Path, *, batch: int | None = None) -> EngineFacts:
    """Read the layer information of an engine that was inspected elsewhere.

    Args:
        file: JSON of TensorRT's EngineInspector, or of ``trtexec --exportLayerInfo``.
        batch: Images that its shapes are for; None for one.

    Raises:
        InputError: Not such JSON.
    """
    try:
        graph = kernels_of_inspector(regular(file).read_text(encoding="utf-8"), batch=batch or 1)
    except OSError as err:
        raise InputError(f"{file}: cannot be read ({err.strerror})", hint="name it") from err
    except ValueError as err:  # UnicodeDecodeError is one
        raise InputError(
            f"{file}: not the layer information of an engine ({err})",
            hint="name an engine, an ONNX file, or what trtexec --exportLayerInfo wrote",
        ) from err
    header = PlanHeader(flavour="tensorrt")
    trouble = "not asked: the engine itself is not here"
    return EngineFacts(str(file), file.stat().st_size, header, None, trouble, (graph,), "")


def _manifest(engine: Path) -> tuple[Manifest | None, str]:
    """Return the manifest, where it can be read, and what is wrong with it."""
    try:
        return verify_plan(engine), ""
    except InputError as err:
        trouble = err.problem
    try:
        return read_manifest(engine), trouble
    except InputError:
        return None, trouble


def _graphs(
    engine: Path, header: PlanHeader, manifest: Manifest | None, batch: int | None
) -> tuple[tuple[KernelGraph, ...], str]:
    text = compiled_text(engine, header)
    found = []
    for index, graph_text in enumerate(text.graphs):
        try:
            graph = parse_graph(graph_text)
        except ValueError as err:
            return (), f"its compiled graph is not as it was known ({err})"
        shapes = profile_shapes(manifest, index, batch) or bare_shapes(graph, batch)
        found.append(kernels_of_plan(graph, shapes))
    return tuple(found), text.unknown
