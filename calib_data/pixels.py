"""Resize, centre crop and normalize one image, with torchvision's rounding.

Each function takes uint8 pixels, (H, W, 3) RGB or (H, W) grey; a grey image gives bit for
bit what its RGB repetition would, at a third of the cost.

Source: torchvision 0.29, transforms/functional.py, on Pillow images (behaviour).
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.errors import InputError

__all__ = [
    "INTERPOLATIONS",
    "Pixels",
    "Size",
    "Tensor",
    "Triple",
    "centre_crop",
    "normalize",
    "resize_to",
]

Pixels = npt.NDArray[np.uint8]
Tensor = npt.NDArray[np.float32]
Size = tuple[int, int]  # (height, width), pixels
Triple = tuple[float, float, float]  # R, G, B

INTERPOLATIONS: dict[str, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_MAX_RESIZED_PIXELS = 1 << 26  # 1×10000 at "shorter side 256" would be 655 million


def resize_to(image: Pixels, resize: int | Size, interpolation: str) -> Pixels:
    """Resample an image, antialiased.

    Args:
        image: uint8, (H, W, 3) or (H, W).
        resize: (height, width), or the length of the shorter side; the longer one is then
            the aspect ratio's, rounded down.
        interpolation: A key of :data:`INTERPOLATIONS`.

    Returns:
        uint8; the very same array when it already has that size.

    Raises:
        InputError: So long and thin an image that the result would fill the memory.
    """
    height, width = image.shape[:2]
    if isinstance(resize, tuple):
        new_height, new_width = resize
    elif height <= width:
        new_height, new_width = resize, int(resize * width / height)
    else:
        new_height, new_width = int(resize * height / width), resize
    if (new_height, new_width) == (height, width):
        return image
    if new_height * new_width > _MAX_RESIZED_PIXELS:
        raise InputError(
            f"an image of {width}×{height} pixels would be resized to {new_width}×{new_height}",
            hint="leave it out of the data set, or resize to a (height, width)",
        )
    how = INTERPOLATIONS[interpolation]
    return np.asarray(Image.fromarray(image).resize((new_width, new_height), how), dtype=np.uint8)


def centre_crop(image: Pixels, crop: Size) -> Pixels:
    """Cut (height, width) from the centre, zero-padded first where the image is smaller.

    Half a pixel is rounded to even when cutting; when padding, the odd row or column goes
    below or to the right.
    """
    missing = [max(0, wanted - side) for side, wanted in zip(image.shape, crop, strict=False)]
    if any(missing):
        padding = [(lacking // 2, (lacking + 1) // 2) for lacking in missing]
        image = np.pad(image, [*padding, (0, 0)][: image.ndim])
    top = round((image.shape[0] - crop[0]) / 2)
    left = round((image.shape[1] - crop[1]) / 2)
    return image[top : top + crop[0], left : left + crop[1]]


def normalize(image: Pixels, mean: Triple, std: Triple) -> Tensor:
    """Return (pixel / 255 − mean) / std in float32, (3, H, W).

    Args:
        image: uint8, (H, W, 3) or (H, W).
        mean: Of pixels in [0, 1].
        std: Of pixels in [0, 1]; positive.
    """
    table = _normalized_bytes(mean, std)
    tensor = np.empty((3, *image.shape[:2]), np.float32)
    for channel in range(3):
        plane = image if image.ndim == 2 else image[:, :, channel]
        # Any mode but "raise" writes to `out` unbuffered; no byte is out of range.
        np.take(table[channel], plane, out=tensor[channel], mode="clip")
    return tensor


@lru_cache(maxsize=16)
def _normalized_bytes(mean: Triple, std: Triple) -> Tensor:
    """Return (v / 255 − mean) / std for each byte v: (3, 256).

    A byte has only 256 values: looking them up is exact, and five times faster.
    """
    value = np.arange(256, dtype=np.float32) / np.float32(255)
    columns = np.array([mean, std], np.float32)[:, :, None]
    table: Tensor = (value - columns[0]) / columns[1]
    table.flags.writeable = False
    return table
