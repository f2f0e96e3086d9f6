"""Hold any ONNX file to the rules of TensorRT's explicit quantization.

Each rule lives in :mod:`exporter.rules`, with what it says, why, and where that is from;
``docs/lint.md`` lists them. Nothing is changed, and a file in float only is no fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from exporter.rules import (
    additions,
    arithmetic,
    fusion,
    moves,
    operators,
    placement,
    shifted,
    weights,
)
from exporter.rules.base import Finding, Rule, Severity
from exporter.rules.reading import graphs_of
from exporter.rules.view import view_of

__all__ = ["RULES", "Finding", "LintReport", "Rule", "Severity", "lint"]

RULES: tuple[Rule, ...] = tuple(
    rule
    for family in (operators, arithmetic, weights, placement, additions, fusion, moves, shifted)
    for rule in family.RULES
)


@dataclass(frozen=True, slots=True)
class LintReport:
    """What was found in one file.

    Attributes:
        findings: Errors first, by rule, each rule's in the order of the graph.
        opset: Of the standard domain.
        layers: Convolutions and matrix products with constant weights.
        int8: How many of them read codes and have a quantized weight.
        pairs: Q/DQ pairs of activations.
    """

    findings: tuple[Finding, ...]
    opset: int
    layers: int
    int8: int
    pairs: int

    @property
    def quantized(self) -> bool:
        """Whether anything is quantized at all, by Q/DQ or by integer operators."""
        by_operators = any(finding.rule == "integer-operator" for finding in self.findings)
        return bool(self.int8 or self.pairs or by_operators)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What TensorRT refuses, or computes otherwise than the file says."""
        return tuple(f for f in self.findings if f.severity is Severity.ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What builds, and is slower or less exact than it need be."""
        return tuple(f for f in self.findings if f.severity is Severity.WARNING)

    def by_rule(self) -> dict[str, tuple[Finding, ...]]:
        """Return the findings by rule id, in order."""
        found: dict[str, list[Finding]] = {}
        for finding in self.findings:
            found.setdefault(finding.rule, []).append(finding)
        return {rule: tuple(findings) for rule, findings in found.items()}


def lint(model: onnx.ModelProto, *, ignore: Sequence[str] = ()) -> LintReport:
    """Return every offence of a model against every rule.

    Args:
        model: Any ONNX model, quantized or not, valid or not; untouched.
        ignore: Ids of rules to leave out.
    """
    views = [view_of(graph) for graph in graphs_of(model)]
    rules = [rule for rule in RULES if rule.id not in ignore]
    findings = [found for view in views for rule in rules for found in rule.findings(view)]
    order = {rule.id: number for number, rule in enumerate(rules)}
    findings.sort(key=lambda f: (f.severity is not Severity.ERROR, order[f.rule]))
    layers = [layer for view in views for layer in view.layers.values()]
    return LintReport(
        tuple(findings),
        opset=views[0].graph.opset,
        layers=len(layers),
        int8=sum(layer.int8 for layer in layers),
        pairs=sum(len(list(view.activations)) for view in views),
    )
