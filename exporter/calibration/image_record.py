"""What calibration notes of each image that reaches the network, in one read of it.

Numbers of one image alone, so that they depend on no other image, batch or shard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["ImageRecord", "Origin", "record_image"]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a set of images comes from.

    Attributes:
        kind: ``"files"`` that were decoded here, ``"pixels"`` in somebody's array, or
            ``"inputs"``: an array of prepared network inputs; empty when nobody said.
        wanted: JSON of the preprocess spec that ``inputs`` should have been prepared by;
            empty when unknown.
        synthetic: The source's name if it makes its images up; empty for real ones.
    """

    kind: str = ""
    wanted: str = ""
    synthetic: str = ""


@dataclass(frozen=True, slots=True, order=True)
class ImageRecord:
    """One image that was fed, as the network gets it.

    Attributes:
        digest: SHA-256 of its content, 64 hexadecimal digits.
        mean: Of each channel.
        std: The same.
        low: The smallest value of each channel; empty when it was not noted.
        high: The largest.
        roughness: Mean square of the difference of horizontal neighbours over twice the
            variance, which is 1 − their correlation: about 0.1 in photographs, 1 in noise;
            0 for an image of one colour.
    """

    digest: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    roughness: float = 0.0


def record_image(digest: str, image: npt.NDArray[np.float32]) -> ImageRecord:
    """Return the record of one image.

    Args:
        digest: SHA-256 of its content.
        image: float32, (C, H, W), not empty.
    """
    from exporter.calibration.counts.image_kernel import moments  # loads numba

    means, variances, steps = zip(*map(moments, np.ascontiguousarray(image)), strict=True)
    low, high = (f(image, axis=(1, 2)).astype(np.float64) for f in (np.min, np.max))
    varied = bool((high > low).any())
    return ImageRecord(
        digest,
        means,
        tuple(np.sqrt(variances).tolist()),
        tuple(low.tolist()),
        tuple(high.tolist()),
        sum(steps) / (2 * sum(variances)) if varied else 0.0,
    )
