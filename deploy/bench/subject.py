"""What is timed: a model that can be run, and what must be known of it to feed it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.errors import InputError
from deploy.bundle.choose import On
from deploy.bundle.opening import Opening, open_classifier
from deploy.bundle.reader import is_bundle
from deploy.runners import Model, open_model
from deploy.runners.engine_session import EngineSession

__all__ = ["How", "Subject", "open_subject", "with_labels"]

_PRECISIONS = {
    "int8": "INT8",
    "fp16": "FP16",
    "model": "FP32",
    "optimized": "FP32",
    "weights": "FP32",
}


@dataclass(frozen=True, slots=True)
class How:
    """How to open what is timed.

    Attributes:
        on: Where a bundle runs.
        fast: ONNX Runtime's fast kernels for a network with rounding in it, too.
        size: (height, width) of the images; None for what the model says.
    """

    on: On = "auto"
    fast: bool = False
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A model to time.

    Attributes:
        text: What the user typed.
        label: What reports call it.
        model: What runs.
        size: (height, width) of its images.
        batches: Smallest and largest batch that it takes; None for any.
        precision: ``INT8``, ``FP16``, ``FP32``; empty when it does not say.
        notes: What a reader of its times must know.
        close: Gives back what it holds.
    """

    text: str
    label: str
    model: Model
    size: tuple[int, int]
    batches: tuple[int, int] | None = None
    precision: str = ""
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None

    @property
    def session(self) -> EngineSession | None:
        """The engine on a GPU that it is, if it is one."""
        return self.model.run if isinstance(self.model.run, EngineSession) else None

    @property
    def title(self) -> str:
        """Its label, and its precision where it says one."""
        return f"{self.label} ({self.precision})" if self.precision else self.label

    def takes(self, batch: int) -> bool:
        """Tell whether it takes a batch in one piece."""
        return self.batches is None or self.batches[0] <= batch <= self.batches[1]


def open_subject(text: str, how: How) -> Subject:
    """Open a model by what the user typed: a bundle, or what ``open_model`` opens.

    Raises:
        InputError: Of no kind that can be run, unreadable, or its images are of no known size.
        StrataError: As :func:`~deploy.runners.open_model` and
            :func:`~deploy.bundle.opening.open_classifier` raise.
    """
    path = Path(text)
    notes: tuple[str, ...] = ()
    close: Callable[[], None] | None = None
    if path.suffix == ".zip" or is_bundle(path):
        classifier = open_classifier(path, Opening(on=how.on, fast=how.fast))
        model, notes, close = classifier.model, classifier.notes, classifier.close
        model = replace(model, name=path.name)
    else:
        model = open_model(text, fast=how.fast)
    session = model.run if isinstance(model.run, EngineSession) else None
    precision = _PRECISIONS.get(model.card.stage, "")
    try:
        size = _size(text, model, how)
    except InputError:
        if close is not None:
            close()
        raise
    return Subject(
        text=text,
        label=model.name,
        model=model,
        size=size,
        batches=_batches(model, session),
        precision=precision,
        notes=(*notes, *_caveats(model, precision)),
        close=close or (session.close if session else lambda: None),
    )


def with_labels(subjects: Sequence[Subject]) -> tuple[Subject, ...]:
    """Give each a label of its own: its file's name, else its path, else a number too."""
    names = [subject.label for subject in subjects]
    texts = [subject.text for subject in subjects]
    if len(set(texts)) < len(texts):
        names = [f"{name} #{at}" for at, name in enumerate(names, start=1)]
    elif len(set(names)) < len(names):
        names = texts
    return tuple(replace(s, label=name) for s, name in zip(subjects, names, strict=True))


def _size(text: str, model: Model, how: How) -> tuple[int, int]:
    """Return the size of the images: as asked, as fixed, or as the network says."""
    fixed = model.shape[2:] if model.shape is not None else ()
    height, width = fixed if len(fixed) == 2 else (None, None)
    if isinstance(height, int) and isinstance(width, int):
        if how.size not in {None, (height, width)}:
            raise InputError(
                f"{text}: takes images of {height}x{width} only", hint="leave --size out"
            )
        return height, width
    size = how.size or (model.card.preprocess.input_size if model.card.preprocess else None)
    if size is None:
        raise InputError(
            f"{text}: takes images of any size, and does not say which it is for",
            hint="say --size 224, or --size 1024x2048",
        )
    return size


def _batches(model: Model, session: EngineSession | None) -> tuple[int, int] | None:
    if session is not None:
        return session.shapes.min[0], session.shapes.max[0]
    first = model.shape[0] if model.shape else None
    return (first, first) if isinstance(first, int) else None


def _caveats(model: Model, precision: str) -> tuple[str, ...]:
    """Say where a time on the CPU tells nothing of one on a GPU."""
    if model.backend.startswith("onnxruntime") and precision in {"INT8", "FP16"}:
        slow = "" if "fast" in model.backend else "; --fast takes kernels that are faster"
        return (
            f"ONNX Runtime computes its {precision} in float32 here: this time says nothing of an "
            f"engine's{slow}",
        )
    if model.backend.startswith("parsed by"):
        return ("evaluated layer by layer in NumPy: this time says nothing of an engine's",)
    return ()
