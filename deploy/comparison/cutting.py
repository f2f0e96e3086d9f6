"""Where the models of a comparison are cut, and how many images run through them together."""

from __future__ import annotations

import math
import sys
from collections.abc import Collection, Mapping, Sequence
from functools import reduce

from deploy.comparison.graphs.wiring import common_cuts, merge_cuts, weigh_pieces
from deploy.comparison.sides.side import Side
from exporter.session import Tensors

__all__ = ["choose_cuts"]

_PIECE_BYTES = 24 << 20  # of a model's tensors between two cuts: results do not depend on it


def choose_cuts(
    sides: Sequence[Side], joined: Sequence[frozenset[str]], feeds: Sequence[Tensors]
) -> tuple[tuple[str, ...], int]:
    """Cut all models where all can be, as finely as it saves memory.

    Args:
        sides: The models.
        joined: For each step whose tensors can be seen, those that both sides have.
        feeds: What each model is fed.

    Returns:
        The cuts, in order, and how many images may run together.
    """
    clear = [side for side in sides if not side.opaque]
    if not clear:
        return (), sys.maxsize
    common = reduce(common_cuts, (side.wiring.cuts for side in clear))
    cuts = [name for name in common if all(name in names for names in joined)]
    shapes = {name: array.shape for feed in feeds for name, array in feed.items()}
    images = len(next(iter(feeds[0].values())))
    known: Mapping[str, tuple[int, ...]] = {}
    for side in clear:
        if known := side.shapes(shapes):
            break
    # Of one image: so no cut depends on how many come at a time.
    sizes = {name: 4 * math.prod(shape) // images for name, shape in known.items()}
    kept = merge_cuts(side.wiring, cuts, sizes, _unpacked(sides, side.wiring.makers))
    pieces = weigh_pieces(side.wiring, kept, sizes)
    together = max(1, _PIECE_BYTES // max(*pieces, 1)) if known else sys.maxsize
    return kept, together


def _unpacked(sides: Sequence[Side], names: Collection[str]) -> dict[str, int]:
    """Return tensor → bytes of the weights that any model unpacks to make it."""
    return {name: max(side.unpacked.get(name, 0) for side in sides) for name in names}
