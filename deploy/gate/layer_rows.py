"""Add what became of the layers to a verdict on the answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from deploy.gate.baseline import Baseline, Layers
from deploy.gate.judge import judge_layers, moved_scales
from deploy.gate.layer_files import LayerPlan
from deploy.gate.layers import layers_not_run
from deploy.gate.verdict import Verdict

__all__ = ["add_layers"]


def add_layers(
    verdict: Verdict, baseline: Baseline, plan: LayerPlan, now: Mapping[str, Layers], why: str
) -> Verdict:
    """Judge the layers of each entry that are held to something.

    Args:
        verdict: On the answers.
        baseline: What must hold.
        plan: What the layers must hold, and what files say of them.
        now: Entry → its layers, where they were measured here.
        why: Why the others were not.
    """
    rows, moves, notes = list(verdict.rows), list(verdict.layers), list(verdict.notes)
    notes += plan.notes
    for entry, layers in plan.held.items():
        found = plan.measured[entry].layers if entry in plan.measured else now.get(entry)
        if found is None:
            rows += layers_not_run(baseline, (entry,), why)
            continue
        tolerance = baseline.rules.layers or 0.0
        row, moved = judge_layers(entry, layers.own_db, found.own_db, tolerance)
        rows.append(row)
        moves += moved
        notes += moved_scales(entry, layers.scales, found.scales)
    return replace(verdict, rows=tuple(rows), layers=tuple(moves), notes=tuple(notes))
