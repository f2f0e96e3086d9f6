"""Calibration images that were not calibrated with: what a choice is tried on."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from calib_data.batches import batches, sample
from calib_data.open import open_data
from calib_data.preprocess import PreprocessSpec
from core.errors import InputError

__all__ = ["held_out_batches"]

_BATCH = 16
_FEWEST = 8  # below, a median says little


def held_out_batches(
    data: str, spec: PreprocessSpec | None, seen: Collection[str], *, count: int = 32
) -> list[npt.NDArray[np.float32]]:
    """Return images of ``data`` that are not among ``seen``, prepared, batch by batch.

    Args:
        data: As :func:`~calib_data.open.open_data` reads it.
        spec: How the network wants them; None for data that comes prepared.
        seen: Digests of the images to leave out.
        count: How many to take, if there are so many.

    Returns:
        float32 (n, 3, h, w) each.

    Raises:
        InputError: No such data, or fewer than 8 images are left.
    """
    source = open_data(data)
    if not source.preprocessed and spec is None:
        raise InputError(
            f"{data}: the model does not say how its images are prepared",
            hint="name an .npz of preprocessed images, or a --method other than auto",
        )
    known = frozenset(seen)
    chosen: list[int] = []
    for index in sample(source, len(source), seed=1):
        if len(chosen) == count:
            break
        if source.digest(int(index)) not in known:
            chosen.append(int(index))
    if len(chosen) < _FEWEST:
        raise InputError(
            f"{data}: only {len(chosen)} images are left to try a method on; the others "
            "were calibrated with",
            hint="calibrate with fewer --images, or name the method: --method mse",
        )
    rows = np.array(chosen, dtype=np.int64)
    return [images for _, images in batches(source, rows, spec, batch=_BATCH)]
