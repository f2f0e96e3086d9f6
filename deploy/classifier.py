"""What an application asks: images in, names out. ``deploy.open(bundle)`` opens one.

It streams: images are decoded on a few threads while the network answers for those before,
at most two batches are in memory, and a broken image is an answer of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from calib_data.preprocess import PreprocessSpec
from calib_data.sources import prepare
from core.errors import GraphError, InputError, StrataError
from deploy.frames import Frame, Image, as_frames
from deploy.runners import Model

__all__ = ["Classifier", "Prediction", "Ranked"]

T = TypeVar("T")
Tensor = npt.NDArray[np.float32]
_MAX_THREADS = 4  # decoding must not crowd out the network it feeds


@dataclass(frozen=True, slots=True)
class Ranked:
    """A class among the likeliest: its index, its name, its softmax probability."""

    index: int
    label: str
    score: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer for one image.

    Attributes:
        image: Its name.
        top: The likeliest classes, the first one first; equal ones in the order of classes.
        error: Why there is no answer; None when there is one.
    """

    image: str
    top: tuple[Ranked, ...] = ()
    error: StrataError | None = None


class Classifier:
    """An open network with all it takes to use it; a context manager.

    Any thread may call it. With an engine, calls take turns; each is answered whole.

    Args:
        model: What runs the network.
        labels: Class names by index; empty when unknown.
        preprocess: How an image becomes the network's input.
        batch: How many images travel together.
        close: Called once, to give back what the model holds.

    Attributes:
        notes: How this came to be what runs: sentences for a person.
    """

    def __init__(
        self,
        model: Model,
        preprocess: PreprocessSpec,
        labels: tuple[str, ...] = (),
        *,
        batch: int = 8,
        close: Callable[[], None] | None = None,
    ) -> None:
        self.model = model
        self.preprocess = preprocess
        self.labels = labels
        self.batch = batch
        self.notes: tuple[str, ...] = ()
        self._close = close

    def __enter__(self) -> Classifier:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Give back the network and its memory; it cannot be asked any more."""
        close, self._close = self._close, None
        if close is not None:
            close()

    def warm_up(self) -> None:
        """Answer once for nothing, so that the first image does not wait for the start."""
        size = self.preprocess.input_size
        if size is not None:
            self.model.run({self.model.image: np.zeros((self.batch, 3, *size), np.float32)})

    def classify(self, images: Iterable[Image], *, top: int = 5) -> list[Prediction]:
        """Answer for some images.

        Args:
            images: Files, or uint8 arrays (height, width, 3) in RGB.
            top: How many classes to name.

        Raises:
            InputError: An image is missing, broken, or of no size for the network.
            GraphError: The network failed.
        """
        answers = list(self.stream(images, top=top))
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        return answers

    def stream(self, images: Iterable[Image | Frame], *, top: int = 5) -> Iterator[Prediction]:
        """Answer for images as they come, in their order, in flat memory.

        Args:
            images: Any number of them, as :meth:`classify` takes them, or frames.
            top: How many classes to name.

        Yields:
            An answer for each; for a broken image one that says what is wrong.

        Raises:
            GraphError: The network failed.
        """
        threads = min(_MAX_THREADS, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="strata-run")
        waiting: list[tuple[str, Future[Tensor]]] = []
        try:
            for chunk in _chunks(as_frames(images), self.batch):
                ahead = [(frame.name, pool.submit(self._prepare, frame)) for frame in chunk]
                if self.batch == 1:  # the answer now, not with the next image
                    yield from self._answers(ahead, top)
                    continue
                yield from self._answers(waiting, top)
                waiting = ahead
            yield from self._answers(waiting, top)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, frame: Frame) -> Tensor:
        return prepare(frame.load(), self.preprocess, where=frame.name)

    def _answers(self, batch: list[tuple[str, Future[Tensor]]], top: int) -> list[Prediction]:
        """Return the answers for a batch, whose images may still be in preparation."""
        found: dict[int, Prediction] = {}
        by_shape: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
        for at, (name, future) in enumerate(batch):
            try:
                tensor = future.result()
                by_shape.setdefault(tensor.shape, []).append((at, tensor))
            except StrataError as err:
                found[at] = Prediction(name, error=err)
        for group in by_shape.values():
            names = [batch[at][0] for at, _ in group]
            answers = self._ask(names, np.stack([tensor for _, tensor in group]), top)
            found |= {at: answer for (at, _), answer in zip(group, answers, strict=True)}
        return [found[at] for at in range(len(batch))]

    def _ask(self, names: list[str], images: Tensor, top: int) -> list[Prediction]:
        try:
            logits = self.model.logits(images)
        except InputError as err:  # of a size that the network does not take
            return [Prediction(name, error=err) for name in names]
        return [self._prediction(name, row, top) for name, row in zip(names, logits, strict=True)]

    def _prediction(self, name: str, logits: npt.NDArray[np.float64], top: int) -> Prediction:
        if not np.isfinite(logits).all():
            error = GraphError(
                f"{name}: the network answers NaN or Inf for it",
                hint="strata compare names the first tensor where they appear",
            )
            return Prediction(name, error=error)
        scores = np.exp(logits - logits.max())
        scores /= scores.sum()
        order = np.argsort(-logits, kind="stable")[:top]
        return Prediction(
            name, tuple(Ranked(int(i), self._label(int(i)), float(scores[i])) for i in order)
        )

    def _label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else f"class {index}"


def _chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of ``size`` items; the last one may be shorter."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk
