"""Take the weights out of the list of graph inputs, and inline local functions.

before:  graph (x, W) with an initializer W;  y = Block(x), a function of the file
after:   graph (x);  the nodes of Block

Before IR version 4 every initializer had to be an input too. Since then such an input is
a default that a caller may override, and then nothing about it may be folded; TensorRT
reads it as a constant, and so does Strata.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveInitializersFromInputsPass

from exporter.passes.base import PassResult, outcome

__all__ = ["plain_inputs"]

_WEIGHTS_APART = 4  # the IR version from which an initializer need not be an input


def plain_inputs(model: ir.Model) -> PassResult:
    """Rewrite both."""
    done = [f"{value.name}" for value in model.graph.inputs if value.is_initializer()]
    if done:
        RemoveInitializersFromInputsPass()(model)
        model.ir_version = max(model.ir_version, _WEIGHTS_APART)
    if model.functions:
        done += [f"function {name}" for _, name, _ in model.functions]
        InlinePass()(model)
    return outcome("plain_inputs", model, what="made plain", done=done)
