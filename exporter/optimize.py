"""The graph passes in order, run to a fixed point, and the check of what they made."""

from __future__ import annotations

import copy

import onnx
import onnx_ir as ir

from core.errors import GraphError
from core.progress import Progress, silent
from exporter.graph_file import to_proto
from exporter.passes.base import Pass, PassResult
from exporter.passes.dead_code import dead_code
from exporter.passes.fold_batchnorm import fold_batchnorm
from exporter.passes.fold_constants import fold_constants
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

__all__ = ["PASSES", "optimize"]

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
        try:
            graph = ir.from_proto(copy.deepcopy(model))  # the graph edits the tensors it wraps
        except (ValueError, TypeError, KeyError) as err:
            raise GraphError(
                f"the graph cannot be read: {err}", hint="export the model again"
            ) from err
        results = run_passes(graph, PASSES, progress=progress)
    return to_proto(graph), results
