"""What a rule is, and what it finds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from exporter.rules.node import Node
from exporter.rules.view import View

__all__ = ["Fault", "Finding", "Rule", "Severity", "rule"]


class Severity(StrEnum):
    """How bad a finding is, worst first."""

    ERROR = "error"  # TensorRT refuses it, or computes something else than the file says
    WARNING = "warning"  # it builds and is slower, or less exact, than it need be


class Fault(NamedTuple):
    """What a rule's check yields: where, and the value seen."""

    node: Node
    tensor: str
    problem: str


@dataclass(frozen=True, slots=True)
class Finding:
    """One offence against one rule.

    Attributes:
        rule: The rule's id.
        severity: Of the rule.
        node: Name of the node, or its first output where it has none.
        op: The node's operator.
        tensor: The tensor at fault.
        problem: What is wrong, with the value seen.
        what: The rule in one sentence.
        way_out: What to do.
    """

    rule: str
    severity: Severity
    node: str
    op: str
    tensor: str
    problem: str
    what: str
    way_out: str


Check = Callable[[View], Iterator[Fault]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of TensorRT's explicit quantization, and the check that finds offences.

    Attributes:
        id: Stable, for suppressing it and for reading about it.
        severity: Of every finding.
        way_out: What to do about one.
        what: The rule in one sentence.
        why: What happens otherwise, and who says so.
        check: Yields the offences of one graph, in its order.
    """

    id: str
    severity: Severity
    way_out: str
    what: str
    why: str
    check: Check

    def findings(self, view: View) -> Iterator[Finding]:
        """Yield the offences of one graph, in its order."""
        for node, tensor, problem in self.check(view):
            place = node.label, node.op, tensor
            yield Finding(self.id, self.severity, *place, problem, self.what, self.way_out)


def rule(name: str, severity: Severity, *, way_out: str) -> Callable[[Check], Rule]:
    """Make a rule of a check; the check's docstring says what it is and why."""

    def make(check: Check) -> Rule:
        what, _, why = (inspect.getdoc(check) or "").partition("\n\n")
        return Rule(name, severity, way_out, what, " ".join(why.split()), check)

    return make
