"""Where a model breaks off, because a tensor has another shape than in the one before it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from deploy.comparison.sides.side import Side
from deploy.comparison.sums.rows import Seen
from deploy.comparison.sums.step_sums import StepSums
from exporter.session import Tensors

__all__ = ["find_break"]

_RUNNING = "while running"  # ONNX Runtime's words for a node that fails on what it is fed


def find_break(
    sides: Sequence[Side], steps: Sequence[StepSums], feeds: Sequence[Tensors], problem: str
) -> bool:
    """Look for the tensor whose other shape keeps a model from running; note it if found.

    Args:
        sides: The models.
        steps: What is summed up of each and the one before it; the tensor is noted there.
        feeds: What the models were fed.
        problem: What ONNX Runtime said; it names the node that it could not run.
    """
    if _RUNNING not in problem:
        return False
    shapes = {name: array.shape for feed in feeds for name, array in feed.items()}
    known = [side.shapes(shapes) for side in sides]
    for step, pair, (r, c) in zip(steps, pairwise(sides), pairwise(known), strict=True):
        for name in pair[0].wiring.makers:
            if name in step.joined and name in r and r[name] != c.get(name):
                step.seen[name] = Seen.apart(r[name], c.get(name, ()))
                return True
    for step, (_, candidate), (r, _) in zip(steps, pairwise(sides), pairwise(known), strict=True):
        for name, maker in candidate.wiring.makers.items():
            if f"'{maker.node}'" in problem and name in step.joined and name not in step.seen:
                step.seen[name] = Seen.apart(r.get(name, ()), ())
                return True
    return False
