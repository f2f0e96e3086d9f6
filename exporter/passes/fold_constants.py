"""Compute once what does not depend on the input.

before:  W → Transpose → Wᵀ;  Shape(x) → Gather → Concat → the shape of a Reshape
after:   Wᵀ, the shape: initializers of the same names

The evaluation is onnxscript's (ONNX's reference operators, symbolic shapes). Q/DQ nodes
are kept, as they say where INT8 is meant. Bounded: a result that would make the file
grow by more than a few megabytes is left to be computed.
"""

from __future__ import annotations

import math
from collections import Counter

import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass
from onnxscript import optimizer

from core.errors import GraphError
from exporter.passes.base import PassResult, constant, is_op, outcome

__all__ = ["fold_constants"]

_MAX_INPUT = 1 << 24  # elements; above it evaluation in numpy takes seconds
_MAX_GROWTH = 1 << 20  # elements
_SHORT = 64  # elements


def fold_constants(model: ir.Model) -> PassResult:
    """Fold constant expressions and make every Constant node an initializer.

    Raises:
        GraphError: A constant expression is malformed; the node is named.
    """
    before = Counter(node.op_type for node in model.graph.all_nodes())
    try:
        optimizer.fold_constants(
            model,
            onnx_shape_inference=False,  # infer_shapes has done it, and says so
            input_size_limit=_MAX_INPUT,
            output_size_limit=_MAX_GROWTH,
            should_fold=_should_fold,
        )
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    except (RuntimeError, ValueError, ir.passes.PassError) as err:
        raise GraphError(
            f"constants cannot be folded: {err}", hint="correct that node and export again"
        ) from err
    after = Counter(node.op_type for node in model.graph.all_nodes())
    folded = [f"{count} {op_type}" for op_type, count in (before - after).most_common()]
    return outcome("fold_constants", model, what="computed once", done=folded)


def _should_fold(node: ir.Node) -> bool | None:
    """Fold a short ConstantOfShape, the paddings of old exporters; None for the usual rules."""
    if is_op(node, "ConstantOfShape"):
        shape = constant(node.inputs[0])
        return shape is not None and math.prod(shape.tolist()) <= _SHORT
    return None
