"""The rule of full-range INT8: a tensor kept as its value less a constant has no zero border."""

from __future__ import annotations

from collections.abc import Iterator

from exporter.quantization.held_names import SHIFTED
from exporter.rules.base import Fault, Rule, Severity, rule
from exporter.rules.node import Node, named
from exporter.rules.view import View

__all__ = ["RULES"]


@rule(
    "shifted-border",
    Severity.ERROR,
    way_out="quantize the float graph again with strata quantize; leave its shifted tensors alone",
)
def shifted_border(view: View) -> Iterator[Fault]:
    """A zero-padded Conv reads no tensor that is kept less a constant (T.shifted = T − c).

    Zero in the border then stands for c, so results near the edges are wrong; the bias makes
    up for the constant only where the Conv does not pad. Source: the algebra of
    exporter/quantization/shift.py; arithmetic.
    """
    for node in view.layers:
        source = view.real(node.input(0))
        if node.is_op("Conv") and source.endswith(SHIFTED) and _pads(node) and not _map(view, node):
            yield Fault(node, source, f"{named(node)} pads it with zeros")


RULES: tuple[Rule, ...] = (shifted_border,)


def _pads(node: Node) -> bool:
    automatic = node.attributes.get("auto_pad")
    return any(node.integers("pads")) or (automatic is not None and b"SAME" in automatic.s)


def _map(view: View, node: Node) -> bool:
    """Tell whether a term for each position is added behind, which makes up for the border."""
    for reader in view.graph.readers(node.outputs[0]) if node.outputs else ():
        terms = [name for name in reader.inputs if view.graph.is_constant(name)]
        if reader.is_op("Add") and terms:
            return len(view.graph.shape(terms[0]) or ()) == 4
    return False
