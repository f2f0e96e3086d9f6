"""The networks that are measured: ResNets of random weights, trained ones, and foreign ones.

Each is a folder with ``fp32.onnx`` (after the graph passes), ``fp16.onnx`` and ``int8.onnx``.
Random networks are quantized by the largest magnitudes of one batch of noise: what matters here
is the same arithmetic on both sides, not accuracy.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import click
import numpy as np
import onnx

from bench.measure import measure
from bench.tools import strata_command
from exporter.onnx_file import load, save
from exporter.precision import to_float16
from exporter.quantization.placement import plan_quantization
from exporter.quantization.qdq import insert_qdq
from exporter.session import open_session

__all__ = ["PRECISIONS", "Net", "foreign_nets", "random_feeds", "random_nets", "trained_net"]

PRECISIONS = ("fp32", "fp16", "int8")
# Name → more options of `strata export`, besides the depths.
_VARIANTS = {
    "resnext50": ("--depth", "50", "--groups", "32", "--width-per-group", "4"),
    "preactivation50": ("--depth", "50", "--version", "2"),
}
_FOREIGN = Path(__file__).parents[2] / "tests" / "foreign_nets.py"


@dataclass(frozen=True, slots=True)
class Net:
    """A network in three precisions.

    Attributes:
        name: As the table names it.
        folder: Where its files lie.
        data: Images to run it on, as ``--data`` names them; empty for noise.
    """

    name: str
    folder: Path
    data: str = ""

    def file(self, precision: str) -> Path:
        """Return its file of a precision."""
        return self.folder / f"{precision}.onnx"


def random_nets(folder: Path, depths: tuple[int, ...], *, variants: bool) -> Iterator[Net]:
    """Yield ResNets of random weights for images of 224×224, made where they are not there yet."""
    options = {f"resnet{depth}": ("--depth", str(depth)) for depth in depths}
    for name, words in (options | (_VARIANTS if variants else {})).items():
        net = Net(name, folder / name)
        model = net.folder / "model.onnx"
        if not net.file("int8").exists():
            net.folder.mkdir(parents=True, exist_ok=True)
            more = ("--weights", "random:0", "--preprocess", "imagenet-v1")
            _strata("export", *words, *more, "-o", model)
            _strata("optimize", model, "-o", net.file("fp32"))
            _quantize(net)
        yield net


def foreign_nets(folder: Path) -> Iterator[Net]:
    """Yield the networks of other exporters that the tests draw."""
    drawn: Mapping[str, object] = vars(_module(_FOREIGN))["NETS"]
    for name, builder in drawn.items():
        net = Net(f"foreign {name}", folder / f"foreign-{name}")
        if not net.file("int8").exists():
            net.folder.mkdir(parents=True, exist_ok=True)
            made: onnx.ModelProto = builder()  # type: ignore[operator]
            onnx.save(made, net.folder / "model.onnx")
            _strata("optimize", net.folder / "model.onnx", "-o", net.file("fp32"))
            _quantize(net)
        yield net


def trained_net(source: Path, folder: Path, data: str) -> Net:
    """Return a network that ``make export`` made, from its output folder."""
    net = Net(f"trained {source.name}", folder / f"trained-{source.name}", data)
    if not net.file("int8").exists():
        net.folder.mkdir(parents=True, exist_ok=True)
        _strata(
            "quantize", source / "optimized.onnx", "--precision", "fp16", "-o", net.file("fp16")
        )
        for name, own in (("fp32", "optimized.onnx"), ("int8", "int8.onnx")):
            net.file(name).symlink_to((source / own).resolve())
    return net


def _quantize(net: Net) -> None:
    model = load(net.file("fp32"))
    plan = plan_quantization(model)
    names = tuple(activation.tensor for activation in plan.activations)
    feeds = random_feeds(model, batch=2)
    inner = [name for name in names if name not in feeds]
    found = open_session(model, outputs=inner)(feeds) | feeds
    # A random network may have a tensor of zeros, for which any scale does.
    amaxes = {name: float(np.abs(found[name]).max()) or 1.0 for name in names}
    save(to_float16(model), net.file("fp16"))
    save(insert_qdq(model, plan, amaxes), net.file("int8"))


def random_feeds(model: onnx.ModelProto, batch: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return noise for each input; free dimensions are ``batch``."""
    generator = np.random.default_rng(seed)
    initialized = {tensor.name for tensor in model.graph.initializer}
    feeds = {}
    for value in model.graph.input:
        if value.name not in initialized:
            shape = [dim.dim_value or batch for dim in value.type.tensor_type.shape.dim]
            feeds[value.name] = generator.standard_normal(shape).astype(np.float32)
    return feeds


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise click.ClickException(f"{path} is not there: run this in the repository")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _strata(*words: object) -> None:
    log = Path(str(words[-1])).with_suffix(".log")
    used = measure(strata_command(words), log)
    if used.problem:
        raise click.ClickException(f"strata {words[0]}: {used.problem} ({log})")
    log.unlink()
