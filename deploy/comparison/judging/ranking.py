"""Which of two layers at fault is more to blame, where one of them causes the other's error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from deploy.comparison.graphs.layer_facts import LayerFacts
from deploy.comparison.values.verdict import Blame, Reason

__all__ = ["behind_its_cause"]


def behind_its_cause(blame: Blame, facts: LayerFacts | None, before: Sequence[Blame]) -> Blame:
    """Rank a layer no higher than the clipping of what it reads, which its error is made of.

    What is clipped errs in one direction, so errors add up in the layer that reads it, to more
    than rounding explains.

    Args:
        blame: What is wrong with the layer.
        facts: Of the layer; None when they are not known.
        before: What is wrong with the tensors before it.
    """
    if blame.reason is not Reason.ERROR or facts is None:
        return blame
    reads = {source.tensor for source in facts.sources if source.quantized}
    clipped = [b.excess_db for b in before if b.reason is Reason.CLIPPING and b.tensor in reads]
    return replace(blame, excess_db=min(blame.excess_db, *clipped)) if clipped else blame
