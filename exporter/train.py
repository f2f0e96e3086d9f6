"""Train the reference network on labelled images: seeded, resumable, on a CPU.

The same options, images and machine give the same bytes, stopped and carried on or not:
which image comes when, and which is mirrored, is a function of the seed and of how many
images were shown before; nothing else is random.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from calib_data.batches import data_digest, sample
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import GraphError, InputError
from core.progress import Progress, silent
from exporter.models.checkpoint import Checkpoint
from exporter.models.config import ResNetConfig
from exporter.models.training.images import Images, load_images, order
from exporter.models.training.learner import Learner, Recipe, has_fast_bfloat16
from exporter.models.training.resume import Resume

__all__ = ["DEFAULTS", "TrainOptions", "accuracy", "train"]

_TEST_BATCH = 250


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """How long and how fast to train.

    Attributes:
        passes: Images to show, repeats counted; the learning rate's course depends on it
            alone.
        batch: Images a step.
        lr: Peak of the learning rate.
        seed: Of the initial weights, the order of the images and what is mirrored.
        flip: Mirror every other image, at random.
        preprocess: How images become the network's input; None for a preprocessed source.
        resume: Where the state is kept while training; None to keep none.
        resume_every_s: Seconds between two savings of it.
    """

    passes: int
    batch: int = 64
    lr: float = 0.1
    seed: int = 0
    flip: bool = True
    preprocess: PreprocessSpec | None = None
    resume: Path | None = None
    resume_every_s: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        if self.batch < 2:
            raise InputError(
                f"batch {self.batch} is too small", hint="a norm needs 2 images or more"
            )
        if self.passes < self.batch:
            raise InputError(
                f"{self.passes} image passes are less than one batch of {self.batch}",
                hint="give more passes, or a smaller batch",
            )
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise InputError(f"learning rate {self.lr} is not above 0", hint="try 0.1")
        if self.seed < 0:
            raise InputError(f"seed {self.seed} is negative", hint="give a seed of 0 or more")


# Depth → options for the embedded data. A high peak of the learning rate is for INT8's sake too:
# at 0.03 a ResNet-18 answers as well, and its INT8 logits are 12 dB worse than at 0.3; a
# ResNet-50's 10 dB worse at 0.05 than at 0.2.
DEFAULTS: dict[int, TrainOptions] = {
    18: TrainOptions(passes=120_000, lr=0.3),
    34: TrainOptions(passes=44_000, lr=0.2),
    50: TrainOptions(passes=36_000, lr=0.2),
    101: TrainOptions(passes=28_000, batch=32, lr=0.05),
    152: TrainOptions(passes=24_000, batch=32, lr=0.05),
}


def train(
    config: ResNetConfig,
    source_train: Source,
    source_test: Source,
    options: TrainOptions,
    progress: Progress = silent,
) -> Checkpoint:
    """Train a network and measure its accuracy.

    Args:
        config: The network; its classes are those of the images.
        source_train: Labelled images to learn from.
        source_test: Labelled images to measure top-1 on, once, at the end.
        options: How.
        progress: Called with images shown after each step.

    Returns:
        The weights, with the preprocess spec, the labels and, in ``origin``, the accuracy
        and everything that made them.

    Raises:
        InputError: Images without labels, labels the network has no output for, or images
            that do not fit in memory.
        GraphError: The loss is no longer a number.
        OutputError: The state cannot be saved.
    """
    config = replace(config, features=False)
    options = replace(options, preprocess=_agreed_spec(source_train, source_test, options))
    images = load_images(source_train, options.preprocess, classes=config.classes)
    test = load_images(source_test, options.preprocess, classes=config.classes)
    if test.pixels.shape[1:] != images.pixels.shape[1:]:
        raise InputError(
            f"{source_test.name}: images of another size than {source_train.name}'s",
            hint="resize both alike (--preprocess)",
        )
    recipe = Recipe(options.lr, options.seed, bfloat16=has_fast_bfloat16())
    facts = _facts(source_train, source_test, options, recipe)
    learner = Learner(config, recipe)
    resume = Resume(
        options.resume,
        (config.to_json(), json.dumps(facts, sort_keys=True), images.labels_digest()),
        every_s=options.resume_every_s,
    )
    _learn(learner, images, options, resume, progress)
    facts["top1"] = f"{accuracy(learner, test):.4f}"
    facts["top1_of"] = f"{len(test.labels)} images of {source_test.name}"
    resume.remove()
    names = source_train.class_names
    return Checkpoint(
        config=config,
        state_dict=learner.weights(),
        preprocess=options.preprocess,
        labels=names if len(names) == config.classes else (),
        origin=facts,
    )


def accuracy(learner: Learner, images: Images) -> float:
    """Return the share of images the network answers rightly, 0 to 1."""
    right = 0
    for first in range(0, len(images.labels), _TEST_BATCH):
        part = slice(first, first + _TEST_BATCH)
        answers = learner.predict(images.pixels[part].permute(0, 3, 1, 2))
        right += int((answers == images.labels[part]).sum())
    return right / len(images.labels)


def _agreed_spec(
    source_train: Source, source_test: Source, options: TrainOptions
) -> PreprocessSpec | None:
    """Return how both sources' images are prepared; None when they are already.

    Raises:
        InputError: One is prepared and the other is not, or their classes differ.
    """
    if source_train.preprocessed != source_test.preprocessed:
        raise InputError(
            f"only one of {source_train.name} and {source_test.name} is preprocessed",
            hint="give two of a kind",
        )
    names = source_train.class_names, source_test.class_names
    if all(names) and names[0] != names[1]:
        raise InputError(
            f"{source_test.name}: its classes are not those of {source_train.name} "
            f"({', '.join(names[1][:3])}, … and {', '.join(names[0][:3])}, …)",
            hint="give both sets the same classes (folders)",
        )
    return None if source_train.preprocessed else options.preprocess


def _facts(
    source_train: Source, source_test: Source, options: TrainOptions, recipe: Recipe
) -> dict[str, str]:
    """Return the origin of the weights, but for their accuracy."""
    return {
        "name": source_train.name.partition(":")[0],
        "passes": str(options.passes),
        "batch": str(options.batch),
        "lr": repr(options.lr),
        "seed": str(options.seed),
        "flip": str(options.flip).lower(),
        # Two threads sum in another order than one: the last digits differ.
        "arithmetic": f"{'bfloat16' if recipe.bfloat16 else 'float32'}, "
        f"{torch.get_num_threads()} threads",
        "data": source_train.name,
        "data_sha256": data_digest(source_train, sample(source_train, None)),
        "test_data": source_test.name,
    }


def _learn(
    learner: Learner, images: Images, options: TrainOptions, resume: Resume, progress: Progress
) -> None:
    """Show the images, from where an earlier run stopped."""
    steps = options.passes // options.batch
    for step in range(resume.load(learner), steps):
        shown = step * options.batch
        chosen, coins = order(shown, options.batch, len(images.labels), seed=options.seed)
        batch = images.batch(chosen, coins & options.flip)
        loss = learner.step(batch, images.labels[torch.from_numpy(chosen)], step / steps)
        if not math.isfinite(loss):
            raise GraphError(
                f"training diverged: the loss is {loss} after {shown} images "
                f"(learning rate {options.lr:g})",
                hint=f"lower the learning rate, e.g. --lr {options.lr / 4:g}",
            )
        resume.save(learner, step + 1)
        progress(shown + options.batch, steps * options.batch, f"loss {loss:.3f}")
