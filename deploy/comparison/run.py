"""Compare two networks tensor by tensor, joined by name.

Two questions are asked of each tensor at once. *Inherited*: how far is it from the
reference's, when both networks run freely from the same images? *Own*: how far, when the
candidate's layer is fed the reference's tensors? Rounding flips cascade, so a late layer
inherits what early ones did, and only its own error says whether it is at fault.

Both networks run in ONNX Runtime with its optimizations off, in pieces cut where a single
tensor passes (see :mod:`deploy.comparison.segments`). What a piece makes is folded into the
rows and dropped before the next one runs: memory is that of the largest piece, not of the
network, and does not grow with the images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from core.errors import InputError
from core.metrics import Difference, difference
from core.progress import Progress, silent
from deploy.comparison.pieces import Pieces
from deploy.comparison.report import Report, Status
from deploy.comparison.rows import Seen, layers_of, rows
from deploy.comparison.segments import common_cuts, merge_cuts
from deploy.comparison.sides import Side, check_outputs, check_pair, open_side
from deploy.comparison.tensor_sizes import tensor_sizes
from deploy.images import ImageRequest, Images, open_images
from exporter.session import Tensors

__all__ = ["compare"]

_FOLDERS = min(4, os.cpu_count() or 1)  # threads that fold: memory soon bounds them

Pairs = Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[Any]]]


@dataclass(slots=True)
class _Fold:
    """What is known of the joined tensors so far, by name."""

    seen: dict[str, Seen] = field(default_factory=dict)
    inherited: dict[str, Difference] = field(default_factory=dict)
    own: dict[str, Difference] = field(default_factory=dict)


def compare(
    reference: Path,
    candidate: Path,
    request: ImageRequest,
    *,
    own: bool = True,
    progress: Progress = silent,
) -> Report:
    """Compare two ONNX files on the same images.

    Args:
        reference: The network that is right by definition.
        candidate: The network to judge.
        request: Which images.
        own: Also measure each layer's own error; the candidate runs twice for it.
        progress: Told the images done.

    Raises:
        InputError: A file that cannot be read; networks of other inputs or classes, or
            with no tensor in common; no images, or none that fit.
        GraphError: ONNX Runtime cannot run one of them.
    """
    theirs, ours = open_side(reference), open_side(candidate)
    check_pair(theirs, ours)
    specs = {str(side.path): side.card.preprocess for side in (theirs, ours)}
    images = open_images(request, specs)
    fold = _run(theirs, ours, images, own=own, progress=progress)
    table = rows((theirs.wiring, ours.wiring), fold.seen, fold.inherited, fold.own)
    return Report(theirs.subject, ours.subject, images.record(), table)


def _run(theirs: Side, ours: Side, images: Images, *, own: bool, progress: Progress) -> _Fold:
    """Run both networks over all images, and fold what they differ in."""
    joined = _joined(theirs, ours)
    fold = _Fold()
    pair: tuple[Pieces, Pieces] | None = None
    done = 0
    with ThreadPoolExecutor(_FOLDERS, thread_name_prefix="strata-fold") as pool:
        for _, batch in images.batches():
            entries = theirs.feed(batch), ours.feed(batch)
            if pair is None:
                pair = _cut(theirs, ours, joined, entries[0])
            _walk(pair, entries, fold, pool, own=own)
            if not done:
                pair[0].settle()
                pair[1].settle()
                check_outputs(theirs, ours, fold.seen)
            done += len(batch)
            progress(done, len(images))
    return fold


def _joined(theirs: Side, ours: Side) -> set[str]:
    """Return the names that both networks give a tensor.

    What a Q or DQ node makes is not among them: the tensor T is compared before its Q, as
    the layer made it, and ``T.dequantized`` would say the same with the rounding on top.
    """
    joined = layers_of(theirs.wiring).keys() & layers_of(ours.wiring).keys()
    if not joined:
        raise InputError(
            f"{theirs.path} and {ours.path} have no tensor name in common",
            hint="compare two forms of one network; Strata's own stages keep the names of tensors",
        )
    return set(joined)


def _cut(theirs: Side, ours: Side, joined: set[str], entry: Tensors) -> tuple[Pieces, Pieces]:
    """Cut both networks where both can be, as finely as it saves memory."""
    reference, candidate = theirs.take_model(), ours.take_model()
    shapes = {name: array.shape for name, array in entry.items()}
    cuts = [name for name in common_cuts(theirs.wiring, ours.wiring) if name in joined]
    kept = merge_cuts(theirs.wiring, cuts, tensor_sizes(reference, shapes))
    return (
        Pieces(reference, theirs.wiring, kept, joined, theirs.shifts),
        Pieces(candidate, ours.wiring, kept, joined, ours.shifts),
    )


def _walk(
    pair: tuple[Pieces, Pieces],
    entries: tuple[Tensors, Tensors],
    fold: _Fold,
    pool: Executor,
    *,
    own: bool,
) -> None:
    """Run one batch through both networks, piece by piece."""
    reference, candidate = pair
    reference.start(entries[0])
    candidate.start(entries[1])
    entry = entries[0]
    for at in range(reference.count):
        end = reference.end(at)
        r, c = reference.free(at), candidate.free(at)
        names = _join(fold, pair, r, c)
        _add(fold.inherited, {name: (r[name], c[name]) for name in names}, pool)
        del c  # before the candidate runs again
        if own and names:
            made = candidate.fed(at, entry, {name: r[name] for name in names})
            _add(fold.own, {name: (r[name], array) for name, array in made.items()}, pool)
            del made
        # A cut of two shapes: the candidate's next piece cannot be fed the reference's tensor.
        own = own and end in (None, *names)
        entry = {end: r[end]} if end else {}


def _join(fold: _Fold, pair: tuple[Pieces, Pieces], r: Tensors, c: Tensors) -> list[str]:
    """Note what both sides made; return the names of what can be compared, in graph order."""
    both = [name for name in r if name in c]
    for name in both:
        if name not in fold.seen:
            dtypes = pair[0].dtype(name), pair[1].dtype(name)
            fold.seen[name] = Seen.of(dtypes, (r[name].shape, c[name].shape))
    return [name for name in both if fold.seen[name].status is Status.COMPARED]


def _add(sums: dict[str, Difference], pairs: Pairs, pool: Executor) -> None:
    """Fold the difference of each pair into its sum."""
    measured = pool.map(difference, *zip(*pairs.values(), strict=True)) if pairs else ()
    for name, part in zip(pairs, measured, strict=True):
        sums[name] = sums.get(name, Difference()) + part
