"""PyTorch to ONNX: every module's output is a tensor of the module's name."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import torch
from torch import nn

from core.errors import GraphError, InputError
from core.progress import Progress, silent
from exporter.graph_file import to_proto
from exporter.models.checkpoint import Checkpoint
from exporter.models.taps import watch
from exporter.names import INPUT, set_canonical_names
from exporter.onnx_file import Card, set_card
from exporter.passes.base import Pass
from exporter.passes.dead_code import dead_code
from exporter.passes.fold_constants import fold_constants
from exporter.passes.infer_shapes import infer_shapes
from exporter.passes.merge_slices import merge_slices
from exporter.passes.plain_flatten import plain_flatten
from exporter.passes.remove_noops import remove_noops
from exporter.passes.run import quiet, run_passes
from exporter.passes.zero_bias import zero_bias
from exporter.tensor_check import FLOOR_DB, CheckOptions, TensorCheck, check_tensors, tensor_bytes

__all__ = ["OPSETS", "ExportOptions", "check_export", "export"]

OPSETS = range(19, 24)  # the first whose Q/DQ take float16; JetPack's parser knows it

_ANY_SIZE = (224, 224)  # pixels; to trace a network whose input size is free

# What PyTorch's exporter leaves behind. BatchNormalization stays: it is a module too.
_CLEANING: tuple[Pass, ...] = (
    infer_shapes,
    remove_noops,
    fold_constants,
    plain_flatten,
    merge_slices,
    zero_bias,
    dead_code,
)


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the graph is to be.

    Attributes:
        size: (height, width) in pixels, in place of the preprocess spec's: images will be
            resized to it.
        free_size: Leave height and width free, as the batch always is.
        opset: One of ``OPSETS``.
    """

    size: tuple[int, int] | None = None
    free_size: bool = False
    opset: int = OPSETS[0]

    def __post_init__(self) -> None:
        """Refuse what no graph can be."""
        if self.opset not in OPSETS:
            choices = f"choose {OPSETS[0]} to {OPSETS[-1]}"
            raise InputError(f"opset {self.opset} is not one Strata exports", hint=choices)
        if self.size is not None and min(self.size) < 1:
            raise InputError(f"input size {self.size} is empty", hint="give height and width")


def export(
    checkpoint: Checkpoint, options: ExportOptions, *, progress: Progress = silent
) -> onnx.ModelProto:
    """Export a network with its weights.

    Args:
        checkpoint: The network and its weights.
        options: See :class:`ExportOptions`.
        progress: Told of the three steps.

    Returns:
        Input ``input`` (batch, 3, H, W) float32; outputs as ``checkpoint.config.outputs``;
        nodes and tensors named by :mod:`exporter.names`; with its card.

    Raises:
        InputError: No input size is known.
        GraphError: PyTorch cannot export it; its reason is given.
    """
    spec = checkpoint.preprocess
    if spec is not None and options.size is not None:
        spec = replace(spec, resize=options.size, crop=None)
    size = options.size or (None if spec is None else spec.input_size)
    if size is None and not options.free_size:
        raise InputError(
            "the size of the network's input is not known: the preprocess spec makes images of "
            "many sizes, or there is none",
            hint="give --size HEIGHTxWIDTH, a --preprocess with a crop, or --dynamic-size",
        )
    progress(0, 3, "tracing")
    network = checkpoint.network()
    program = _trace(network, size or _ANY_SIZE, free_size=options.free_size)
    progress(1, 3, "translating")
    model = _translate(program, options)
    progress(2, 3, "cleaning")
    with quiet():
        run_passes(model, _CLEANING)
        set_canonical_names(
            model,
            outputs=checkpoint.config.outputs,
            axes=("batch", None, "height", "width"),
            weights=network.state_dict().keys(),
        )
    proto = to_proto(model)
    set_card(
        proto,
        Card(
            preprocess=spec,
            labels=checkpoint.labels,
            weights=dict(checkpoint.origin),
            parents={"weights": checkpoint.origin["sha256"]},
            stage="model",
        ),
    )
    return proto


