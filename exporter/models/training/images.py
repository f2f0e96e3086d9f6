"""Labelled images in memory, and the order in which a training shows them."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from calib_data.batches import batches, sample
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source, require_labels
from core.errors import InputError

__all__ = ["Images", "load_images", "order"]

_LOAD_BATCH = 256


@dataclass(frozen=True, slots=True)
class Images:
    """Prepared images in memory, and what they are.

    Attributes:
        pixels: float32, N×H×W×3 (channels last, as the convolutions read them).
        labels: int64, N.
    """

    pixels: Tensor
    labels: Tensor

    def batch(self, indices: npt.NDArray[np.int64], mirrored: npt.NDArray[np.bool_]) -> Tensor:
        """Return images as N×3×H×W in channels-last memory, some of them mirrored."""
        chosen = self.pixels[torch.from_numpy(indices)]
        flips = torch.from_numpy(np.flatnonzero(mirrored))
        chosen[flips] = chosen[flips].flip(2)
        return chosen.permute(0, 3, 1, 2)

    def labels_digest(self) -> str:
        """Return a SHA-256 of the labels in their order."""
        return hashlib.sha256(self.labels.numpy().tobytes()).hexdigest()


def load_images(source: Source, spec: PreprocessSpec | None, *, classes: int) -> Images:
    """Prepare all images of a source once and keep them.

    Raises:
        InputError: No labels, labels outside ``classes``, or more images than memory.
    """
    labels = require_labels(source)
    if labels.max() >= classes:
        raise InputError(
            f"{source.name}: its labels go up to {labels.max()}, the network has {classes} classes",
            hint=f"train a network of {labels.max() + 1} classes, or more",
        )
    pixels: npt.NDArray[np.float32] | None = None
    for chosen, tensors in batches(source, sample(source, None), spec, batch=_LOAD_BATCH):
        if pixels is None:
            shape = (len(source), *tensors.shape[2:], tensors.shape[1])
            _check_memory(source.name, shape)
            pixels = np.empty(shape, np.float32)
        if tensors.shape[2:] != pixels.shape[1:3]:
            raise InputError(
                f"{source.name}: images are {tensors.shape[2:]} and {pixels.shape[1:3]} pixels",
                hint="add a crop to the preprocessing, or resize to a (height, width)",
            )
        pixels[chosen] = tensors.transpose(0, 2, 3, 1)
    if pixels is None:
        raise InputError(f"{source.name}: has no images", hint="name another data set")
    return Images(torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64)))


def _check_memory(name: str, shape: tuple[int, ...]) -> None:
    """Refuse images that would fill the memory."""
    needed = 4 * math.prod(shape)
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there // 2:
        raise InputError(
            f"{name}: {shape[0]} images of {shape[1]}×{shape[2]} take {needed / 2**30:.1f} GiB "
            f"of {there / 2**30:.1f} GiB of memory",
            hint="train on smaller images (--preprocess) or on fewer",
        )


@lru_cache(maxsize=2)
def _shuffled(
    count: int, seed: int, epoch: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return one epoch's order of the images, and a coin for each place in it."""
    # Of PCG64 the bits are kept by every version of numpy; what Generator makes of them is not.
    bits = np.random.PCG64(np.random.SeedSequence([seed, epoch]))
    places = np.argsort(bits.random_raw(count), kind="stable").astype(np.int64)
    return places, (bits.random_raw(count) >> np.uint64(63)).astype(np.bool_)


def order(
    first: int, count: int, images: int, *, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return which images are shown, each epoch in another order, and which mirrored.

    Args:
        first: Images shown before.
        count: Images to show.
        images: Images there are.
        seed: Of the order.

    Returns:
        Indices, (count,) int64, and coins, (count,) bool.
    """
    epochs = range(first // images, (first + count - 1) // images + 1)
    places, coins = zip(*(_shuffled(images, seed, epoch) for epoch in epochs), strict=True)
    part = slice(first - epochs[0] * images, first - epochs[0] * images + count)
    return np.concatenate(places)[part], np.concatenate(coins)[part]
