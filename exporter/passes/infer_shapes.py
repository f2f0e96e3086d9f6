"""Write the type and shape of every tensor into the graph, as far as they can be known.

before:  Conv(x: N×3×224×224) → y
after:   Conv(x: N×3×224×224) → y: N×64×112×112

By ONNX's own inference, which also follows shapes that the graph computes (data
propagation). A free batch dimension keeps its name. What cannot be inferred is left as it
was; a contradiction in a foreign file is not this pass's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from exporter.passes.base import NOTHING, PassResult

__all__ = ["infer_shapes"]

_INVENTED = "unk__"


def infer_shapes(model: ir.Model) -> PassResult:
    """Infer what is missing."""
    for weight in model.graph.initializers.values():
        if weight.const_value is not None:  # one that was folded may still have the old, free shape
            weight.shape = ir.Shape(weight.const_value.numpy().shape)
    before = _known(model)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    for value in _made(model):
        value.shape = _merged(before[value].shape, value.shape)
    after = _known(model)
    names = [str(value.name) for value, facts in after.items() if before[value] != facts]
    unknown = [str(value.name) for value, facts in after.items() if facts.shape is None]
    reason = f"shapes: {len(names)} of {len(after)} tensors" if names else f"shapes: {NOTHING}"
    if unknown:
        reason += f"; {len(unknown)} unknown, first {unknown[0]}"
    return PassResult("infer_shapes", model, bool(names), reason)


@dataclass(frozen=True, slots=True)
class _Facts:
    dtype: ir.DataType | None
    shape: ir.Shape | None


def _made(model: ir.Model) -> list[ir.Value]:
    """Return the tensors that nodes make."""
    return [value for node in model.graph for value in node.outputs if value.name]


def _known(model: ir.Model) -> dict[ir.Value, _Facts]:
    return {
        value: _Facts(value.dtype, None if value.shape is None else value.shape.copy())
        for value in _made(model)
    }


def _merged(old: ir.Shape | None, new: ir.Shape | None) -> ir.Shape | None:
    """Take from ``new`` what is more than ``old`` says.

    Inference invents names for dimensions it cannot know (``unk__7``), other ones in each
    run; such a name says nothing, and is left out.
    """
    if new is None or (old is not None and len(old) != len(new)):
        return new if old is None else old
    merged: list[int | str | None] = []
    for index, dim in enumerate(new):
        held = None if old is None else old[index]
        if isinstance(dim, int):
            merged.append(dim)
        elif isinstance(held, int):
            merged.append(held)
        else:
            name = None if held is None else held.value
            found = None if dim.value is None or _INVENTED in str(dim.value) else str(dim.value)
            merged.append(name or found)
    return ir.Shape(merged)
