"""Write the type and shape of every tensor into the graph, as far as they can be known.

before:  Conv(x: N×3×224×224) → y
after:   Conv(x: N×3×224×224) → y: N×64×112×112

By ONNX's own inference, which also follows shapes that the graph computes (data
propagation). A free batch dimension keeps its name. What cannot be inferred is left as it
was; a contradiction in a foreign file is not this pass's to judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from exporter.passes.base import NOTHING, PassResult

__all__ = ["infer_shapes"]

_INVENTED = "unk__"
_SMALL_BYTES = 1024  # a larger constant is a weight, whose values no shape depends on


def infer_shapes(model: ir.Model) -> PassResult:
    """Infer what is missing."""
    before = _known(model)
    inferred = _inferred(model)
    for value in _made(model):
        found = inferred.get(str(value.name))
        if found is not None:
            value.type = value.type or ir.serde.deserialize_type_proto_for_type(found)
            value.shape = _merged(value.shape, ir.serde.deserialize_type_proto_for_shape(found))
    after = _known(model)
    names = [str(value.name) for value, facts in after.items() if before[value] != facts]
    unknown = [str(value.name) for value, facts in after.items() if facts.shape is None]
    reason = f"shapes: {len(names)} of {len(after)} tensors" if names else f"shapes: {NOTHING}"
    if unknown:
        reason += f"; {len(unknown)} unknown, first {unknown[0]}"
    return PassResult("infer_shapes", model, bool(names), reason)


def _inferred(model: ir.Model) -> dict[str, onnx.TypeProto]:
    """Return name → type and shape, as ONNX infers them; nothing when it cannot read the graph."""
    proto = ir.to_proto(model)
    graph = proto.graph
    weights = {weight.name: weight for weight in graph.initializer}
    del graph.initializer[:]
    held = {info.name for info in graph.input}
    for name, weight in weights.items():
        if weight.ByteSize() <= _SMALL_BYTES:
            graph.initializer.append(weight)  # perhaps a shape: its value counts
        elif name not in held:
            graph.input.append(
                onnx.helper.make_tensor_value_info(name, weight.data_type, weight.dims)
            )
    # A constant's shape is its own; one that was folded may still have the free one written.
    infos = [info for info in graph.value_info if info.name not in weights]
    del graph.value_info[:]
    graph.value_info.extend(infos)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        return {}
    return {info.name: info.type for info in (*proto.graph.value_info, *proto.graph.output)}


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
