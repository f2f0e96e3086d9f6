"""Drop a bias of zeros.

before:  Conv(x, W, 0)
after:   Conv(x, W)

PyTorch's exporter writes one for every Conv that has none. Used on export only: after
BatchNormalization is folded, each Conv has a bias, zero or not, and one form is simpler.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.passes.base import PassResult, constant, is_op, outcome

__all__ = ["zero_bias"]


def zero_bias(model: ir.Model) -> PassResult:
    """Drop every constant zero bias of a Conv."""
    done: list[str] = []
    for node in model.graph:
        if not is_op(node, "Conv") or len(node.inputs) < 3:
            continue
        bias = constant(node.inputs[2])
        if bias is not None and not bias.any():
            node.resize_inputs(2)
            done.append(str(node.name))
    return outcome("zero_bias", model, what="dropped", done=done)
