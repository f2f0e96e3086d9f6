"""Write the type and shape of every tensor into the graph, as far as they can be known.

before:  Conv(x: N×3×224×224) → y
after:   Conv(x: N×3×224×224) → y: N×64×112×112

By ONNX's own inference, which also follows shapes that the graph computes (data
propagation). A free batch dimension keeps its name. What cannot be inferred is left as it
was; a contradiction in a foreign file is not this pass's to judge.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from exporter.passes.base import NOTHING, PassResult

__all__ = ["infer_shapes"]


def infer_shapes(model: ir.Model) -> PassResult:
    """Infer what is missing."""
    before = _known(model)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    after = _known(model)
    names = [name for name, facts in after.items() if before.get(name) != facts]
    unknown = [name for name, (_, shape) in after.items() if shape is None]
    reason = f"shapes: {len(names)} of {len(after)} tensors" if names else f"shapes: {NOTHING}"
    if unknown:
        reason += f"; {len(unknown)} unknown, first {unknown[0]}"
    return PassResult("infer_shapes", model, bool(names), reason)


def _known(model: ir.Model) -> dict[str, tuple[ir.DataType | None, ir.Shape | None]]:
    """Return type and shape of every tensor that a node makes."""
    return {
        str(value.name): (value.dtype, None if value.shape is None else value.shape.copy())
        for node in model.graph
        for value in node.outputs
        if value.name
    }
