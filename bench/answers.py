"""Answer the test images with each quantized network, and add that to its row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from bench.images import prepared, write_images
from bench.quality import (
    Answered,
    Labels,
    answer,
    codes_of,
    feature_of,
    openvino_answers,
    quality,
    tensorrt_says,
)
from bench.report import Row, codes_text
from bench.tools import Job, Tool
from core.errors import InputError, StrataError
from deploy.cli.progress import progress_bar
from deploy.images import ImageRequest

__all__ = ["Answers", "reference"]


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the float network answers to the test images.

    Attributes:
        images: The prepared images, an ``.npz``.
        labels: Their classes, (N,).
        own: What the float network makes of them.
        feature: The tensor that its classifier reads.
        environments: Where the peers' environments lie.
        say: Told what runs.
    """

    images: Path
    labels: Labels
    own: Answered
    feature: str
    environments: Path
    say: Callable[[str], None]

    @property
    def top1(self) -> float:
        """Share of right answers of the float network."""
        return float(np.mean(self.own.logits.argmax(axis=1) == self.labels))

    def add_to(self, row: Row, tool: Tool, model: Path) -> Row:
        """Return the row of a tool with how well its network answers, or why that failed."""
        self.say(f"answers: {tool.title}")
        try:
            if model.suffix == ".xml":
                found, codes = openvino_answers(tool, model, self.images, self.environments)
                verdict = ""
            else:
                with progress_bar(tool.key) as bar:
                    found = answer(model, self.images, self.feature, bar)
                codes = codes_of(onnx.load(model))
                verdict = tensorrt_says(model)
        except (StrataError, RuntimeError) as err:
            return replace(row, problem=str(err).partition("\n")[0])
        rated = quality(self.own, found, self.labels)
        return replace(row, quality=rated, codes=codes_text(codes), tensorrt=verdict)


def reference(
    job: Job, test: ImageRequest, environments: Path, say: Callable[[str], None]
) -> Answers:
    """Write the test images, and answer them with the float network.

    Raises:
        InputError: No such images, or no labels.
    """
    images = prepared(job.model, test)
    path = job.folder / "test.npz"
    labels = write_images(images, path)
    if labels is None:
        raise InputError(
            f"{test.data}: no labels", hint="name labelled images, or leave --test out"
        )
    feature = feature_of(onnx.load(job.model))
    say("answers: the float network")
    with progress_bar("float") as bar:
        own = answer(job.model, path, feature, bar)
    return Answers(path, labels, own, feature, environments, say)
