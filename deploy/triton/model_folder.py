"""A model's folder in a Triton repository, as it lies on the disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.engines.build_options import is_stripped
from deploy.engines.manifest import Manifest, manifest_path, read_manifest
from deploy.engines.plan_header import read_header
from deploy.onnx_files.reader import read_graph
from deploy.triton.interface import Interface, interface_of_graph, interface_of_manifest
from deploy.triton.pbtxt import PbtxtError, parse_pbtxt
from deploy.triton.section import Section, WrongFieldError

__all__ = ["BACKENDS", "CONFIG", "ModelFile", "ModelFolder", "Problem", "backend_of"]

CONFIG = "config.pbtxt"
BACKENDS = {"tensorrt_plan": "tensorrt", "onnxruntime_onnx": "onnxruntime"}
_DEFAULT_FILES = {"tensorrt": "model.plan", "onnxruntime": "model.onnx"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a repository: the model, the file or folder, what, and the way out."""

    model: str
    where: str
    what: str
    hint: str

    def __str__(self) -> str:
        """Return ``resnet50/config.pbtxt: …``."""
        return f"{self.model}/{self.where}: {self.what}" if self.model else self.what


def backend_of(config: Section) -> str:
    """Return the backend that a configuration names; empty when it names none."""
    platform = config.text("platform")
    return config.text("backend") or BACKENDS.get(platform, platform)


@dataclass(frozen=True)
class ModelFile:
    """A file that Triton loads.

    Attributes:
        path: Where it lies.
        where: The same inside the model's folder.
        interface: What it takes and gives; None where nothing tells.
        manifest: Of a plan; None where none lies beside it.
        quantized: Whether it is a graph with Q/DQ.
        problem: What is wrong with it; empty when nothing is.
        hint: The way out of that.
    """

    path: Path
    where: str
    interface: Interface | None = None
    manifest: Manifest | None = None
    quantized: bool = False
    problem: str = ""
    hint: str = ""


class ModelFolder:
    """One model of a repository.

    Args:
        path: Its folder.

    Attributes:
        name: Of the folder: the model's.
        config: The configuration.
        backend: ``tensorrt``, ``onnxruntime``, or another one's name.

    Raises:
        InputError: There is no configuration, or it cannot be read.
        WrongFieldError: The configuration holds what Triton does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name
        try:
            text = (path / CONFIG).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as err:
            why = err.strerror if isinstance(err, OSError) else "not UTF-8"
            raise InputError(
                f"cannot be read ({why})", hint="strata triton BUNDLE -o REPOSITORY writes one"
            ) from err
        try:
            message = parse_pbtxt(text)
        except PbtxtError as err:
            raise WrongFieldError(f"not protobuf's text format: {err}") from err
        self.config = Section(message, "ModelConfig")
        self.backend = backend_of(self.config)

    @cached_property
    def versions(self) -> tuple[Path, ...]:
        """Folders that Triton takes for versions: numbers that do not start with 0."""
        found = [p for p in self.path.iterdir() if p.is_dir() and _is_version(p.name)]
        return tuple(sorted(found, key=lambda p: int(p.name)))

    @cached_property
    def other_folders(self) -> tuple[str, ...]:
        """Names of folders that are no versions, nor what the configuration reads from."""
        known = {"warmup", "initial_state"}
        found = (p.name for p in self.path.iterdir() if p.is_dir() and p not in self.versions)
        return tuple(sorted(name for name in found if name not in known))

    @cached_property
    def file_names(self) -> Mapping[str, str]:
        """Compute capability → file name; "" is the file for every other GPU."""
        entries = self.config.mapping("cc_model_filenames")
        found = {key: entry.text("value") for key, entry in entries.items()}
        default = self.config.text("default_model_filename")
        if default or not found:
            found[""] = default or _DEFAULT_FILES.get(self.backend, "")
        return found

    @cached_property
    def files(self) -> tuple[ModelFile, ...]:
        """The model files of all versions; one that is missing is a problem of its own."""
        names = sorted({name for name in self.file_names.values() if name})
        return tuple(self._file(version, name) for version in self.versions for name in names)

    def _file(self, version: Path, name: str) -> ModelFile:
        path, where = version / name, f"{version.name}/{name}"
        try:
            if not path.is_file():
                raise InputError(
                    "is not there", hint="name the file that is there, or put this one there"
                )
            if self.backend == "onnxruntime":
                graph = read_graph(path.read_bytes(), where=where)
                interface = interface_of_graph(graph, size=None, where=where)
                quantized = any(node.op == "QuantizeLinear" for node in graph.nodes)
                return ModelFile(path, where, interface, quantized=quantized)
            return self._plan(path, where)
        except InputError as err:
            return ModelFile(path, where, problem=err.problem, hint=err.hint)
        except OSError as err:
            return ModelFile(path, where, problem=f"cannot be read ({err.strerror})", hint="")

    def _plan(self, path: Path, where: str) -> ModelFile:
        if read_header(path).flavour == "rtx":
            from deploy.triton.choose import WAY_OUT

            raise InputError(
                "is a plan of TensorRT-RTX, and Triton has no backend for that", hint=WAY_OUT
            )
        if not manifest_path(path).is_file():
            return ModelFile(path, where)
        manifest = read_manifest(path)
        if sha256_file(path) != manifest.plan_sha256:
            raise InputError(
                "its bytes are not those that its manifest describes",
                hint="copy both again whole, or make the repository again",
            )
        if is_stripped(manifest.options):
            raise InputError(
                "was built without its weights, and Triton gives none",
                hint="build it without --strip-weights",
            )
        return ModelFile(path, where, interface_of_manifest(manifest), manifest)


def _is_version(name: str) -> bool:
    return name.isascii() and name.isdigit() and not name.startswith("0")
