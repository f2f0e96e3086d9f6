"""Why ResNet: do deeper plain networks train worse, and residual ones not?

Trains plain and residual networks of two depths alike on the embedded images: same widths,
same number of weights (the shortcuts are option A, which has none), same recipe, same order
of images; they differ in the addition alone. Draws the curves of the training loss and says
what they show.

Source: He et al. 2015 (arXiv 1512.03385), sections 1 and 4.2, figures 1, 4 and 6.

    python bench/degradation.py -o build/degradation
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calib_data.open import open_data
from calib_data.preprocess import PRESETS
from core.artifacts import write_json, write_whole
from exporter.models.config import ResNetConfig
from exporter.models.training.images import Images, load_images, order
from exporter.models.training.learner import Learner, Recipe

_POINTS = 60  # of a curve
_TAIL = 0.1  # share of the training whose mean loss is "the loss it ends with"
_KINDS = {"plain": "none", "residual": "identity-pad"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What all networks have alike.

    Attributes:
        passes: Images shown to each network, repeats counted.
        batch: Images a step.
        lr: Peak learning rate.
        width: Channels of the stem.
        shallow: Basic blocks in each of the four stages of the shallower networks.
        deep: The same of the deeper ones.
        seeds: How many times all is done.
    """

    passes: int
    batch: int
    lr: float
    width: int
    shallow: int
    deep: int
    seeds: int


@dataclass(frozen=True, slots=True)
class Run:
    """One network and how it learnt.

    Attributes:
        kind: ``"plain"`` or ``"residual"``.
        layers: Weighted layers.
        seed: Of weights and order.
        curve: Mean training loss of each of equal parts of the training.
        last: Mean training loss of the last tenth.
    """

    kind: str
    layers: int
    seed: int
    curve: tuple[float, ...]
    last: float


def layers_of(blocks: int) -> int:
    """Return the weighted layers of a network: stem, four stages of basic blocks, fc."""
    return 8 * blocks + 2


@lru_cache(maxsize=1)
def _images() -> Images:
    """Load the embedded images once a process."""
    return load_images(open_data("fashion-mnist:train"), PRESETS["fashion-mnist"], classes=10)


def train_one(setting: Setting, kind: str, blocks: int, seed: int) -> Run:
    """Train one network and return its curve.

    The loss is that of the batches as they are learnt from: no smoothing, no mirroring, so
    that it is the training loss and nothing else.
    """
    torch.set_num_threads(1)  # nets this narrow gain nothing from a second thread
    config = ResNetConfig(
        18, shortcut=_KINDS[kind], width=setting.width, classes=10, blocks=(blocks,) * 4
    )
    # Branches that start at zero would favour the residual network.
    recipe = Recipe(setting.lr, seed, label_smoothing=0.0, zero_last=False)
    learner, images = Learner(config, recipe), _images()
    steps = setting.passes // setting.batch
    none = np.zeros(setting.batch, np.bool_)
    losses = []
    for step in range(steps):
        chosen, _ = order(step * setting.batch, setting.batch, len(images.labels), seed=seed)
        batch = images.batch(chosen, none)
        losses.append(learner.step(batch, images.labels[torch.from_numpy(chosen)], step / steps))
    parts = np.array_split(np.array(losses), min(_POINTS, steps))
    last = float(np.mean(losses[-max(1, int(_TAIL * steps)) :]))
    return Run(kind, layers_of(blocks), seed, tuple(float(np.mean(part)) for part in parts), last)


def train_all(setting: Setting, workers: int) -> list[Run]:
    """Train every network, one a core, and return the runs in a fixed order."""
    jobs = [
        (kind, blocks, seed)
        for seed in range(setting.seeds)
        for blocks in (setting.deep, setting.shallow)  # the long ones first
        for kind in _KINDS
    ]
    runs: list[Run] = []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        futures = [pool.submit(train_one, setting, *job) for job in jobs]
        try:
            for future in as_completed(futures):
                run = future.result()
                runs.append(run)
                print(
                    f"{len(runs):2}/{len(jobs)} {run.kind} {run.layers}, seed {run.seed}: "
                    f"loss {run.last:.4f}",
                    file=sys.stderr,
                    flush=True,
                )
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return sorted(runs, key=lambda run: (run.kind, run.layers, run.seed))


