"""The graph passes in order, run to a fixed point, and the check of what they made."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import onnx

from core.errors import GraphError
from core.progress import Progress, silent
from exporter.graph_file import from_proto, to_proto
from exporter.passes.base import Pass, PassResult
from exporter.passes.dead_code import dead_code
from exporter.passes.fold_batchnorm import fold_batchnorm
from exporter.passes.fold_constants import fold_constants
from exporter.passes.fold_scale import fold_scale
from exporter.passes.gemm_bias import gemm_bias
from exporter.passes.global_pool import global_pool
from exporter.passes.infer_shapes import infer_shapes
from exporter.passes.merge_slices import merge_slices
from exporter.passes.name_nodes import name_nodes
from exporter.passes.plain_flatten import plain_flatten
from exporter.passes.plain_gemm import plain_gemm
from exporter.passes.plain_inputs import plain_inputs
from exporter.passes.remove_noops import remove_noops
from exporter.passes.run import quiet, run_passes
from exporter.pieces import Pieces
from exporter.session import Tensors, open_session
from exporter.tensor_check import (
    CHUNK_BYTES,
    FLOOR_DB,
    CheckOptions,
    Sink,
    TensorCheck,
    check_tensors,
    random_feed,
    tensor_bytes,
)

__all__ = ["PASSES", "check_optimized", "optimize"]

_HALF_FLOOR_DB = 40.0  # float16 keeps 11 bits: one rounding leaves about 70 dB

# In the order they run. Shapes come first, as later passes prove their rewrites by them,
# and again in the next round, when there is more to know.
PASSES: tuple[Pass, ...] = (
    plain_inputs,
    name_nodes,
    infer_shapes,
    remove_noops,
    fold_constants,
    merge_slices,
    fold_batchnorm,
    fold_scale,
    global_pool,
    plain_flatten,
    plain_gemm,
    gemm_bias,
    dead_code,
)

_OLDEST_OPSET = 13


def optimize(
    model: onnx.ModelProto, *, progress: Progress = silent
) -> tuple[onnx.ModelProto, tuple[PassResult, ...]]:
    """Run the passes over a model until none changes anything.

    Args:
        model: Any ONNX model of opset 13 or newer; left as it is.
        progress: Told of each pass.

    Returns:
        The optimized model, its metadata kept, and what each pass did: first each change
        in the order they were made, then the last word of the passes that changed nothing.

    Raises:
        GraphError: An older opset, or a graph that contradicts itself.
    """
    opset = next((item.version for item in model.opset_import if item.domain in ("", "ai.onnx")), 0)
    if opset < _OLDEST_OPSET:
        raise GraphError(
            f"opset {opset}: the graph passes know opset {_OLDEST_OPSET} and newer",
            hint="export at opset 19, or convert with onnx.version_converter.convert_version",
        )
    with quiet():
        graph = from_proto(copy.deepcopy(model))  # the graph edits the tensors it wraps
        results = run_passes(graph, PASSES, progress=progress)
    optimized = to_proto(graph)
    return optimized, results


def check_optimized(
    model: onnx.ModelProto,
    optimized: onnx.ModelProto,
    feeds: Sequence[Tensors] = (),
    *,
    progress: Progress = silent,
) -> TensorCheck:
    """Compare a model with what the passes made of it, on every tensor that survives.

    Args:
        model: Before the passes.
        optimized: After them.
        feeds: Inputs by name; none for a batch of random ones.
        progress: Told of each run.

    Raises:
        AccuracyError: A tensor is under the floor; the first in graph order is named.
        GraphError: ONNX Runtime cannot run one of the two.
    """
    known = {name for node in model.graph.node for name in node.output}
    sizes = {name: size for name, size in tensor_bytes(optimized).items() if name in known}
    feeds = feeds or [random_feed(open_session(optimized).inputs)]
    rows = max((len(a) for feed in feeds for a in feed.values() if a.ndim), default=1)
    reference = Pieces(model, {n: size * rows for n, size in sizes.items()}, CHUNK_BYTES)

    def drive(feed: Tensors, sink: Sink) -> None:
        for part in reference.run(feed):
            for name, array in part.items():
                sink(name, array)

    floor_db = _HALF_FLOOR_DB if _is_half(model) else FLOOR_DB
    # Not strict: a mask of −∞ is as right as any other value.
    options = CheckOptions(sizes, floor_db, strict=False)
    check = check_tensors(drive, optimized, feeds, options, progress=progress)
    check.require("the optimized graph against the model it was made from")
    return check


def _is_half(model: onnx.ModelProto) -> bool:
    """Tell whether the graph has 16-bit floats, which a fold rounds again."""
    graph = model.graph
    types = {weight.data_type for weight in graph.initializer}
    types |= {
        v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)
    }
    return bool(types & {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
