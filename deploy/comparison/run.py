"""Compare models tensor by tensor, joined by name.

Two questions are asked of each tensor at once. *Inherited*: how far is it from the
reference's, when both networks run freely from the same images? *Own*: how far, when the
candidate's layer is fed the reference's tensors? Rounding flips cascade, so a late layer
inherits what early ones did, and only its own error says whether it is at fault.

With more than two models each is compared with the one before it, all in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field

from core.progress import Progress, silent
from deploy.comparison.assemble import keep_histograms, rows_of
from deploy.comparison.chain import Chain
from deploy.comparison.report import Report
from deploy.comparison.sides import check_pair
from deploy.comparison.subjects import open_side
from deploy.comparison.verdict import Bounds, Verdict
from deploy.images import ImageRequest, Images, open_images

__all__ = ["CompareOptions", "compare_models"]


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """How to compare.

    Attributes:
        own: Also measure each layer's own error; each candidate runs twice for it.
        until_first: Stop behind the first tensor that breaks its bound.
        bounds: What is asked of the layers.
    """

    own: bool = True
    until_first: bool = False
    bounds: Bounds = field(default_factory=Bounds)


def compare_models(
    models: Sequence[str],
    request: ImageRequest,
    options: CompareOptions | None = None,
    *,
    progress: Progress = silent,
) -> Report:
    """Compare two or more models on the same images, each with the one before it.

    Args:
        models: As :func:`~deploy.comparison.subjects.open_side` reads them; the first is right
            by definition.
        request: Which images.
        options: How.
        progress: Told the images done.

    Raises:
        InputError: A model that cannot be read; networks of other inputs or classes, or
            with no tensor in common; no images, or none that fit.
        GraphError: One of them cannot be run.
        MissingBackendError: What runs one of them is not here.
    """
    options = options or CompareOptions()
    sides = [open_side(text) for text in models]
    for reference, candidate in zip(sides, sides[1:], strict=False):
        check_pair(reference, candidate)
    images = open_images(request, {side.where: side.card.preprocess for side in sides})
    with closing(Chain(sides, own=options.own)) as chain:
        _run(chain, images, options, progress)
    return _report(chain, images, options)


def _run(chain: Chain, images: Images, options: CompareOptions, progress: Progress) -> None:
    """Run all models over all images."""
    del options
    done = 0
    for indices, batch in images.batches():
        if not chain.run(indices, batch):
            break
        done += len(batch)
        progress(done, len(images))


def _report(chain: Chain, images: Images, options: CompareOptions) -> Report:
    """Conclude from the sums."""
    rows = rows_of(chain, [{} for _ in chain.steps], [{} for _ in chain.sides])
    verdicts = tuple(Verdict() for _ in chain.steps)
    labels = images.source.labels
    cards = [side.card.labels for side in chain.sides]
    return Report(
        models=tuple(side.subject for side in chain.sides),
        data=images.record(),
        rows=keep_histograms(rows, verdicts),
        bounds=options.bounds,
        verdicts=verdicts,
        classes=next(filter(None, (*cards, images.source.class_names)), ()),
        changed=chain.answers.changed(),
        right=chain.answers.right(labels),
        answers=chain.answers.shown(labels),
    )
