"""What each model answers for each image: the five likeliest classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from deploy.comparison.values.report import TOP, Answer

__all__ = ["Answers"]

_SHOWN = 12  # images whose answer changed

Top = tuple[tuple[int, float], ...]


@dataclass(slots=True)
class Answers:
    """The answers of some models, image by image.

    Attributes:
        images: Index of each image in the data, in the order they came.
        tops: For each model, the five likeliest classes of each image, or nothing.
    """

    images: list[int]
    tops: list[list[Top]] = field(default_factory=list)

    @classmethod
    def of(cls, models: int) -> Answers:
        """Return no answers of some models."""
        return cls([], [[] for _ in range(models)])

    def note(self, model: int, logits: npt.NDArray[Any]) -> None:
        """Note what a model answers.

        Args:
            model: Which.
            logits: (n, classes).
        """
        values = logits.astype(np.float64)
        with np.errstate(all="ignore"):
            shares = np.exp(values - values.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
        # Stable, so that the first of equal classes is the answer.
        order = np.argsort(-values, axis=1, kind="stable")[:, :TOP]
        for row, classes in zip(shares, order, strict=True):
            self.tops[model].append(tuple((int(k), float(row[k])) for k in classes))

    @property
    def complete(self) -> bool:
        """Whether every model answered for every image."""
        return bool(self.images) and all(len(tops) == len(self.images) for tops in self.tops)

    def changed(self) -> tuple[int, ...] | None:
        """Return, for each model but the first, how often its answer is not the first's."""
        if not self.complete:
            return None
        first = self._answers(0)
        return tuple(
            int(np.count_nonzero(first != self._answers(at))) for at in range(1, len(self.tops))
        )

    def right(self, labels: npt.NDArray[np.int64] | None) -> tuple[int, ...] | None:
        """Return how often each model is right, given all labels of the data."""
        if labels is None or not self.complete:
            return None
        true = labels[self.images]
        return tuple(int(np.sum(self._answers(at) == true)) for at in range(len(self.tops)))

    def shown(self, labels: npt.NDArray[np.int64] | None) -> tuple[Answer, ...]:
        """Return a few images whose answer changed on the way, in the order of the data."""
        if not self.complete:
            return ()
        answers = np.array([self._answers(at) for at in range(len(self.tops))])
        moved = np.flatnonzero((answers != answers[0]).any(axis=0))
        picked = sorted(moved, key=lambda at: self.images[at])[:_SHOWN]
        return tuple(self._answer(int(at), labels) for at in picked)

    def _answers(self, model: int) -> npt.NDArray[np.int64]:
        return np.array([top[0][0] for top in self.tops[model]], np.int64)

    def _answer(self, at: int, labels: Sequence[int] | npt.NDArray[np.int64] | None) -> Answer:
        image = self.images[at]
        label = None if labels is None else int(labels[image])
        return Answer(image, label, tuple(tops[at] for tops in self.tops))
