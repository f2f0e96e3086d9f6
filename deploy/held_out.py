"""Images that an INT8 graph is tried on, and those that its weights are rounded by."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from calib_data.batches import batches, sample
from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec
from calib_data.sources import Source
from core.errors import InputError

__all__ = ["FEWEST", "TrialImages", "trial_images"]

FEWEST = 8  # images: fewer say little
_BATCH = 16

_Images = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class TrialImages:
    """Images of one source, prepared, float32 (n, 3, h, w) each.

    Attributes:
        held_out: Batches of images that nothing was chosen by.
        others: One image each, none of those; calibrated with or not.
    """

    held_out: list[_Images]
    others: list[_Images]


def trial_images(
    data: str,
    spec: PreprocessSpec | None,
    seen: Collection[str],
    *,
    held_out: int = 0,
    others: int = 0,
) -> TrialImages:
    """Return images of ``data``.

    Args:
        data: As :func:`~calib_data.open.open_data` reads it.
        spec: How the network wants them; None for data that comes prepared.
        seen: Digests of the images that were calibrated with.
        held_out: How many others than those to hold out, if there are so many.
        others: How many to take of the rest, if there are so many.

    Raises:
        InputError: No such data, or fewer than 8 images can be held out.
    """
    source = open_data(data)
    if not source.preprocessed and spec is None:
        raise InputError(
            f"{data}: the model does not say how its images are prepared",
            hint="name an .npz of preprocessed images, or a --method other than auto",
        )
    kept, rest = _divide(source, frozenset(seen), (held_out, others))
    if held_out and len(kept) < FEWEST:
        raise InputError(
            f"{data}: only {len(kept)} images are left to try a method on; the others "
            "were calibrated with",
            hint="calibrate with fewer --images, or name the method: --method mse",
        )
    return TrialImages(
        [images for _, images in batches(source, _rows(kept), spec, batch=_BATCH)],
        [images for _, images in batches(source, _rows(rest), spec, batch=1)],
    )


def _divide(
    source: Source, seen: frozenset[str], counts: tuple[int, int]
) -> tuple[list[int], list[int]]:
    """Return the numbers of the images to hold out and of others, reading no more than it takes."""
    kept: list[int] = []
    rest: list[int] = []
    for index in sample(source, len(source), seed=1):
        if len(kept) == counts[0] and len(rest) == counts[1]:
            break
        if len(kept) < counts[0] and source.digest(int(index)) not in seen:
            kept.append(int(index))
        elif len(rest) < counts[1]:
            rest.append(int(index))
    return kept, rest


def _rows(indices: list[int]) -> npt.NDArray[np.int64]:
    return np.array(indices, dtype=np.int64)