def judge(runs: Sequence[Run]) -> dict[str, Any]:
    """Compare the depths of each kind, seed by seed.

    A deeper network ends higher, or lower, when the mean difference over the seeds is more
    than twice its standard error; else the two are alike.

    Returns:
        For each kind the final losses by depth, the mean difference and its standard error
        and ``"higher"``, ``"lower"`` or ``"alike"``; and ``degradation_seen``.
    """
    kinds: dict[str, Any] = {}
    for kind in _KINDS:
        mine = [run for run in runs if run.kind == kind]
        shallow, deep = sorted({run.layers for run in mine})
        last = {
            depth: [run.last for run in mine if run.layers == depth] for depth in (shallow, deep)
        }
        gaps = np.array(last[deep]) - np.array(last[shallow])
        mean = float(gaps.mean())
        error = float(gaps.std(ddof=1) / math.sqrt(len(gaps))) if len(gaps) > 1 else math.inf
        ends = "alike" if abs(mean) <= 2 * error else ("higher" if mean > 0 else "lower")
        kinds[kind] = {
            "layers": [shallow, deep],
            "last_loss": {str(depth): values for depth, values in last.items()},
            "gap": mean,
            "gap_error": error if math.isfinite(error) else None,
            "deeper_ends": ends,
        }
    seen = (
        kinds["plain"]["deeper_ends"] == "higher" and kinds["residual"]["deeper_ends"] != "higher"
    )
    return {"kinds": kinds, "degradation_seen": seen}


def table(verdict: Mapping[str, Any], seeds: int) -> str:
    """Return the verdict for reading."""
    lines = [f"training loss at the end, mean of {seeds} seeds (lowest … highest)"]
    for kind, facts in verdict["kinds"].items():
        for depth, values in facts["last_loss"].items():
            lines.append(
                f"  {kind:<9}{depth:>4} layers  {np.mean(values):.4f}  "
                f"({min(values):.4f} … {max(values):.4f})"
            )
        error = facts["gap_error"]
        spread = "one seed: no error known" if error is None else f"standard error {error:.4f}"
        lines.append(
            f"  {kind:<9}deeper − shallower: {facts['gap']:+.4f} ({spread}): "
            f"the deeper one ends {facts['deeper_ends']}"
        )
    plain, residual = (verdict["kinds"][kind]["deeper_ends"] for kind in _KINDS)
    if verdict["degradation_seen"]:
        lines.append(
            "Seen: the deeper plain network trains worse, the deeper residual one does not."
        )
    else:
        lines.append(
            f"Not seen as the paper has it: the deeper plain network ends {plain}, the deeper "
            f"residual one {residual}."
        )
    return "\n".join(lines)


def draw(runs: Sequence[Run], setting: Setting, path: Path) -> None:
    """Draw the curves, plain left and residual right: thin each seed, thick their mean."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4.2), sharey=True, layout="constrained")
    for axis, kind in zip(axes, _KINDS, strict=True):
        for depth, colour in zip(
            (layers_of(setting.shallow), layers_of(setting.deep)),
            ("#c77400", "#005fb8"),
            strict=True,
        ):
            curves = np.array([r.curve for r in runs if (r.kind, r.layers) == (kind, depth)])
            shown = (np.arange(curves.shape[1]) + 0.5) / curves.shape[1] * setting.passes / 1000
            axis.plot(shown, curves.T, color=colour, linewidth=0.6, alpha=0.4)
            axis.plot(shown, curves.mean(0), color=colour, linewidth=2, label=f"{depth} layers")
        axis.set_title(kind)
        axis.set_xlabel("images shown, thousands")
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    axes[0].set_ylabel("training loss")
    with write_whole(path) as temporary:
        # No software version: the same numbers give the same picture.
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, default=Path("build/degradation"))
    parser.add_argument("--passes", type=int, default=192_000, help="images shown to each network")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--shallow", type=int, default=2, help="blocks a stage: 8 n + 2 layers")
    parser.add_argument("--deep", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> None:
    """Train, judge, draw and say."""
    said = vars(_arguments(given))
    output, workers = said.pop("output"), said.pop("workers")
    setting = Setting(**said)
    runs = train_all(setting, workers)
    verdict = judge(runs)
    draw(runs, setting, output / "curves.png")
    facts = {"setting": asdict(setting), **verdict, "runs": [asdict(run) for run in runs]}
    write_json(output / "degradation.json", facts)
    print(table(verdict, setting.seeds))
    print(f"curves: {output / 'curves.png'}")


if __name__ == "__main__":
    main()
