"""Accuracy over a labelled set of images, of several models at once.

The first model is the one that the answers of the others are held against.
"""

from __future__ import annotations

from collections.abc import Sequence

from core.progress import Progress, silent
from deploy.evaluation.accuracy import Accuracy
from deploy.evaluation.measures import accuracy_of
from deploy.evaluation.predict import open_part, predict
from deploy.images import ImageRequest
from deploy.runners import Model

__all__ = ["evaluate"]


def evaluate(
    models: Sequence[Model], request: ImageRequest, *, progress: Progress = silent
) -> Accuracy:
    """Count the right answers of each model on the same labelled images.

    Args:
        models: One or more classifiers; the others are compared with the first.
        request: Which images.
        progress: Told the images done.

    Raises:
        InputError: No labels; labels of other classes than the models'; images that a
            model cannot take, or that two models want prepared differently.
        GraphError: A model failed, or answered with NaN or Inf.
    """
    return accuracy_of(predict(models, open_part(models, request), progress=progress))
