"""Compare models tensor by tensor, joined by name.

Two questions are asked of each tensor at once. *Inherited*: how far is it from the
reference's, when both networks run freely from the same images? *Own*: how far, when the
candidate's layer is fed the reference's tensors? Rounding flips cascade, so a late layer
inherits what early ones did, and only its own error says whether it is at fault.

With more than two models each is compared with the one before it, all in one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import pairwise

from core.progress import Progress, silent
from deploy.comparison.assemble import keep_histograms, rows_of
from deploy.comparison.chain import Chain
from deploy.comparison.judging.judge import Judge
from deploy.comparison.judging.judgement import Judgement
from deploy.comparison.part import Models
from deploy.comparison.second_look import Seen, look_again
from deploy.comparison.sides.side import check_pair
from deploy.comparison.sides.subjects import open_side
from deploy.comparison.sums.loading import load_loops
from deploy.comparison.values.report import Report
from deploy.comparison.values.verdict import Bounds
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
        models: As :func:`~deploy.comparison.sides.subjects.open_side` reads them; the first is
            right by definition.
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
    with ThreadPoolExecutor(1, "strata-loops") as pool:
        pool.submit(load_loops)  # what fails there fails again where it is needed
        sides = [open_side(text) for text in models]
    for reference, candidate in pairwise(sides):
        check_pair(reference, candidate)
    specs = {side.where: side.card.preprocess for side in sides}
    images = open_images(request, specs, {side.where: side.card.labels for side in sides})
    stop = _Stop(images, options.bounds) if options.until_first and options.own else None
    with closing(Chain(sides, own=options.own, stop=stop)) as chain:
        for indices, batch in images.batches():
            if not chain.run(indices, batch):
                break
            progress(chain.done, len(images))
        chain.finish()
        progress(chain.done, len(images))
    return _report(chain, images, options)


class _Stop:
    """Tells whether a step has met a layer at fault; looks at each piece once a batch."""

    def __init__(self, images: Images, bounds: Bounds) -> None:
        self._images, self._bounds = images, bounds
        self._judges: list[Judge] = []

    def __call__(self, models: Models, fresh: Sequence[Sequence[str]]) -> bool:
        """Judge the tensors that the last piece made, a list for each step."""
        if not self._judges:
            self._judges = _judges(models, self._bounds)
        found = [
            _judged(models, k, self._judges[k], self._images, names)
            for k, names in enumerate(fresh)
        ]
        return any(judgement.verdict.first is not None for judgement in found)


def _judges(models: Models, bounds: Bounds) -> list[Judge]:
    pairs = zip(pairwise(models.sides), models.steps, strict=True)
    return [Judge(pair, step, bounds) for pair, step in pairs]


def _judged(
    models: Models, step: int, judge: Judge, images: Images, names: Sequence[str] | None = None
) -> Judgement:
    """Judge a step, and look again at what nothing but its error speaks against.

    Args:
        models: What ran.
        step: Which step.
        judge: Of that step.
        images: What the models ran over, as far as they came.
        names: Tensors to judge; None for all.
    """
    seen = Seen(models.ends, images, models.together)
    reference, quantizers = models.sides[step], models.steps[step].quantizers
    return judge.judge(names, lambda layers: look_again(reference, quantizers, layers, seen))


def _report(chain: Chain, images: Images, options: CompareOptions) -> Report:
    """Conclude from the sums."""
    models = chain.models
    judges = _judges(models, options.bounds)
    judged = [_judged(models, k, judge, images) for k, judge in enumerate(judges)]
    precisions = [judged[0].precisions[0], *(j.precisions[1] for j in judged)]
    rows = rows_of(chain, [j.explained for j in judged], precisions)
    verdicts = tuple(j.verdict for j in judged)
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
