"""Answer the test images with each quantized network, and add that to its row."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from bench.images import prepared, write_images
from bench.quality import (
    Labels,
    Logits,
    codes_of,
    logits_of,
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
        logits: The float network's, (N, classes).
        environments: Where the peers' environments lie.
        say: Told what runs.
    """

    images: Path
    labels: Labels
    logits: Logits
    environments: Path
    say: Callable[[str], None]

    @property
    def top1(self) -> float:
        """Share of right answers of the float network."""
        return float(np.mean(self.logits.argmax(axis=1) == self.labels))

    def add_to(self, row: Row, tool: Tool, model: Path) -> Row:
        """Return the row of a tool with how well its network answers, or why that failed."""
        self.say(f"answers: {tool.title}")
        try:
            if model.suffix == ".xml":
                logits, codes = openvino_answers(tool, model, self.images, self.environments)
                verdict = ""
            else:
                with progress_bar(tool.key) as bar:
                    logits = logits_of(model, self.images, bar)
                codes = codes_of(onnx.load(model))
                verdict = tensorrt_says(model)
        except (StrataError, RuntimeError) as err:
            return replace(row, problem=str(err).partition("\n")[0])
        found = quality(self.logits, logits, self.labels)
        return replace(row, quality=found, codes=codes_text(codes), tensorrt=verdict)


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
    say("answers: the float network")
    with progress_bar("float") as bar:
        logits = logits_of(job.model, path, bar)
    return Answers(path, labels, logits, environments, say)
