"""Open the models that a user named: each once, and an engine only where there is a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import MissingBackendError
from deploy.evaluation.accuracy import NotRun
from deploy.runners import Model, open_model

__all__ = ["Opened", "is_engine", "open_models"]

_ENGINES = (".engine", ".plan")


@dataclass(frozen=True, slots=True)
class Opened:
    """The models that can run, by what the user typed, and the engines that cannot."""

    models: dict[str, Model]
    not_run: dict[str, NotRun]


def open_models(texts: Sequence[str], *, fast: bool = False) -> Opened:
    """Open models for many images; one that is named twice is opened once.

    An engine that cannot run here is no error yet: the others can be measured, and whoever
    asked says in the end that this one was not.

    Args:
        texts: As :func:`~deploy.runners.open_model` reads them.
        fast: Fast kernels for networks with rounding in them, too.

    Raises:
        StrataError: As :func:`~deploy.runners.open_model` does.
    """
    models: dict[str, Model] = {}
    not_run: dict[str, NotRun] = {}
    for text in dict.fromkeys(texts):
        try:
            models[text] = open_model(text, fast=fast, many=True)
        except MissingBackendError as err:
            if not is_engine(text) or not Path(text).is_file():
                raise
            not_run[text] = NotRun(Path(text).name, err.problem)
    return Opened(models, not_run)


def is_engine(text: str) -> bool:
    """Tell whether a user's text names a TensorRT engine, which needs a GPU."""
    return text.endswith(_ENGINES)