def _trace(
    network: nn.Module, size: tuple[int, int], *, free_size: bool
) -> torch.export.ExportedProgram:
    """Record the network's operations with the free dimensions as symbols."""
    free = torch.export.Dim.DYNAMIC
    axes = {0: free} | ({2: free, 3: free} if free_size else {})
    # Two images: PyTorch takes a dimension of 1 for a constant.
    example = torch.zeros(2, 3, *size)
    with _silent(), _uncollected(), _failing("trace"):
        return torch.export.export(network, (example,), dynamic_shapes=(axes,))


def _translate(program: torch.export.ExportedProgram, options: ExportOptions) -> ir.Model:
    """Translate the recorded operations to ONNX, one by one, with nothing folded."""
    with _silent(), _uncollected(), _failing("translate"):
        translated = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=options.opset,
            optimize=False,
            verify=False,
            external_data=False,
            verbose=False,
        )
    if translated is None:
        raise GraphError("PyTorch returned no ONNX program", hint="use the locked versions")
    model: ir.Model = translated.model
    opsets = [onnx.helper.make_opsetid("", options.opset)]
    model.ir_version = onnx.helper.find_min_ir_version_for(opsets)
    return model


@contextmanager
def _uncollected() -> Iterator[None]:
    """Put off the collection of cycles: PyTorch makes millions of objects that stay a while."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _failing(step: str) -> Iterator[None]:
    """Turn PyTorch's exceptions into one that names the reason, not the machinery."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, AssertionError) as err:
        reason = str(err).strip().splitlines() or [type(err).__name__]
        raise GraphError(
            f"PyTorch cannot {step} the network: {reason[0]}",
            hint="try another input size or opset, and the versions of the lock file",
        ) from err


@contextmanager
def _silent() -> Iterator[None]:
    """Keep PyTorch's warnings about itself (no torchvision, …) off the terminal."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def check_export(
    model: onnx.ModelProto,
    checkpoint: Checkpoint,
    images: npt.NDArray[np.float32],
    *,
    floor_db: float = FLOOR_DB,
    progress: Progress = silent,
) -> TensorCheck:
    """Compare the exported graph with PyTorch, every module's output.

    Both compute the same images, first one alone and then the others as a batch; ONNX
    Runtime with its optimizations off.

    Args:
        model: The exported graph.
        checkpoint: What it was exported from.
        images: (N, 3, H, W) float32 with N ≥ 3, so that two batch sizes are seen.
        floor_db: SQNR that each tensor must reach.
        progress: Told of each run.

    Raises:
        AccuracyError: A tensor is under the floor; the first in graph order is named.
        GraphError: A module's output is not in the graph.
    """
    network = checkpoint.network()
    tensors = _module_tensors(model, network)
    sizes = {name: size for name, size in tensor_bytes(model).items() if name in tensors}
    names = {path: name for name, path in tensors.items()}
    check = check_tensors(
        lambda feed, sink: watch(network, names, feed[INPUT], sink),
        model,
        [{INPUT: images[:1]}, {INPUT: images[1:]}],
        CheckOptions(sizes, floor_db),
        progress=progress,
    )
    check.require("the exported graph against PyTorch")
    return check


def _module_tensors(model: onnx.ModelProto, network: nn.Module) -> dict[str, str]:
    """Return tensor name → path of the module whose output it is, for every leaf module."""
    made_by = {node.name: node.output[0] for node in model.graph.node}
    leaves = [path for path, module in network.named_modules() if not any(module.children())]
    missing = [path for path in leaves if path not in made_by]
    if missing:
        raise GraphError(
            f"module {missing[0]!r} has no node in the exported graph "
            f"({len(missing)} of {len(leaves)} modules have none)",
            hint="use the locked versions of torch and onnxscript",
        )
    return {made_by[path]: path for path in leaves}
